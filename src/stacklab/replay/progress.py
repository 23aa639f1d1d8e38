"""How far the learner is: the last known status of every step, kept per lab."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stacklab.course.load import load_session
from stacklab.course.search import all_sessions
from stacklab.course.session import Exercise, Session, Step
from stacklab.errors import LabDamaged, SessionInvalid
from stacklab.files import locked, read_precious, remove_precious, write_precious
from stacklab.lab import Lab
from stacklab.replay.current import clouds_variables

COUNTED = ("passed", "failed", "not_applicable", "unknown")
DONE = ("passed", "not_applicable")


@dataclass(frozen=True)
class Counts:
    """How many steps ended how when they were last looked at; the rest of `total` was not done, or undone since."""

    passed: int
    failed: int
    not_applicable: int
    unknown: int
    total: int

    @property
    def done(self) -> bool:
        """Nothing is left to do."""
        return self.passed + self.not_applicable == self.total


@dataclass(frozen=True)
class ExerciseProgress:
    """One exercise. `failed` and `open`: ids of its steps that failed, and of those that are not done for another reason."""

    id: str
    title: str
    counts: Counts
    failed: tuple[str, ...]
    open: tuple[str, ...]

    @property
    def state(self) -> str:
        """done, failed, begun or open."""
        if self.counts.done:
            return "done"
        if self.failed:
            return "failed"
        return "begun" if self.counts.passed else "open"


@dataclass(frozen=True)
class Progress:
    """Counts for one session, the next step to do, and when it was last looked at (seconds since the epoch)."""

    counts: Counts
    exercises: tuple[ExerciseProgress, ...]
    next: Step | None
    at: float | None


class ProgressFile:
    """progress.json of a lab: session → step → status."""

    def __init__(self, lab: Lab) -> None:
        self._path = lab.directory / "progress.json"
        self._lock = lab.directory / "progress.lock"

    def note(self, session: str, statuses: Iterable[tuple[str, str]]) -> None:
        """Remember what a replay or a check has just found out; a check that runs beside another command waits its turn."""
        with locked(self._lock, wait=True):
            known = self._known()
            entry = known.setdefault(session, {"steps": {}})
            entry["steps"].update(dict(statuses))
            entry["at"] = time.time()
            write_precious(self._path, known)

    def forget(self) -> None:
        """The cloud is back at the start."""
        remove_precious(self._path)

    def _known(self) -> dict[str, Any]:
        """Empty if both copies are broken: the next check finds it all out again."""
        try:
            return dict(read_precious(self._path) or {})
        except LabDamaged:
            return {}

    def of(self, session: Session) -> Progress:
        """Where the learner stands in a session."""
        entry = self._known().get(session.name, {})
        statuses = entry.get("steps", {})
        steps = list(session.steps())
        following = next((step for step in steps if statuses.get(step.id) not in DONE), None)
        exercises = tuple(_exercise(exercise, statuses) for exercise in session.exercises)
        return Progress(_counts(steps, statuses), exercises, following, entry.get("at"))


def _counts(steps: Sequence[Step], statuses: Mapping[str, str]) -> Counts:
    counts = {status: sum(statuses.get(step.id) == status for step in steps) for status in COUNTED}
    return Counts(**counts, total=len(steps))


def _exercise(exercise: Exercise, statuses: Mapping[str, str]) -> ExerciseProgress:
    failed = tuple(step.id for step in exercise.steps if statuses.get(step.id) == "failed")
    left = tuple(step.id for step in exercise.steps if statuses.get(step.id) not in (*DONE, "failed"))
    return ExerciseProgress(exercise.id, exercise.title, _counts(exercise.steps, statuses), failed, left)


def whole_course(lab: Lab) -> dict[str, tuple[Session, Progress] | None]:
    """Every session with how far the learner is in it; None for one that cannot be read."""
    file = ProgressFile(lab)
    standing: dict[str, tuple[Session, Progress] | None] = {}
    for name in all_sessions(lab.labs):
        try:
            session = load_session(name, variables=clouds_variables(lab), also=lab.labs)
        except SessionInvalid:  # `lab list` and `lab validate` say what is wrong with it
            standing[name] = None
        else:
            standing[name] = (session, file.of(session))
    return standing
