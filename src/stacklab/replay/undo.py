"""Undo: what the journal says this lab made, in reverse order, and nothing else; safe to repeat after a crash."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from stacklab.course.session import Exercise, Session, Step
from stacklab.errors import CloudRefused, LabError, UndoIncomplete
from stacklab.kinds.context import Absent, Thing, Workspace
from stacklab.replay.journal import Entry, Journal
from stacklab.replay.remembered import remembered_session

IN_FLIGHT = 10.0
"""Seconds after which a request that was sent before a crash has been carried out or never will be."""

LONGEST = 1800.0
"""Seconds after its beginning in which a step's thing was made, if that step made it."""

CLOCKS_APART = 5.0
"""Seconds that the cloud's clock and ours may differ."""


def dependants(session: Session, chosen: Iterable[Step]) -> set[str]:
    """The chosen steps' ids and those of all steps that build on them."""
    found = {step.id for step in chosen}
    before = -1
    while len(found) > before:  # what the journal remembers need not stand in the order of its needs
        before = len(found)
        found |= {step.id for step in session.steps() if step.needs & found}
    return found


def undo(desk: Workspace, journal: Journal, chosen: Iterable[Step], undone: Callable[[Step, str], None]) -> int:
    """Undo the chosen steps and those that build on them; returns how many. Raises UndoIncomplete, CloudUnreachable.

    All of a session: also what the journal has of steps that its file has no more.
    """
    known = as_applied(desk, journal)
    entries = journal.entries(desk.session.name)
    chosen_ids = wanted(desk.session, known.session, chosen, entries)
    count = 0
    for step_id in reversed(entries):
        if step_id not in chosen_ids:
            continue
        step, detail = take_back(known, journal, step_id)
        count += 1
        undone(step, detail)
    return count


def wanted(session: Session, known: Session, chosen: Iterable[Step], entries: Iterable[str]) -> set[str]:
    """Ids of what undoing the chosen steps undoes. `known`: the session as `known_session` has it."""
    steps = list(chosen)
    found = dependants(session, steps) | dependants(known, steps)
    return found | set(entries) if {step.id for step in session.steps()} <= found else found


def as_applied(desk: Workspace, journal: Journal) -> Workspace:
    """The same desk, whose session's steps are what they were when they were applied; the file may have changed since."""
    return replace(desk, session=known_session(desk.session, journal), memory={})


def known_session(session: Session, journal: Journal) -> Session:
    """The session with its steps as they were applied, where they were; and with those that its file has no more."""
    remembered = remembered_session(journal, session.name)
    if remembered is None:
        return session
    before = {step.id: step for step in remembered.steps()}
    exercises = [
        replace(one, steps=tuple(before.pop(step.id, step) for step in one.steps)) for one in session.exercises
    ]
    gone = tuple(Exercise(one.exercise, one.exercise, "", (one,)) for one in before.values())
    foreign = session.foreign or remembered.foreign
    return replace(session, exercises=(*exercises, *gone), learner=remembered.learner, foreign=foreign)


def take_back(desk: Workspace, journal: Journal, step_id: str) -> tuple[Step, str]:
    """Undo one step that the journal knows; the step, and what was removed. `desk` as `as_applied` returns it."""
    entry = journal.entries(desk.session.name)[step_id]
    step = desk.session.step(step_id)
    if entry.kind != step.kind.name:
        raise UndoIncomplete(
            f"step {step_id}: it was a {entry.kind}, and the session file now calls it a {step.kind.name}",
            advice="lab reset puts everything back",
        )
    desk.memory.clear()
    desk.allow(step)
    removed = False
    if entry.state == "begin":
        # The cloud goes on with a request whose sender has died; what it makes must be there when we look.
        time.sleep(min(IN_FLIGHT, max(0.0, entry.at + IN_FLIGHT - time.time())))
    # What was there before a step changed it is known from its beginning.
    kept = entry.kept if entry.state == "made" or entry.kept is not None else _half_made(desk, step, entry)
    if kept is not None:
        try:
            removed = step.kind.remove(desk.context(step), kept)
        except CloudRefused as error:
            raise UndoIncomplete(
                f"step {step.id}: {step.title} cannot be removed: {error.message}",
                advice="something that the lab did not make probably uses it; remove that, then run lab undo again",
            ) from error
        except LabError as error:
            error.args = (f"step {step.id}: {error.message}",)
            error.message = str(error)
            raise
    desk.memory.clear()
    journal.write(desk.session.name, step.id, step.kind.name, "undone")
    if kept is None:
        return step, "nothing was left of it"
    return step, f"removed {step.title}" if removed else f"{step.title} was gone already"


def _half_made(desk: Workspace, step: Step, entry: Entry) -> Thing | None:
    """What a step that was cut off left behind. Before it began nothing was there, so what is there is ours, unless
    the cloud says that it is older than that, or so much younger that somebody else made it since."""
    scene = desk.context(step)
    try:
        answer = step.kind.find(scene, step.params)
    except Absent:
        return None
    if answer is None:
        return None
    made = _made_at(answer[0])
    if made is not None and not entry.at - CLOCKS_APART <= made <= entry.at + LONGEST:
        return None
    return step.kind.undo_data(scene, step.params, answer[0])


def _made_at(thing: Thing) -> float | None:
    """When the cloud says that a thing was made (seconds since the epoch); not every service says it."""
    text = thing.get("created_at") or thing.get("created")
    if not isinstance(text, str):
        return None
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
