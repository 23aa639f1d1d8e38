"""What a session from outside would run on a machine of the learner's: nothing of it runs before somebody has agreed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stacklab.course.session import Session, Step
from stacklab.errors import NotTrusted

Allow = Callable[[Session, Step], None]
"""Raises NotTrusted unless what a step runs may run. Called before a step is applied, looked at or undone."""


@dataclass(frozen=True)
class Foreign:
    """What one step of a session from outside would run, as it has to be agreed to."""

    session: Session
    step: Step
    text: str

    @property
    def key(self) -> str:
        """Stands for the content alone: whatever else changes in the session, the same text stays agreed to."""
        return key_of(self.step.kind.name, self.step.who, self.text)


def key_of(kind: str, who: str, text: str) -> str:
    """The hash under which an answer is kept."""
    return hashlib.sha256("\0".join([kind, who, text]).encode()).hexdigest()


def foreign_of(session: Session, step: Step) -> Foreign | None:
    """What has to be agreed to before this step; None for what only asks a cloud, and for the course's own."""
    text = step.kind.runs(step.params) if session.foreign else ""
    return Foreign(session, step, text) if text else None


def to_agree_to(session: Session, steps: Iterable[Step]) -> list[Foreign]:
    """The same for several steps and all that they build on (which are looked at, too), in the session's order."""
    wanted = {step.id for step in steps}
    wanted |= {step.until for step in session.steps() if step.id in wanted and step.until}
    for step in reversed(list(session.steps())):
        if step.id in wanted:
            wanted |= step.needs
    found = (foreign_of(session, step) for step in session.steps() if step.id in wanted)
    return [one for one in found if one]


def refuse_foreign(session: Session, step: Step) -> None:
    """Agrees to nothing from outside: what holds where nobody was asked."""
    found = foreign_of(session, step)
    if found:
        raise refused(found)


def refused(found: Foreign, *, asked: bool = False) -> NotTrusted:
    """The error for something that nobody has agreed to; `asked`: somebody has just said no."""
    if asked:
        return NotTrusted(f"step {found.step.id} was not run: you did not agree", advice="the same command asks again")
    return NotTrusted(
        f"step {found.step.id}: session '{found.session.name}' is not the course's own, and what this step runs here "
        "was not agreed to",
        advice="the same command on a terminal shows it and asks; --trust shows it and agrees, for that one command",
    )
