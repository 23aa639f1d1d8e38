"""How a step was declared when it was applied, kept in the journal: undo needs no session file, and believes no changed one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stacklab.course.session import Exercise, Session, Step
from stacklab.kinds import KINDS
from stacklab.replay.journal import Entry, Journal


def declared(session: Session, step: Step) -> dict[str, Any]:
    """The step and all that it refers to, as JSON. Secrets are references in it, never values."""
    needed = {step.id}
    for one in reversed(list(session.steps())):
        if one.id in needed:
            needed |= {ref.step for _, ref, _ in one.params.references()}
    steps = [_declared(one) for one in session.steps() if one.id in needed]
    return {"learner": list(session.learner), "foreign": session.foreign, "file": str(session.file), "steps": steps}


def _declared(step: Step) -> dict[str, Any]:
    return {
        "id": step.id,
        "exercise": step.exercise,
        "kind": step.kind.name,
        "as": step.who,
        "needs": sorted(step.needs),
        "until": step.until,
        "with": step.params.model_dump(mode="json", by_alias=True, exclude_unset=True),
    }


def remembered_session(journal: Journal, name: str) -> Session | None:
    """The session as far as the journal knows it; None where it knows nothing that is not undone.

    A step that was declared twice, in two versions of the file, is the one that was applied last.
    """
    entries = journal.entries(name)
    steps: dict[str, Step] = {}
    about: dict[str, Any] = {}
    for entry in entries.values():
        for told in (entry.declared or {}).get("steps", []):
            # What a step said of itself counts before what others said of it.
            if told["id"] == entry.step or told["id"] not in entries:
                known = _step(told)
                if known:
                    steps[known.id] = known
        about = entry.declared or about
    if not steps:
        return None
    exercises = tuple(
        Exercise(exercise, exercise, "", tuple(one for one in steps.values() if one.exercise == exercise))
        for exercise in dict.fromkeys(one.exercise for one in steps.values())
    )
    learner = (str(about["learner"][0]), str(about["learner"][1]))
    file = Path(str(about["file"]))
    return Session(name, name, "as the journal remembers it", exercises, learner, file, foreign=bool(about["foreign"]))


def remembered_step(entry: Entry, session: Session | None) -> Step | None:
    """The step of an entry, as `remembered_session` has it."""
    if session is None or entry.declared is None:
        return None
    return next((one for one in session.steps() if one.id == entry.step), None)


def _step(told: dict[str, Any]) -> Step | None:
    """None for a kind, or parameters, that another version of lab knew."""
    kind = KINDS.get(str(told["kind"]))
    if kind is None:
        return None
    try:
        # As JSON: what YAML could not say (a tuple, an address) has its own form there.
        params = kind.params.model_validate_json(json.dumps(told["with"]))
    except ValidationError:
        return None
    needs = frozenset(str(one) for one in told["needs"])
    return Step(str(told["id"]), str(told["exercise"]), kind, params, told["as"], "", "", needs, told.get("until"))
