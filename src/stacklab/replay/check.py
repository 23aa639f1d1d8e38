"""Grading: the cloud alone is asked, never the journal, so work counts whoever did it and however."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from stacklab.course.session import Session, Step
from stacklab.errors import LabError
from stacklab.kinds.context import Absent, Context, Workspace
from stacklab.lab import Lab
from stacklab.replay.breaking import noticed
from stacklab.replay.current import open_workspace
from stacklab.replay.progress import ProgressFile

Status = Literal["passed", "failed", "unknown", "not_applicable"]


@dataclass(frozen=True)
class Grade:
    """One step's result: `expected` and `actual` in words, the command to `look` with, and the `hint`.

    `findings`: what `actual` says in one line, each by itself.
    """

    id: str
    exercise: str
    kind: str
    status: Status
    expected: str
    actual: str
    look: str
    hint: str
    findings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, str]:
        """As `lab check --json` prints it."""
        return {key: value for key, value in asdict(self).items() if key != "findings"}


@dataclass(frozen=True)
class GradeReport:
    """The grades of a session (or a part of it)."""

    grades: tuple[Grade, ...]

    def counts(self) -> dict[Status, int]:
        """How many steps ended how."""
        statuses: tuple[Status, ...] = ("passed", "failed", "unknown", "not_applicable")
        return {status: sum(grade.status == status for grade in self.grades) for status in statuses}

    @property
    def good(self) -> bool:
        """Nothing failed, and nothing is unknown."""
        return not any(grade.status in ("failed", "unknown") for grade in self.grades)


def check(workspace: Workspace, steps: Iterable[Step], graded: Callable[[Grade], None] | None = None) -> GradeReport:
    """Grade the steps, telling `graded` of each as it comes."""
    workspace.memory.clear()
    grades = []
    for step in steps:
        grade = check_step(workspace, step)
        grades.append(grade)
        if graded:
            graded(grade)
    return GradeReport(tuple(grades))


def check_lab(lab: Lab, session: Session, steps: Iterable[Step], graded: Callable[[Grade], None]) -> GradeReport:
    """Grade the steps of a lab, and note the progress. Raises NoLab, NotRunning, NotTrusted."""
    report = check(open_workspace(lab, session, lambda text: None), steps, graded)
    ProgressFile(lab).note(session.name, [(grade.id, grade.status) for grade in report.grades])
    noticed(lab, session, [grade.id for grade in report.grades if grade.status == "passed"])
    return report


def check_step(workspace: Workspace, step: Step) -> Grade:
    """Grade one step. Never raises for anything the cloud says or does not say: that is what "unknown" is for."""
    context = workspace.context(step)
    status, findings = _status(workspace, context, step)
    return Grade(
        id=step.id,
        exercise=step.exercise,
        kind=step.kind.name,
        status=status,
        expected=step.kind.expected(step.params),
        actual="; ".join(findings),
        look=look_with(workspace, step),
        hint=step.hint,
        findings=tuple(findings),
    )


def look_with(workspace: Workspace, step: Step) -> str:
    """The command to look at a step's thing with, as the one that it belongs to."""
    return step.kind.show_command(workspace.offline(step), step.params).text(workspace.context(step).user.name)


def over(workspace: Workspace, step: Step) -> str | None:
    """What became of a step whose thing a later one has taken away, in words; None if it has not. Raises what `find` does."""
    if step.until is None:
        return None
    ending = workspace.session.step(step.until)
    try:
        answer = ending.kind.find(workspace.context(ending), ending.params)
    except Absent:
        return None
    if answer is None or answer[1]:
        return None
    return f"done, until step {ending.id}: {ending.kind.shown(answer[0])}"


def _status(workspace: Workspace, context: Context, step: Step) -> tuple[Status, list[str]]:
    try:
        reason = step.kind.applicable(context, step.params)
        if reason:
            return "not_applicable", [reason]
        if ended := over(workspace, step):
            return "passed", [ended]
        answer = step.kind.find(context, step.params)
    except Absent as absent:
        why = f"step {absent.step}: " if absent.step else ""
        return "failed", [f"missing: {why}{absent.what}"]
    except LabError as error:  # also where the cloud said no (a 4xx) or broke (a 5xx): we have not seen the thing
        return "unknown", [error.message]
    if answer is None:
        return "failed", [f"no {step.title}"]
    thing, differences = answer
    if differences:
        return "failed", [str(difference) for difference in differences]
    return "passed", [step.kind.shown(thing)]
