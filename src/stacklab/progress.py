"""How far the learner is: the last known status of every step, kept per lab."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from stacklab.course.session import Session, Step
from stacklab.files import read_json, write_json
from stacklab.lab import Lab


@dataclass(frozen=True)
class Progress:
    """Counts for one session, the next step to do, and when it was last looked at (seconds since the epoch)."""

    passed: int
    failed: int
    total: int
    next: Step | None
    at: float | None


class ProgressFile:
    """progress.json of a lab: session → step → status."""

    def __init__(self, lab: Lab) -> None:
        self._path = lab.directory / "progress.json"

    def note(self, session: str, statuses: Iterable[tuple[str, str]]) -> None:
        """Remember what a replay or a check has just found out."""
        known = read_json(self._path) or {}
        entry = known.setdefault(session, {"steps": {}})
        entry["steps"].update(dict(statuses))
        entry["at"] = time.time()
        write_json(self._path, known)

    def forget(self, session: str | None = None) -> None:
        """The cloud is back at the start (of one session, or of all)."""
        known = read_json(self._path) or {}
        write_json(self._path, {name: entry for name, entry in known.items() if session and name != session})

    def of(self, session: Session) -> Progress:
        """Where the learner stands in a session."""
        entry = (read_json(self._path) or {}).get(session.name, {})
        statuses = entry.get("steps", {})
        steps = list(session.steps())
        done = {"passed", "not_applicable"}
        following = next((step for step in steps if statuses.get(step.id) not in done), None)
        count = {status: sum(statuses.get(step.id) == status for step in steps) for status in ("passed", "failed")}
        return Progress(count["passed"], count["failed"], len(steps), following, entry.get("at"))
