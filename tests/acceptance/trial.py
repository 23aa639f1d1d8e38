"""The trial itself: the parts, one after the other, through the `lab` command as a learner has it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from stacklab.images.build import build_tiny
from stacklab.images.catalogue import load_catalogue
from tests.acceptance.mirrors import Mirrors
from tests.acceptance.table import Part, spoken
from tests.systems import System, root_file_system, system

LAB = Path(sys.executable).with_name("lab")
SESSION = "session4"
OTHERS = ("session1", "session2", "session3", "https-endpoints")
"""Each is replayed, checked and undone on its own; what makes no sense on this cloud says so and counts as not applicable."""
FAULTS = {"httpd": "repair-httpd", "wrong-password": "repair-password"}
"""What is broken on purpose, with the step of session 4's exercise `troubleshooting` that grades the repair."""
ALIAS = "acceptance"
IMAGE = "lab-tiny.qcow2"
UP_SECONDS = 3 * 3600
OTHER_SECONDS = 3600
FAILED_CHECK = 1
"""lab's exit status when a check failed."""
GUEST_SECONDS = 300
RESTART_SECONDS = 900  # n-cond-cell1 can hang to its TimeoutStopSec=300


class TrialFailed(Exception):
    """A part without which the next ones make no sense did not succeed."""


class Trial:
    """One trial. `work` holds the lab's directories, each command's log, the machine's changes. `parts` fills as it goes."""

    def __init__(self, work: Path, mirrors: Mirrors, profile: str, *, keep: bool) -> None:
        self.work, self.mirrors, self.profile, self.keep = work, mirrors, profile, keep
        self.parts: list[Part] = []
        self._environment = os.environ | {
            f"XDG_{k}_HOME": str(work / k.lower()) for k in ("STATE", "DATA", "CACHE", "CONFIG")
        }
        self._environment |= {"HOME": str(work / "home"), "NO_COLOR": "1", "LAB_NAME": "acceptance"}

    def run(self) -> None:
        """All of it. Raises TrialFailed, NoSystem, NoMirrors."""
        with self._timed("base", "Debian 12 from its packages (mmdebstrap; cached)") as say:
            say(root_file_system(bare=True).name)
        with contextlib.ExitStack() as stack:
            with self._timed("machine", "the machine boots, SSH answers") as say:
                machine = stack.enter_context(system(self.work, bare=True))
                say(f"{machine.address}, systemd in a container, {os.cpu_count()} cores")
            addresses = stack.enter_context(self.mirrors.served(machine.gateway, self.work / "git-daemon.log"))
            image = self._image()
            self._configure(machine, addresses, image)
            try:
                self._use(machine, image)
            finally:
                if self.keep:
                    self._wait_for_the_end(machine)

    def _use(self, machine: System, image: Path) -> None:
        on = ("--on", f"ssh:{ALIAS}", "--profile", self.profile, "--image", str(image))
        what = "`lab up session4`, from a bare machine to a proved cloud"
        self._lab(what, "up", SESSION, *on, seconds=UP_SECONDS, must=True)
        self._lab("`lab up` again", "up", SESSION)
        self._lab("`lab fixes list`", "fixes", "list")
        self._lab("session 4 replayed", "replay", SESSION)
        self._lab("session 4 checked", "check", SESSION)
        with self._timed("restart", "the machine restarted (in order)") as say:
            machine.reboot(RESTART_SECONDS)
            say(_after_restart(machine))
        self._lab("`lab recover`", "recover", must=True)
        # Nova says ACTIVE as soon as the guest's first instruction runs; its login prompt comes later.
        self._lab("session 4 checked again, until all is there", "check", SESSION, patience=GUEST_SECONDS)
        for fault, step in FAULTS.items():
            self._break(fault, f"{SESSION}/troubleshooting/{step}")
        self._lab("session 4 undone", "undo", SESSION)
        for session in OTHERS:
            self._lab(f"{session} replayed", "replay", session)
            self._lab(f"{session} checked", "check", session)
            self._lab(f"{session} undone", "undo", session)
        self._lab("`lab reset session4`", "reset", SESSION, "--yes")

    def _break(self, fault: str, step: str) -> None:
        """A fault, broken on purpose: its check must fail, and pass again after `lab fix`."""
        self._lab(f"`lab break {fault}`, until its symptoms show", "break", f"{SESSION}/{fault}", "--yes")
        self._lab(f"the check of {fault} fails", "check", step, status=FAILED_CHECK)
        self._lab(f"`lab fix {fault}`", "fix", f"{SESSION}/{fault}")
        self._lab(f"the check of {fault} passes", "check", step)

    def machine_words(self) -> str:
        """What it ran on, and which DevStack."""
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "")
        load = os.getloadavg()[0]
        return (
            f"{os.cpu_count()} cores ({model or platform.machine()}), load {load:.1f} at the end, guests emulated,"
            f" DevStack at {self.mirrors.commits()['devstack'][:10]}, Nova at {self.mirrors.commits()['nova'][:10]}"
        )

    # --- what lab is told ------------------------------------------------------------------------------------------

    def _image(self) -> Path:
        """The image that lab builds itself, for DevStack's default and for the session's."""
        path = self.work / IMAGE
        if not path.exists():
            build_tiny(load_catalogue(), path, lambda _: None)
        return path

    def _configure(self, machine: System, mirrors: dict[str, str], image: Path) -> None:
        ssh = self.work / "home" / ".ssh"
        ssh.mkdir(parents=True, exist_ok=True, mode=0o700)
        (ssh / "config").write_text(
            f"Host {ALIAS}\n  HostName {machine.address}\n  User {machine.user}\n  IdentityFile {machine.key}\n"
        )
        directory = Path(self._environment["XDG_CONFIG_HOME"]) / "stacklab"
        directory.mkdir(parents=True, exist_ok=True)
        # JSON is YAML. DevStack's own default image is not to be had without the internet: ours takes its place.
        placed = {"path": f"files/{IMAGE}", "url": image.as_uri(), "why": "the image that lab builds itself"}
        values = {"image_name": image.stem, "image_url": f"file:///opt/stack/devstack/files/{IMAGE}"}
        config = {"deploy": {"mirrors": mirrors}, "profiles": {self.profile: {"files": [placed], "values": values}}}
        (directory / "config.yaml").write_text(json.dumps(config, indent=2) + "\n")

    # --- how it is run ---------------------------------------------------------------------------------------------

    def _lab(
        self, what: str, *words: str, seconds: float = OTHER_SECONDS, must: bool = False, patience: float = 0,
        status: int = 0,
    ) -> None:  # fmt: skip
        """A `lab` command; its output goes to the terminal and into a file.

        `patience`: seconds to repeat it in vain. `status`: what it has to end with.
        """
        began, tries = time.monotonic(), 1
        while True:
            ended, lines, log = self._ran(words, seconds)
            if ended == status or time.monotonic() - began > patience:
                break
            tries += 1
            time.sleep(5)
        took = time.monotonic() - began
        showed = _last_words(lines) + (f" (at the {tries}. time)" if tries > 1 else "")
        if ended != status:
            showed = f"exit {ended}: {showed}; see {log}"
        self.parts.append(Part(what, took, ended == status, showed))
        print(f"  = {spoken(took)}, exit {ended}", flush=True)
        if must and ended != status:
            raise TrialFailed(f"{what}: {showed}")

    def _ran(self, words: Sequence[str], seconds: float) -> tuple[int, list[str], str]:
        """Exit status, output, and the name of the file that holds it."""
        log = self.work / f"{len(self.parts) + 1:02}-lab-{words[0]}.log"
        print(f"\n$ lab {' '.join(words)}", flush=True)
        lines: list[str] = []
        with log.open("a", encoding="utf-8") as out:
            process = subprocess.Popen(
                [str(LAB), *words], env=self._environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            alarm = threading.Timer(seconds, process.terminate)
            alarm.start()
            try:
                for line in process.stdout or ():
                    out.write(line)
                    out.flush()
                    print(f"  {line}", end="", flush=True)
                    lines.append(line.rstrip())
                status = process.wait()
            finally:
                alarm.cancel()
                if process.poll() is None:
                    process.terminate()
                    process.wait(60)
        return status, lines, log.name

    @contextlib.contextmanager
    def _timed(self, name: str, what: str) -> Iterator[_Say]:
        print(f"\n• {what}", flush=True)
        began, say = time.monotonic(), _Say()
        try:
            yield say
        except Exception as error:
            self.parts.append(Part(what, time.monotonic() - began, good=False, showed=str(error).splitlines()[0][:200]))
            raise
        self.parts.append(Part(what, time.monotonic() - began, good=True, showed=say.text))
        print(f"  {say.text}\n  = {spoken(time.monotonic() - began)}", flush=True)

    def _wait_for_the_end(self, machine: System) -> None:
        print("\nThe machine stays until Ctrl-C:")
        print("  ssh", *machine.ssh_options(), f"{machine.user}@{machine.address}")
        settings = " ".join(
            f"{n}={self._environment[n]}" for n in ("HOME", "LAB_NAME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")
        )
        print(f"  {settings} {LAB} status", flush=True)
        while machine.running():
            time.sleep(1)


class _Say:
    text = ""

    def __call__(self, text: str) -> None:
        self.text = text


def _last_words(lines: list[str]) -> str:
    """The line that sums it up: each verb has its own."""
    said = [line.strip().replace("|", "/") for line in lines if line.strip()]
    sessions = "|".join((SESSION, *OTHERS))
    for pattern in (rf"({sessions}):", "✓ stack.sh", "repaired:", "✗", "!", r"\d+ steps?\b", "✓"):
        for line in reversed(said):
            if re.match(pattern, line):
                return line
    return said[-1] if said else "said nothing"


def _after_restart(machine: System) -> str:
    """What a restart leaves broken, as seen from inside."""
    bridge = machine.ssh("ip -brief address show br-ex | tr -s ' '", check=False).stdout.split()[1:]
    nat = machine.ssh("sudo iptables-save -t nat | grep -c MASQUERADE", check=False).stdout.strip()
    guests = machine.ssh("sudo virsh list --name | grep -c .", check=False).stdout.strip()
    units = machine.ssh(
        "systemctl list-units --plain --no-legend 'devstack@*' | grep -c ' running '", check=False
    ).stdout.strip()
    addresses = [word for word in bridge if "." in word]
    return (
        f"{units} devstack@ units run, but br-ex is {bridge[0] if bridge else 'gone'}, {' '.join(addresses) or 'no address'};"
        f" {nat} MASQUERADE rules, {guests} guests running"
    )
