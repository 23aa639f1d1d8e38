"""Undo: what the journal says this lab made, in reverse order, and nothing else; safe to repeat after a crash.

The journal alone tells what to remove and how: the session's file may have changed since, or be gone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stacklab.cloud.access import LEARNER
from stacklab.course.session import Exercise, Session, Step
from stacklab.errors import CloudRefused, LabError, SessionInvalid, UndoIncomplete, UnknownName
from stacklab.kinds import KINDS
from stacklab.kinds.context import Absent, Thing, Workspace
from stacklab.kinds.declaration import Params
from stacklab.lab import Lab
from stacklab.replay.current import journal_of, open_workspace, session_of
from stacklab.replay.journal import Journal, JournalEntry
from stacklab.replay.progress import ProgressFile

IN_FLIGHT = 10.0
"""Seconds after which a request that was sent before a crash has been carried out or never will be."""

LONGEST = 1800.0
"""Seconds after its beginning in which a step's thing was made, if that step made it."""

CLOCKS_APART = 5.0
"""Seconds that the cloud's clock and ours may differ."""


# --- what the journal keeps of a step ------------------------------------------------------------------------------


def declared(session: Session, step: Step) -> dict[str, Any]:
    """What undo has to know of a step: whose it is, what it builds on, and a hash that tells whether it was declared so."""
    return {
        "exercise": step.exercise,
        "as": step.who,
        "title": step.title,
        "needs": sorted(_all_needs(session, step)),
        "learner": list(session.learner),
        "hash": _hash(session, step),
    }


def _all_needs(session: Session, step: Step) -> set[str]:
    """Ids of all steps that it builds on, also by way of others."""
    needs = set(step.needs)
    for earlier in reversed(list(session.steps())):
        if earlier.id in needs:
            needs |= earlier.needs
    return needs


def _hash(session: Session, step: Step) -> str:
    """The same as long as the step, and those that it refers to, are declared the same."""
    needs = _all_needs(session, step)
    parts = [
        [part.id, part.kind.name, part.who, part.params.model_dump(mode="json")]
        for part in session.steps()
        if part.id in needs or part.id == step.id
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def recorded_session(journal: Journal, name: str) -> Session:
    """As much of a session as its journal has: the steps that are not undone, without what they declare."""
    entries = list(journal.entries(name).values())
    steps = [_recorded_step(entry) for entry in entries if entry.kind in KINDS]
    learner = (LEARNER["learner"], LEARNER["learner_project"])
    first, second = next((who for entry in entries if (who := entry.about.get("learner"))), learner)
    exercises = tuple(
        Exercise(exercise, exercise, "", tuple(step for step in steps if step.exercise == exercise))
        for exercise in dict.fromkeys(step.exercise for step in steps)
    )
    return Session(name, name, "as the journal has it", exercises, (first, second), Path(name))


def _recorded_step(entry: JournalEntry) -> Step:
    """The step of an entry: all that removing needs, for a kind removes by what the entry keeps of the thing."""
    kind, about = KINDS.get(entry.kind), entry.about
    if kind is None:
        raise UndoIncomplete(
            f"step {entry.step}: another version of lab made it, as '{entry.kind}'",
            advice="undo it with that version; lab reset puts everything back",
        )
    return Step(entry.step, about["exercise"], kind, Params(), about["as"], "", "", frozenset(about["needs"]))


# --- undoing -------------------------------------------------------------------------------------------------------


def dependants(session: Session, chosen: Iterable[Step]) -> set[str]:
    """The chosen steps' ids and those of all steps that build on them."""
    return _with_dependants({step.id for step in chosen}, {step.id: step.needs for step in session.steps()})


def _with_dependants(ids: set[str], needs: Mapping[str, Iterable[str]]) -> set[str]:
    before = -1
    while len(ids) > before:  # the journal's steps need not stand in the order of their needs
        before = len(ids)
        ids = ids | {step for step, needed in needs.items() if ids.intersection(needed)}
    return ids


def undo(workspace: Workspace, journal: Journal, chosen: Iterable[Step], undone: Callable[[Step, str], None]) -> int:
    """Undo the chosen steps and those that build on them; returns how many. Raises UndoIncomplete, CloudUnreachable.

    All of a session: also what the journal has of steps that its file has no more.
    """
    session = workspace.session
    entries = journal.entries(session.name)
    ids = {step.id for step in chosen}
    if {step.id for step in session.steps()} <= ids:
        ids |= set(entries)
    ids = _with_dependants(ids, {step: entry.about["needs"] for step, entry in entries.items()})
    doomed = [entry for step, entry in reversed(entries.items()) if step in ids]
    for entry in doomed:
        undone(*take_back(workspace, journal, entry))
    return len(doomed)


def take_back(workspace: Workspace, journal: Journal, entry: JournalEntry) -> tuple[Step, str]:
    """Undo one step; the step, and what was removed."""
    step, title = _recorded_step(entry), entry.about["title"]
    workspace.memory.clear()
    removed = False
    if entry.state == "begin":
        # The cloud goes on with a request whose sender has died; what it makes must be there when we look.
        time.sleep(min(IN_FLIGHT, max(0.0, entry.at + IN_FLIGHT - time.time())))
    # What was there before a step changed it is known from its beginning.
    kept = entry.kept
    if entry.state == "begin" and kept is None:
        kept = _half_made(workspace, journal, entry, title)
    if kept is not None:
        try:
            removed = step.kind.remove(workspace.context(step), kept)
        except CloudRefused as error:
            raise UndoIncomplete(
                f"step {step.id}: {title} cannot be removed: {error.message}",
                advice="something that the lab did not make probably uses it; remove that, then run lab undo again",
            ) from error
        except LabError as error:
            error.begin_with(f"step {step.id}")
            raise
    workspace.memory.clear()
    journal.write(entry.session, step.id, step.kind.name, "undone")
    if kept is None:
        return step, "nothing was left of it"
    return step, f"removed {title}" if removed else f"{title} was gone already"


def _half_made(workspace: Workspace, journal: Journal, entry: JournalEntry, title: str) -> Thing | None:
    """What a step that was cut off left behind. Before it began nothing was there, so what is there is ours, unless
    the cloud says that it is older than that, or so much younger that somebody else made it since.

    Only its declaration tells what to look for. Where that has changed since, the step is told of once, and given up.
    """
    step = _as_declared_then(workspace.session, entry)
    if step is None:
        journal.write(entry.session, entry.step, entry.kind, "undone")
        raise UndoIncomplete(
            f"step {entry.step} was cut off in the middle, and its session file has changed since: whether it left {title} "
            "cannot be told",
            advice=f"if {title} is there, remove it yourself; the same command goes on with the rest",
        )
    context = workspace.context(step)
    try:
        answer = step.kind.find(context, step.params)
    except Absent:
        return None
    if answer is None:
        return None
    made = _made_at(answer[0])
    if made is not None and not entry.at - CLOCKS_APART <= made <= entry.at + LONGEST:
        return None
    return step.kind.undo_data(context, step.params, answer[0])


def _as_declared_then(session: Session, entry: JournalEntry) -> Step | None:
    """The entry's step as the session declares it, if it is declared as it was when it began."""
    try:
        step = session.step(entry.step)
    except UnknownName:
        return None
    recorded = entry.about.get("hash")
    same = recorded is None or recorded == _hash(session, step)
    return step if same and step.kind.name == entry.kind and type(step.params) is not Params else None


def _made_at(thing: Thing) -> float | None:
    """When the cloud says that a thing was made (seconds since the epoch); not every service says it."""
    text = thing.get("created_at") or thing.get("created")
    if not isinstance(text, str):
        return None
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# --- a lab's -----------------------------------------------------------------------------------------------------------


def session_to_undo(lab: Lab, name: str | None) -> Session:
    """The session of a lab, or what the journal has of it. Raises NoLab, UnknownName, SessionInvalid."""
    try:
        return session_of(lab, name)
    except (UnknownName, SessionInvalid):
        recorded = recorded_session(journal_of(lab), str(name or lab.record.session))
        if not recorded.exercises:
            raise
        return recorded


def undo_steps(lab: Lab, session: Session, steps: Iterable[Step], undone: Callable[[Step, str], None]) -> None:
    """Undo the steps and what builds on them. Raises UndoIncomplete, NoLab, NotRunning.

    Also the steps that only look, and build on what goes, are not done any more. What undoing runs stands in the journal: it
    was agreed to when the step was applied.
    """
    gone: list[Step] = []

    def note(step: Step, detail: str) -> None:
        gone.append(step)
        undone(step, detail)

    with lab.writing():
        workspace = open_workspace(lab, replace(session, agreed=True), lambda text: None)
        try:
            undo(workspace, journal_of(lab), steps, note)
        finally:
            ids = {step.id for step in gone} | dependants(session, gone)
            if ids:
                ProgressFile(lab).note(session.name, [(step_id, "undone") for step_id in sorted(ids)])
