"""A machine of the learner's, over SSH: the way in, root, and what DevStack needs of it. Nothing is changed there."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from stacklab import indexes
from stacklab.conditions.condition import Finding
from stacklab.deploy.prepare import ownership
from stacklab.deploy.prepare.internet import pip_settings
from stacklab.deploy.prepare.preparation import MEMORY_SHARE, check_size
from stacklab.deploy.profile.load import profile_for
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.doctor import host, packages, registries
from stacklab.doctor.probe import Probe, bad, failed, gib, good, unknown, warning
from stacklab.download import without_login, without_password
from stacklab.errors import HostKeyChanged, LabError, LoginRefused, MachineUnreachable, NotServed, SudoRefused
from stacklab.homes.ssh.home import fitting_profile
from stacklab.lab import Lab
from stacklab.machines.address import Address
from stacklab.machines.base import Finished
from stacklab.machines.clock import OFF_SECONDS, ahead
from stacklab.machines.ssh import SshMachine
from stacklab.prefetch import mirrors

ROOMY_GIB = 20
"""DevStack takes 6 GiB (measured); images, volumes and instances' disks want some more."""
SECONDS = 120.0

# Prints `name value` lines.
_LOOK = r"""
awk '/^MemTotal|^MemAvailable/ {printf "%s %.0f\n", $1, $2 * 1024}' /proc/meminfo  # mawk would print 2.5e+10
place=$1
while [ ! -d "$place" ]; do place=$(dirname -- "$place"); done
echo "place $place"
df -P -B1 -- "$place" | awk 'NR == 2 {print "total", $2; print "free", $4}'
echo "python $(command -v python3 >/dev/null && python3 -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' || echo none)"
echo "synchronised $(timedatectl show -p NTPSynchronized --value 2>/dev/null || echo unknown)"
"""
_ASK_URL = r"""
if command -v curl >/dev/null; then
    printf 'url = "%s"\n' "$url" | curl -sS -o /dev/null -L -m 15 --connect-timeout 8 -w '%{http_code}' --config -
    exit
fi
if command -v python3 >/dev/null; then
    printf %s "$url" | python3 -c 'import sys, urllib.request as r; print(r.urlopen(sys.stdin.read(), timeout=10).status)'
    exit
fi
echo "neither curl nor python3 is there to ask with" >&2
exit 44
"""
_ASK_PACKAGES = r"""
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
mkdir "$scratch/partial"
export LC_ALL=C
for word; do shift; set -- "$@" "$(printf '%s' "$word" | sed "s#{scratch}#$scratch#g")"; done
"$@" 2>&1
"""
_NOTHING_TO_ASK_WITH = 44


class Remote:
    """One machine for all probes: connected once, whoever asks first. `close` gives the connection up."""

    def __init__(self, lab: Lab, address: str, profile: str | None, settings: Settings) -> None:
        self.lab, self.address, self.wanted, self.settings = lab, address, profile, settings
        self._scratch = Path(tempfile.mkdtemp(prefix="lab-doctor-"))
        self._lock = threading.Lock()
        self._machine: SshMachine | None = None
        self._failed: LabError | None = None
        self._profile: Profile | None = None
        self._facts: dict[str, str] = {}

    def close(self) -> None:
        """Give the connection up and forget the host key that was seen."""
        if self._machine is not None:
            self._machine.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def probes(self) -> Iterator[Probe]:
        """In the order in which they build on each other."""

        def probe(id_: str, title: str, look: Callable[[], Finding]) -> Probe:
            return Probe(id_, title, _behind(look), SECONDS)

        yield probe("reachable", "reachable", self.reachable)
        yield probe("host-key", "host key", self.host_key)
        yield probe("login", "login", self.login)
        yield probe("sudo", "root", self.sudo)
        yield probe("distribution", "distribution", self.distribution)
        yield probe("unused", "other use", self.unused)
        yield probe("machine-memory", "memory (there)", self.memory)
        yield probe("machine-disk", "disk (there)", self.disk)
        yield probe("machine-python", "Python (there)", self.python)
        yield probe("machine-clock", "clock (there)", self.clock)
        yield probe("machine-packages", "packages (there)", self.packages)
        yield probe("machine-python-index", "Python index (there)", self.python_index)
        yield probe("machine-devstack", "DevStack's source (there)", self.source)

    # --- the way in ------------------------------------------------------------------------------------------------

    def machine(self) -> SshMachine:
        """Connected. Raises what connecting raises, each time the same."""
        with self._lock:
            if self._failed is not None:
                raise self._failed
            if self._machine is None:
                pins = self._scratch / "known_hosts"
                known = self.lab.home_directory / "known_hosts"
                if known.exists():  # a copy: looking pins nothing
                    shutil.copyfile(known, pins)
                self._machine = SshMachine(Address.parse(self.address), known_hosts=pins)
            try:
                self._machine.connect()
            except LabError as error:
                self._failed = error
                raise
            return self._machine

    def _pinned(self) -> bool:
        known = self.lab.home_directory / "known_hosts"
        name = Address.parse(self.address).known_as
        return known.exists() and any(line.split()[:1] == [name] for line in known.read_text().splitlines())

    def reachable(self) -> Finding:
        try:
            machine = self.machine()
        except MachineUnreachable as error:
            return failed(error)
        except (HostKeyChanged, LoginRefused) as error:
            return good(f"{Address.parse(self.address).name} answers ({error.id})")
        return good(f"{machine.name} answers")

    def host_key(self) -> Finding:
        try:
            machine = self.machine()
        except HostKeyChanged as error:
            return failed(error)
        except LoginRefused:
            return good("it is the pinned one") if self._pinned() else unknown("it is seen after a login")
        prints = ", ".join(machine.pinned())
        return good(f"{prints}, {'the pinned one' if self._pinned() else 'seen for the first time; lab up pins it'}")

    def login(self) -> Finding:
        try:
            done = self.machine().run("id", "-un", seconds=30)
        except LoginRefused as error:
            return failed(error)
        return good(f"as {done.out.strip()}")

    def sudo(self) -> Finding:
        machine = self.machine()
        try:
            done = machine.run("id", "-u", user="root", seconds=60)
        except SudoRefused as error:
            return failed(error)
        if done.out.strip() != "0":
            return bad(f"{machine.name} says that root is user {done.out.strip()}")
        return good("root without a password")

    # --- what it is ------------------------------------------------------------------------------------------------

    def profile(self) -> Profile:
        """The profile that was asked for, else the one that fits. Raises NotServed."""
        machine = self.machine()
        with self._lock:
            if self._profile is None:
                profile = fitting_profile(machine, self.wanted)
                self._profile = profile_for(machine, profile, self.settings)
            return self._profile

    def distribution(self) -> Finding:
        try:
            profile = self.profile()
        except NotServed as error:
            return failed(error)
        return good(f"{profile.distribution}, which profile {profile.name} is for")

    def unused(self) -> Finding:
        machine, directory = self.machine(), self.profile().devstack.directory
        evidence = ownership.looks_used(machine, self.lab if self.lab.exists() else None, directory)
        if not evidence and not self.lab.exists() and machine.read(ownership.MARKER) is not None:
            evidence = [f"another lab is deployed there ({ownership.MARKER})"]
        if evidence:
            return bad(
                "; ".join(evidence),
                f"lab up SESSION --on {shlex.quote(on(self.address))} --even-if-used   (it changes the machine for good)",
            )
        return good("this lab's own" if self._ours() else "nothing on it looks like somebody's work")

    def facts(self) -> dict[str, str]:
        """What the machine says of itself, by name; asked once."""
        machine, directory = self.machine(), self.profile().devstack.directory
        with self._lock:
            if not self._facts:
                lines = machine.script(_LOOK, directory, user="root", seconds=60).lines
                self._facts = dict(line.split(" ", 1) for line in lines if " " in line)
            return self._facts

    def _ours(self) -> bool:
        return self.lab.exists() and ownership.ours(self.machine(), self.lab)

    def memory(self) -> Finding:
        facts, size, ours = self.facts(), self.profile().size, self._ours()  # ours: OpenStack itself has taken it
        total, free = int(facts["MemTotal:"]), int(facts["MemAvailable:"])
        try:
            check_size(self.machine().name, self.profile(), total / 2**20, size.least_disk)
        except LabError as error:
            return failed(error)
        least, enough = (0 if ours else int(mib * 2**20 * MEMORY_SHARE) for mib in (size.least_memory, size.memory))
        return host.judged_memory(total, free, least, enough, "services and instances may be pushed out of memory")

    def disk(self) -> Finding:
        facts, size = self.facts(), self.profile().size
        free = int(facts["free"])
        have = f"{gib(free)} of {gib(int(facts['total']))} free at {facts['place']}"
        try:
            if not self._ours():
                check_size(self.machine().name, self.profile(), size.least_memory, free / 2**30)
        except LabError as error:
            return bad(error.message, f"on the machine: sudo du -xh {facts['place']} | sort -h | tail")
        if free < ROOMY_GIB * 2**30:
            return warning(f"{have}; images, volumes and instances may fill it")
        return good(have)

    def python(self) -> Finding:
        version = self.facts()["python"]
        return good("none yet; DevStack installs it" if version == "none" else version)

    def clock(self) -> Finding:
        off = ahead(self.machine())
        words = {"yes": "it says it is synchronised", "no": "it says nothing synchronises it"}
        keeper = words.get(self.facts()["synchronised"], "it does not say whether it is synchronised")
        if abs(off) > OFF_SECONDS:
            way = "ahead of" if off > 0 else "behind"
            return bad(
                f"{abs(off):.0f} s {way} this machine's; {keeper}", "on the machine: sudo timedatectl set-ntp true"
            )
        return good(f"agrees with this machine's ({max(abs(off), 0.1):.1f} s off); {keeper}")

    # --- what it can reach -----------------------------------------------------------------------------------------

    def packages(self) -> Finding:
        of = {"debian": "apt-get", "redhat": "dnf"}[self.profile().family]
        machine = self.machine()
        if of == "dnf" and not machine.run("sh", "-c", "command -v dnf", check=False).ok:
            return unknown("yum cannot be asked without changing its lists", "on the machine: sudo yum makecache")
        command = packages.asking(of, "{scratch}") or []
        done = machine.script(_ASK_PACKAGES, *command, user="root", seconds=registries.ASK_SECONDS, check=False)
        return registries.judged_answer(of, done.status, done.out + done.err)

    def python_index(self) -> Finding:
        options = pip_settings(self.settings, os.environ, "")
        return self._asked(registries.page(self.settings.at(options.get("index-url") or indexes.pips_own())))

    def source(self) -> Finding:
        devstack = self.profile().devstack
        url = self.settings.at(devstack.repo)
        machine = self.machine()
        if machine.run("sh", "-c", "command -v git", check=False).ok:
            command, login = without_login("git", "ls-remote", "--", url, devstack.ref)
            limit = ("timeout", f"{registries.GIT_SECONDS:.0f}")
            # In the script's text, which nobody on the machine can read.
            exports = [f"export {name}={shlex.quote(value)}" for name, value in login.items()]
            text = "\n".join(["export GIT_TERMINAL_PROMPT=0", *exports, 'exec "$@" </dev/null'])
            done = machine.script(text, *limit, *command, seconds=60, check=False)
            if done.ok and done.out.strip():
                return good(f"{without_password(url)} answers and has {devstack.ref}")
            complaint = "has no such ref" if done.ok else _said(done, registries.GIT_SECONDS, mirrors.complaint)
            return self._elsewhere(f"{without_password(url)}: {complaint}")
        if url.startswith(("http://", "https://")):
            return self._asked(f"{url.rstrip('/')}/info/refs?service=git-upload-pack")
        return unknown(
            f"there is no git on {machine.name} to ask {without_password(url)} with", "lab up installs it there"
        )

    def _asked(self, url: str) -> Finding:
        shown, machine = without_password(url), self.machine()
        if not url.startswith(("http://", "https://")):
            return unknown(f"{shown} cannot be asked from {machine.name}")
        # The address, and an account in it, stand in the script's text, which nobody on the machine can read.
        done = machine.script(f"url={shlex.quote(url)}\n{_ASK_URL}", seconds=40, check=False)
        if done.status == _NOTHING_TO_ASK_WITH:
            return unknown(f"{shown}: {done.err.strip()}")
        code = done.out.strip()
        if done.ok and code.startswith("2"):
            return good(f"{shown} answers")
        return self._elsewhere(f"{shown}: {f'the server answered {code}' if done.ok else _said(done, 15)}")

    def _elsewhere(self, complaint: str) -> Finding:
        if self.settings.ca_file and "certificate" in complaint.lower():
            return unknown(f"{complaint} (before lab up has put the certificates of ca_file there)")
        return bad(complaint, "deploy: mirrors: or pip_index: or proxy: in config.yaml names another way")


def on(address: str) -> str:
    """What `--on` takes for a machine's address: a name of ssh_config alone would be a home's."""
    return address if "://" in address or "@" in address else f"ssh:{address}"


def _behind(look: Callable[[], Finding]) -> Callable[[], Finding]:
    """What is behind a closed door cannot be told; the door's own line has said why it is closed."""

    def looked() -> Finding:
        try:
            return look()
        except (MachineUnreachable, HostKeyChanged, LoginRefused, SudoRefused, NotServed) as error:
            why = {
                "machine-unreachable": "there is no connection", "host-key-changed": "the host key is another one",
                "login-refused": "there is no login", "sudo-refused": "nobody becomes root there",
                "not-served": "no profile fits it",
            }  # fmt: skip
            return unknown(f"not looked at: {why[error.id]}")

    return looked


def _last(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _said(done: Finished, seconds: float, brief: Callable[[str], str] = _last) -> str:
    if done.status == 124:  # timeout(1)
        return f"no answer within {seconds:.0f} s"
    return without_password(brief(done.err or done.out)) or f"status {done.status}"
