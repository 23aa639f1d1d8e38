"""Where the learner stands, as `lab status` shows it: the course in rows, the session at hand by its exercises."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stacklab.console import Console
    from stacklab.course.session import Session
    from stacklab.lab import Lab
    from stacklab.replay.progress import ExerciseProgress, Progress

WIDTH = 80
STATES = {"done": "passed", "failed": "failed", "begun": "starting", "open": "stopped"}
"""An exercise's state → the console's mark for it."""


def whole_course(lab: Lab) -> dict[str, tuple[Session, Progress] | None]:
    """Every session with how far the learner is in it; None for one that cannot be read."""
    from stacklab.course.load import load_session
    from stacklab.course.search import all_sessions
    from stacklab.errors import SessionInvalid
    from stacklab.replay.current import clouds_variables
    from stacklab.replay.progress import ProgressFile

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


def as_json(name: str, known: tuple[Session, Progress] | None) -> dict[str, object]:
    """A row of `lab status --json`."""
    from dataclasses import asdict

    if known is None:
        return {"session": name, "readable": False}
    session, progress = known
    return {
        "session": name,
        "readable": True,
        "title": session.title,
        "from": str(session.file.parent.parent) if session.foreign else None,
        "exercises": len(session.exercises),
        **asdict(progress.counts),
        "next": progress.next.id if progress.next else None,
        "at": progress.at,
    }


def show_standing(
    console: Console,
    session: Session,
    standing: Progress,
    course: Mapping[str, tuple[Session, Progress] | None],
    *,
    running: bool,
) -> None:
    """The course's table, the session's exercises, and what comes next, within 80 columns."""
    rows = []
    for name, known in course.items():
        mark = "▸ " if name == session.name else "  "
        cells = ("cannot be read", "", "", "", "") if known is None else _cells(known)
        rows.append((_cut(f"{mark}{name}", 30), *cells))
    console.print()
    console.table(("  SESSION", "EXERCISES", "PASSED", "FAILED", "N/A", "STEPS"), rows)
    console.print()
    console.heading(_cut(f"{session.name}: {session.title}", WIDTH))
    for exercise in standing.exercises:
        _show_exercise(console, exercise)
    console.print(f"{standing.passed} of {standing.total} steps passed when last looked at")
    if standing.next and running:
        address = f"{session.name}/{standing.next.exercise}/{standing.next.id}"
        console.print(_cut(f"next:    {standing.next.title}", WIDTH))
        console.print(f"         lab show {address}")


def _cells(known: tuple[Session, Progress]) -> tuple[str, ...]:
    session, progress = known
    counts = progress.counts
    numbers = (len(session.exercises), counts.passed, counts.failed, counts.not_applicable, counts.total)
    widths = (len("EXERCISES"), len("PASSED"), len("FAILED"), len("N/A"), len("STEPS"))
    return tuple(str(number).rjust(width) for number, width in zip(numbers, widths, strict=True))


def _show_exercise(console: Console, exercise: ExerciseProgress) -> None:
    counts = exercise.counts
    left_out = f", {counts.not_applicable} not applicable" if counts.not_applicable else ""
    failed = f"; failed: {', '.join(exercise.failed)}" if exercise.failed else ""
    unknown = f"; cannot tell: {counts.unknown}" if counts.unknown else ""
    text = f"{_cut(exercise.id, 24).ljust(18)} {counts.passed} of {counts.total}{left_out}{failed}{unknown}"
    console.print(f"  {console.mark(STATES[exercise.state])} {_cut(text, WIDTH - 4)}")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else textwrap.shorten(text, width, placeholder=" …") or text[: width - 1] + "…"
