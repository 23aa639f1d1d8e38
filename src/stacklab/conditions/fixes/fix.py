"""A fix: an idempotent repair of one thing on the machine that can be listed, shown, applied and verified.

A fix is a small class per noun (a service, the bridge, SELinux). What it would run is data (`plan`), and `apply` runs exactly
that, so that what `lab fixes show` prints is what happens.
"""

from __future__ import annotations

import re
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from stacklab.conditions.finding import Finding
from stacklab.deploy.profile.model import Profile
from stacklab.errors import CommandFailed
from stacklab.machines.base import COMMAND_SECONDS, Finished, Machine, shown
from stacklab.stages import Progress

ASK_EVERY = 2.0
"""Seconds between two looks at something that is waited for."""

SAY_AGAIN = 30.0
"""Seconds after which a line that only counts on is said again."""
_DURATION = re.compile(r"\d+(\.\d+)?( of \d+)? (s|min|h)\b")


class Action(Protocol):
    """One thing that a fix does, as root."""

    @property
    def text(self) -> str:
        """As a person would type it in root's shell."""

    def run(self, machine: Machine) -> None:
        """Raises CommandFailed."""


@dataclass(frozen=True)
class Run:
    """A program. `may_fail`: its status does not matter, for what comes of it is looked at afterwards."""

    argv: tuple[str, ...]
    seconds: float = COMMAND_SECONDS
    may_fail: bool = False

    @property
    def text(self) -> str:
        return shown(self.argv)

    def run(self, machine: Machine) -> None:
        machine.run(*self.argv, user="root", seconds=self.seconds, check=not self.may_fail)


def command(*argv: str, seconds: float = COMMAND_SECONDS, may_fail: bool = False) -> Run:
    """A program as an action."""
    return Run(argv, seconds, may_fail)


@dataclass(frozen=True)
class Script:
    """Lines of shell. Whoever makes one quotes what goes into it (`shlex.quote`)."""

    text: str
    seconds: float = COMMAND_SECONDS

    def run(self, machine: Machine) -> None:
        machine.script(self.text, user="root", seconds=self.seconds)


@dataclass(frozen=True)
class Write:
    """A file."""

    path: str
    content: str

    @property
    def text(self) -> str:
        return f"cat > {shlex.quote(self.path)} <<'END'\n{self.content.rstrip()}\nEND"

    def run(self, machine: Machine) -> None:
        machine.put(self.path, self.content)


class Fix(ABC):
    """One repair. `why`: in a learner's words. `watches`: its `verify` waits for more than a minute to see whether it holds.

    A fault will be the same thing backwards, on the same class. All methods raise MachineUnreachable and its kin.
    """

    id: str
    title: str
    why: str
    watches: bool = False
    patience: float = 30
    """Seconds within which what was applied must show."""

    def check(self, machine: Machine, profile: Profile) -> Finding:
        """How it is now. Changes nothing and does not wait."""
        try:
            return self.look(machine, profile)
        except CommandFailed as error:
            return Finding("unknown", _said(error))

    @abstractmethod
    def look(self, machine: Machine, profile: Profile) -> Finding:
        """What `check` does, except that a probe which cannot be made is a CommandFailed here."""

    @abstractmethod
    def plan(self, machine: Machine, profile: Profile) -> Sequence[Action]:
        """What `apply` would run now, in order. Looks at the machine if that depends on it. Raises CommandFailed."""

    def apply(self, machine: Machine, profile: Profile, progress: Progress) -> None:
        """Repair it. Safe to repeat. Raises CommandFailed."""
        for action in self.plan(machine, profile):
            progress(action.text.splitlines()[0])
            action.run(machine)

    def verify(self, machine: Machine, profile: Profile, progress: Progress) -> Finding:
        """Whether it works now, found out by doing; waits up to `patience` for it."""
        until = time.monotonic() + self.patience
        while True:
            finding = self.check(machine, profile)
            if finding.fine or time.monotonic() > until:
                return finding
            progress(f"waiting for {self.title} (up to {self.patience:.0f} s): {finding.evidence.splitlines()[0]}")
            time.sleep(ASK_EVERY)


def sparing(progress: Progress, clock: Callable[[], float] = time.monotonic) -> Progress:
    """`progress` without the lines that differ from the last one in their seconds alone; every SAY_AGAIN s they are said.

    Without a terminal each of them is a line of its own.
    """
    last, at = None, 0.0

    def said(detail: str) -> None:
        nonlocal last, at
        what, now = _DURATION.sub("", detail), clock()
        if what != last or now - at >= SAY_AGAIN:
            last, at = what, now
            progress(detail)

    return said


def probe(machine: Machine, *argv: str, seconds: float = 60) -> Finished:
    """Look as root; any exit status is an answer. Raises CommandFailed where the machine has no such program."""
    done = machine.run(*argv, user="root", seconds=seconds, check=False)
    # sudo says it with status 1, a shell with 127.
    if done.status == 127 or (not done.ok and "command not found" in done.err):
        raise CommandFailed(f"the machine has no program '{argv[0]}'", status=done.status, said=done.err)
    return done


def _said(error: CommandFailed) -> str:
    last = error.said.strip().splitlines()[-1:] if error.said else []
    return "cannot tell: " + ": ".join([error.message, *(line for line in last if line not in error.message)])
