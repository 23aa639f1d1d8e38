"""What conditions of a machine share: asking it, acting on it as root, and what a fault keeps on it for the way back."""

from __future__ import annotations

import json
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stacklab.cloud.connection import Connection
from stacklab.conditions import systemd
from stacklab.conditions.condition import Action, Condition, Fault
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.profile.model import Breakable, Profile
from stacklab.deploy.stack.detached import unfinished
from stacklab.errors import CommandFailed, NotRunning
from stacklab.files import read_json, write_json
from stacklab.machines.base import COMMAND_SECONDS, Finished, Machine, probe, shown

BASE = "/var/lib/stacklab/faults"


def _no_machine() -> Deployment:
    raise NotRunning("there is no machine yet", advice="lab up makes it")


def _no_login() -> Connection:
    raise NotRunning("there is no login for the cloud yet", advice="lab up writes it")


@dataclass(frozen=True)
class Target:
    """What the conditions of one lab's machine are about. Nothing is asked before one of them needs it.

    `deployment`: the machine and its profile. `cloud`: opens the API as administrator; raises NotRunning, CloudUnreachable.
    """

    deployment: Callable[[], Deployment] = _no_machine
    cloud: Callable[[], Connection] = _no_login


class MachineCondition(Condition):
    """See Condition. What is asked of the machine is asked as root; a CommandFailed of it is "cannot tell"."""

    def __init__(self, target: Target) -> None:
        self.target = target

    @cached_property
    def deployment(self) -> Deployment:
        """The machine and what was made of it."""
        return self.target.deployment()

    @property
    def machine(self) -> Machine:
        """The lab's machine."""
        return self.deployment.machine

    @property
    def profile(self) -> Profile:
        """What this machine's release calls things."""
        return self.deployment.profile

    def masked(self, text: str) -> str:
        for secret in self.deployment.lab.secrets():
            text = text.replace(secret, "********")
        return text

    def probe(self, *argv: str, seconds: float = 60) -> Finished:
        """Ask with a program; any exit status is an answer. Raises CommandFailed where the machine has no such program."""
        return probe(self.machine, *argv, seconds=seconds)

    def units(self, *names: str) -> list[systemd.Unit]:
        """The named units, in this order."""
        return systemd.look(self.machine, names)

    def command(self, *argv: str, seconds: float = COMMAND_SECONDS, may_fail: bool = False) -> Action:
        """A program. `may_fail`: its status does not matter, for what comes of it is looked at afterwards."""
        machine = self.machine
        return Action(shown(argv), lambda: machine.run(*argv, user="root", seconds=seconds, check=not may_fail))

    def restarting(self, *names: str) -> list[Action]:
        """Restart units, also those that failed so often in a short time that systemd would not start them."""
        return [
            action
            for name in names
            for action in (
                self.command("systemctl", "reset-failed", name, may_fail=True),
                self.command("systemctl", "restart", name, seconds=systemd.RESTART_SECONDS, may_fail=True),
            )
        ]

    def script(self, text: str, seconds: float = COMMAND_SECONDS) -> Action:
        """Lines of shell. Whoever writes them quotes what goes into them (`shlex.quote`)."""
        return Action(text, lambda: self.machine.script(text, user="root", seconds=seconds))

    def write(self, path: str, content: str) -> Action:
        """A file."""
        text = f"cat > {shlex.quote(path)} <<'END'\n{content.rstrip()}\nEND"
        return Action(text, lambda: self.machine.put(path, content))


class MachineRepair(MachineCondition):
    """What `lab fixes` repairs; repairs.yaml says of it what a learner wants to know."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.texts = _texts()[self.id]
        self.title, self.why = self.texts["title"], self.texts["why"]


@cache
def _texts() -> dict[str, dict[str, str]]:
    """repairs.yaml: by id of a condition."""
    text = Path(__file__).with_name("repairs.yaml").read_text(encoding="utf-8")
    return dict(YAML(typ="safe").load(text))


class MachineFault(MachineCondition, Fault):
    """See Fault. A machine has it only once stack.sh has ended well there."""

    @property
    def breakable(self) -> Breakable:
        """What the profile says of faults."""
        return self.profile.faults

    @property
    def kept(self) -> OnMachine:
        """What this fault keeps on the machine for the way back."""
        return OnMachine(self.machine, f"{BASE}/{self.id}")

    def why_not(self) -> str | None:
        left = unfinished(self.machine, self.profile.program)
        return f"{left.said}; {left.todo}" if left else self.lacks()

    def lacks(self) -> str | None:
        """What this machine lacks for it, or None."""
        return None

    def lacks_unit(self, name: str) -> str | None:
        """That the machine has no such unit of DevStack's, or None."""
        unit = self.units(systemd.stack_unit(name))[0]
        return None if unit.there else f"the machine has no unit {unit.name}"

    def forget(self) -> None:
        self.kept.forget()


class WayBack(ABC):
    """What a fault keeps for the way back, in one file: there, whole, before anything is changed."""

    file: str

    @abstractmethod
    def read(self) -> dict[str, Any] | None:
        """What is kept; None if nothing is."""

    @abstractmethod
    def keep(self, values: dict[str, Any]) -> None:
        """Keep these values in place of what was kept before."""

    @abstractmethod
    def forget(self) -> None:
        """Remove it."""

    def keeping(self, **values: Any) -> Action:
        """`keep`, as an action; its text does not show the values, which may be secret."""
        return Action(f"keep what the way back needs in {self.file}", lambda: self.keep(values))


class OnMachine(WayBack):
    """A directory of root's alone on the machine, and in it state.json."""

    def __init__(self, machine: Machine, directory: str) -> None:
        self.machine, self.directory = machine, directory
        self.file = f"{directory}/state.json"

    def read(self) -> dict[str, Any] | None:
        text = self.machine.read(self.file)
        try:
            return None if text is None else dict(json.loads(text))
        except ValueError as error:
            raise CommandFailed(f"{self.file} on {self.machine.name} is no JSON: {error}") from error

    def keep(self, values: dict[str, Any]) -> None:
        self.machine.script('mkdir -p "$1"; chmod 700 "$1"', self.directory, user="root")
        self.machine.put(self.file, json.dumps(values) + "\n", mode=0o600)

    def forget(self) -> None:
        """Raises CommandFailed where something is still mounted in it."""
        self.machine.script('[ ! -e "$1" ] || rm -r --one-file-system -- "$1"', self.directory, user="root")


class OnDisk(WayBack):
    """A file of the lab's own, for what is broken without a machine of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = str(path)

    def read(self) -> dict[str, Any] | None:
        kept = read_json(self.path)
        return None if kept is None else dict(kept)

    def keep(self, values: dict[str, Any]) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(self.path, values, mode=0o600)

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
