"""A condition: something about a cloud or a machine that can be looked at, repaired and, if it is a fault, broken on purpose.

What is asked and how the answer is read are functions of their own, next to each condition; what would run is data (`Action`).
So what is shown is what runs. Announcing, waiting and the way back are here, the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from stacklab.conditions.remedy import Remedy
from stacklab.errors import (
    CommandFailed,
    HomeUnavailable,
    HostKeyChanged,
    LabError,
    LoginRefused,
    MachineUnreachable,
    SudoRefused,
)
from stacklab.stages import Progress
from stacklab.waiting import NotYet, looks, until

State = Literal["good", "warning", "bad", "not_applicable", "unknown"]
"""`warning`: usable, and the evidence says what it costs. `unknown`: it could not be told, which is no pass."""

NO_WAY_THERE = (MachineUnreachable, HostKeyChanged, LoginRefused, SudoRefused)
"""These say nothing of a condition, but that nobody gets to it: they are raised, not answered."""


@dataclass(frozen=True)
class Finding:
    """How a thing is, and what was seen that says so. `early`: it is too early to tell, a later look may.

    `remedies`: what would help, in order: a command that lab may run itself, or a line for a person.
    """

    state: State
    evidence: str
    early: bool = False
    remedies: tuple[Remedy | str, ...] = ()

    @property
    def fine(self) -> bool:
        """Whether there is nothing to repair."""
        return self.state in ("good", "warning", "not_applicable")


@dataclass(frozen=True)
class Action:
    """One thing that is done. `text`: as a person would type it in root's shell; its first line is announced."""

    text: str
    run: Callable[[], object]


class Condition(ABC):
    """`why`: in a learner's words. `watches`: `prove` looks for more than a minute to see whether it holds.

    All methods raise NO_WAY_THERE, may be called in any state, also after a crash half-way, and may be repeated.
    """

    id: str
    title: str
    why: str = ""
    watches: bool = False
    patience: float = 30
    """Seconds within which what was done must show."""
    every: float = 2.0
    """Seconds between two looks."""

    @abstractmethod
    def see(self) -> Finding:
        """What `look` does, except that a question which cannot be asked raises a LabError."""

    @abstractmethod
    def repairing(self) -> Iterable[Action]:
        """What would repair it now, in order. Asks what that depends on, changes nothing. Raises LabError."""

    def look(self) -> Finding:
        """How it is now, by looking at the thing alone, never at what lab remembers. Does not wait."""
        return self._told(self.see)

    def repair(self, progress: Progress) -> None:
        """Run what `repairing` says. Raises LabError."""
        self._perform(self.repairing(), progress)

    def prove(self, progress: Progress) -> Finding:
        """Whether it works now, found out by doing; waits up to `patience` for it."""
        finding = Finding("unknown", "")
        for finding in looks(self.look, self.patience, self.every):
            if finding.fine:
                break
            progress(f"waiting for {self.title} (up to {self.patience:.0f} s): {finding.evidence.splitlines()[0]}")
        return finding

    def masked(self, text: str) -> str:
        """The text without the lab's secrets: evidence is quoted from journals."""
        return text

    def _told(self, see: Callable[[], Finding]) -> Finding:
        try:
            finding = see()
        except NO_WAY_THERE:
            raise
        except LabError as error:
            finding = Finding("unknown", cannot_tell(error))
        return replace(finding, evidence=self.masked(finding.evidence))

    def _perform(self, actions: Iterable[Action], progress: Progress) -> None:
        """Each is announced before it runs; `actions` may be a generator that looks at what came of the one before."""
        for action in actions:
            progress(self.masked(action.text.splitlines()[0]))
            action.run()


class Fault(Condition):
    """A condition that `lab break` breaks. Homes make them (`Home.faults`); `id` is the word that session files use.

    What the way back needs is kept before anything is changed, so after a crash at any action both lists can be made again.
    """

    patience = 180

    @abstractmethod
    def breaking(self) -> Iterable[Action]:
        """What breaks it, from whatever state it is in now. Nothing outside the lab is touched. Raises LabError."""

    def why_not(self) -> str | None:
        """Why this cloud cannot have it, in words for a learner, or None."""
        return None

    def see_symptoms(self) -> Finding:
        """What `inject` waits for to be bad: the cause may be there some time before anything comes of it."""
        return self.see()

    def forget(self) -> None:
        """Remove what was kept for the way back."""

    def inject(self, progress: Progress) -> None:
        """Break it; returns when the symptoms show. Raises HomeUnavailable, LabError."""
        if why := self.why_not():
            raise HomeUnavailable(f"the fault '{self.id}' cannot be had here: {why}", advice="lab faults lists others")
        self._perform(self.breaking(), progress)
        self._wait(self.see_symptoms, lambda finding: finding.state == "bad", "symptoms", progress)

    def clear(self, progress: Progress) -> None:
        """Put it right again and return when it is; nothing to do where it is well already. Raises LabError."""
        self.repair(progress)
        self._wait(self.see, lambda finding: finding.fine, "repair", progress)
        self.forget()

    def _wait(self, see: Callable[[], Finding], come: Callable[[Finding], bool], what: str, progress: Progress) -> None:
        def look() -> Finding | NotYet:
            finding = self._told(see)
            return finding if come(finding) else NotYet(finding.evidence)

        until(
            look, f"the {what} of the fault '{self.id}'", seconds=self.patience, every=self.every, progress=progress,
            advice="lab status and lab logs SERVICE show more",
        )  # fmt: skip


def cannot_tell(error: LabError) -> str:
    """The evidence where the question itself failed, with the last words of the command that was to ask it."""
    last = error.said.strip().splitlines()[-1:] if isinstance(error, CommandFailed) and error.said else []
    return "cannot tell: " + ": ".join([error.message, *(line for line in last if line not in error.message)])
