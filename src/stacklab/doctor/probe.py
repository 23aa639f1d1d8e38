"""A probe looks at one thing that a home needs, a finding is what it saw. Looking changes nothing."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stacklab.errors import LabError

State = Literal["good", "warning", "bad", "unknown"]
"""`warning`: the home is usable, and the evidence says what it costs. `unknown`: it could not be told, which is no pass."""

PROBE_SECONDS = 60.0


@dataclass(frozen=True)
class Command:
    """A command that lab may run itself: it is safe, and needs no decision of anybody.

    `root`: as root, through sudo where we are not. `installs`: packages of the distribution, which NO_SYSTEM forbids.
    `optional`: what comes after it is tried even if it fails (one registry of many may be down).
    """

    argv: tuple[str, ...]
    root: bool = False
    installs: bool = False
    optional: bool = False

    @property
    def full(self) -> tuple[str, ...]:
        """The words to run. sudo must not ask for a password: nobody may be there to type it."""
        return ("sudo", "-n", *self.argv) if self.root and os.geteuid() != 0 else self.argv

    def __str__(self) -> str:
        """As a person would type it."""
        line = shlex.join(self.argv)
        return f"sudo {line}" if self.root and os.geteuid() != 0 else line


Mend = Command | str
"""What mends it: a command that lab may run, or a line for the person."""


@dataclass(frozen=True)
class Told:
    """What looking gave."""

    state: State
    evidence: str
    mend: tuple[Mend, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One line of `lab doctor`."""

    id: str
    title: str
    state: State
    evidence: str
    mend: tuple[Mend, ...] = ()

    @property
    def safe(self) -> bool:
        """Whether lab may mend it by itself."""
        return self.state != "good" and any(isinstance(one, Command) for one in self.mend)

    @property
    def passes(self) -> bool:
        """Whether the home is usable as far as this goes."""
        return self.state in ("good", "warning")

    def document(self) -> dict[str, object]:
        """For --json."""
        lines = [str(one) for one in self.mend]
        return {
            "id": self.id, "title": self.title, "state": self.state, "evidence": self.evidence, "mend": lines,
            "safe": self.safe,
        }  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """`look` may raise anything: that is "cannot tell". `seconds`: after that it is given up, and cannot be told either."""

    id: str
    title: str
    look: Callable[[], Told]
    seconds: float = PROBE_SECONDS

    def run(self) -> Finding:
        """Look once; whatever goes wrong with the looking is told, never passed over."""
        try:
            told = self.look()
        except LabError as error:
            told = unknown(error.message, *([error.advice] if error.advice else []))
        except Exception as error:  # noqa: BLE001 - a probe that breaks must not take the others, or the answer, with it
            told = unknown(f"the probe itself failed: {type(error).__name__}: {error}")
        return self.found(told)

    def found(self, told: Told) -> Finding:
        """The finding for what was told."""
        return Finding(self.id, self.title, told.state, told.evidence, told.mend)

    def overdue(self) -> Finding:
        """The finding when nothing came in time."""
        return self.found(unknown(f"nothing came of looking within {self.seconds:.0f} s"))


def good(evidence: str) -> Told:
    """All is well."""
    return Told("good", evidence)


def warning(evidence: str, *mend: Mend) -> Told:
    """It works, at a cost that the evidence names."""
    return Told("warning", evidence, mend)


def bad(evidence: str, *mend: Mend) -> Told:
    """The home cannot work so."""
    return Told("bad", evidence, mend)


def unknown(evidence: str, *mend: Mend) -> Told:
    """It could not be told, and why."""
    return Told("unknown", evidence, mend)


def gib(size: float) -> str:
    """Bytes, for people."""
    return f"{size / 2**30:.1f} GiB"


def existing(path: Path) -> Path:
    """The nearest directory of `path` that is there: what is made below it lies on its file system."""
    return next((one for one in (path, *path.parents) if one.is_dir()), Path("/"))
