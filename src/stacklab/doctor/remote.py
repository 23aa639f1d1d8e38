"""A machine of the learner's, over SSH: the way in, root, and what DevStack needs of it. Nothing is changed there."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import threading
from functools import cached_property
from pathlib import Path

from stacklab import indexes
from stacklab.conditions.condition import Finding
from stacklab.deploy.prepare import ownership
from stacklab.deploy.prepare.internet import pip_settings
from stacklab.deploy.prepare.preparation import MEMORY_SHARE, check_size
from stacklab.deploy.profile.load import profile_for
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.doctor import here, registries
from stacklab.doctor.probe import Probe, bad, gib, good, unknown, warning
from stacklab.errors import (
    CommandFailed,
    HostKeyChanged,
    LabError,
    LoginRefused,
    MachineUnreachable,
    NotEnoughSpace,
    NotServed,
    SudoRefused,
    UnsupportedMachine,
)
from stacklab.homes.plan import Plan
from stacklab.homes.ssh.home import fitting_profile
from stacklab.lab import Lab
from stacklab.machines.address import Address
from stacklab.machines.clock import OFF_SECONDS, ahead
from stacklab.machines.ssh import SshMachine

ROOMY_GIB = 20
"""DevStack takes 6 GiB (measured); images, volumes and instances' disks want some more."""
SECONDS = 120.0
CLOSED = {
    "machine-unreachable": "not looked at: there is no connection",
    "host-key-changed": "not looked at: the host key is another one",
    "login-refused": "not looked at: there is no login",
    "sudo-refused": "not looked at: nobody becomes root there",
    "not-served": "not looked at: no profile fits it",
}

# Prints `name value` lines.
_LOOK = r"""
awk '/^MemTotal|^MemAvailable/ {printf "%s %.0f\n", $1, $2 * 1024}' /proc/meminfo  # mawk would print 2.5e+10
place=$1
while [ ! -d "$place" ]; do place=$(dirname -- "$place"); done
echo "place $place"
df -P -B1 -- "$place" | awk 'NR == 2 {print "total", $2; print "free", $4}'
echo "python $(command -v python3 >/dev/null && python3 -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' || echo none)"
"""


class Remote:
    """One machine for all probes: connected once, whoever asks first. `close` gives the connection up."""

    def __init__(self, lab: Lab, plan: Plan, settings: Settings) -> None:
        self.lab, self.plan, self.settings = lab, plan, settings
        self._known_hosts = lab.home_directory / "known_hosts"
        self._scratch = Path(tempfile.mkdtemp(prefix="lab-doctor-"))
        self._lock = threading.Lock()
        self._connecting: LabError | None = None
        """Why that failed."""

    def close(self) -> None:
        """Give the connection up and forget the host key that was seen."""
        if "_machine" in self.__dict__:
            self._machine.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def probes(self) -> list[Probe]:
        """In the order in which they build on each other; each with what it would be wrong with."""
        table = (
            ("reachable", "reachable", self.reachable, MachineUnreachable),
            ("host-key", "host key", self.host_key, HostKeyChanged),
            ("login", "login", self.login, LoginRefused),
            ("sudo", "root", self.sudo, SudoRefused),
            ("distribution", "distribution", self.distribution, NotServed),
            ("unused", "other use", self.unused, ()),
            ("machine-memory", "memory (there)", self.memory, UnsupportedMachine),
            ("machine-disk", "disk (there)", self.disk, ()),
            ("machine-python", "Python (there)", self.python, ()),
            ("machine-clock", "clock (there)", self.clock, ()),
            ("machine-packages", "packages (there)", self.packages, CommandFailed),
            ("machine-python-index", "Python index (there)", self.python_index, ()),
            ("machine-devstack", "DevStack's source (there)", self.source, ()),
        )
        return [Probe(name, title, look, SECONDS, wrong, CLOSED) for name, title, look, wrong in table]

    # --- the way in ------------------------------------------------------------------------------------------------

    @cached_property
    def _machine(self) -> SshMachine:
        pins = self._scratch / "known_hosts"
        if self._known_hosts.exists():  # a copy: looking pins nothing
            shutil.copyfile(self._known_hosts, pins)
        return SshMachine(Address.parse(str(self.plan.address)), known_hosts=pins)

    def machine(self) -> SshMachine:
        """Connected. Raises what connecting raises, each time the same."""
        with self._lock:
            if self._connecting is None:
                try:
                    self._machine.connect()
                    return self._machine
                except LabError as error:
                    self._connecting = error
            raise self._connecting

    def _pinned(self) -> bool:
        name, known = self._machine.address.known_as, self._known_hosts
        return known.exists() and any(line.split()[:1] == [name] for line in known.read_text().splitlines())

    def reachable(self) -> Finding:
        try:
            return good(f"{self.machine().name} answers")
        except (HostKeyChanged, LoginRefused) as error:
            return good(f"{self._machine.name} answers ({error.id})")

    def host_key(self) -> Finding:
        try:
            prints = ", ".join(self.machine().pinned())
        except LoginRefused:
            return good("it is the pinned one") if self._pinned() else unknown("it is seen after a login")
        return good(f"{prints}, {'the pinned one' if self._pinned() else 'seen for the first time; lab up pins it'}")

    def login(self) -> Finding:
        return good(f"as {self.machine().run('id', '-un', seconds=30).out.strip()}")

    def sudo(self) -> Finding:
        machine = self.machine()
        user = machine.run("id", "-u", user="root", seconds=60).out.strip()
        return good("root without a password") if user == "0" else bad(f"{machine.name} says that root is user {user}")

    # --- what it is ------------------------------------------------------------------------------------------------

    @cached_property
    def profile(self) -> Profile:
        """The profile that was asked for, else the one that fits. Raises NotServed."""
        machine = self.machine()
        return profile_for(machine, fitting_profile(machine, self.plan.profile), self.settings)

    def distribution(self) -> Finding:
        return good(f"{self.profile.distribution}, which profile {self.profile.name} is for")

    def unused(self) -> Finding:
        evidence = ownership.looks_used(self.machine(), self.lab, self.profile.devstack.directory)
        if evidence:
            on_it = f"lab up SESSION --on {shlex.quote(on(str(self.plan.address)))} --even-if-used"
            return bad("; ".join(evidence), f"{on_it}   (it changes the machine for good)")
        return good("this lab's own" if self._ours() else "nothing on it looks like somebody's work")

    @cached_property
    def facts(self) -> dict[str, str]:
        """What the machine says of itself, by name."""
        lines = self.machine().script(_LOOK, self.profile.devstack.directory, user="root", seconds=60).lines
        return dict(line.split(" ", 1) for line in lines if " " in line)

    def _ours(self) -> bool:
        return ownership.ours(self.machine(), self.lab)

    def memory(self) -> Finding:
        size, ours = self.profile.size, self._ours()  # ours: OpenStack itself has taken it
        total, free = int(self.facts["MemTotal:"]), int(self.facts["MemAvailable:"])
        check_size(self._machine.name, self.profile, total / 2**20, size.least_disk)
        least, enough = (0 if ours else int(mib * 2**20 * MEMORY_SHARE) for mib in (size.least_memory, size.memory))
        return here.judged_memory(total, free, least, enough, "services and instances may be pushed out of memory")

    def disk(self) -> Finding:
        place, free = self.facts["place"], int(self.facts["free"])
        have = f"{gib(free)} of {gib(int(self.facts['total']))} free at {place}"
        try:
            if not self._ours():
                check_size(self._machine.name, self.profile, self.profile.size.least_memory, free / 2**30)
        except NotEnoughSpace as error:
            return bad(error.message, f"on the machine: sudo du -xh {place} | sort -h | tail")
        if free < ROOMY_GIB * 2**30:
            return warning(f"{have}; images, volumes and instances may fill it")
        return good(have)

    def python(self) -> Finding:
        version = self.facts["python"]
        return good("none yet; DevStack installs it" if version == "none" else version)

    def clock(self) -> Finding:
        off, keeper = ahead(self.machine()), here.clock_keeper(self.machine())
        if abs(off) > OFF_SECONDS:
            way = "ahead of" if off > 0 else "behind"
            set_it = "on the machine: sudo timedatectl set-ntp true"
            return bad(f"{abs(off):.0f} s {way} this machine's; {keeper}", set_it)
        return good(f"agrees with this machine's ({max(abs(off), 0.1):.1f} s off); {keeper}")

    # --- what it can reach -----------------------------------------------------------------------------------------

    def packages(self) -> Finding:
        manager = {"debian": "apt-get", "redhat": "dnf"}[self.profile.family]
        if manager == "dnf" and not self.machine().run("dnf", "--version", check=False).ok:
            manager = "yum"
        return registries.distribution(self.machine(), manager, user="root")

    def python_index(self) -> Finding:
        options = pip_settings(self.settings, os.environ, "")
        index = self.settings.at(options.get("index-url") or indexes.pips_own())
        return registries.answers(self.machine(), registries.page(index), self.settings)

    def source(self) -> Finding:
        return registries.source(self.machine(), self.profile.devstack, self.settings)


def on(address: str) -> str:
    """What `--on` takes for a machine's address: a name of ssh_config alone would be a home's."""
    return address if "://" in address or "@" in address else f"ssh:{address}"
