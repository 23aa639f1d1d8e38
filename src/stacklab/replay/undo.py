"""Undo: what the journal says this lab made, in reverse order, and nothing else; safe to repeat after a crash."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from stacklab.course.session import Session, Step
from stacklab.errors import CloudRefused, LabError, UndoIncomplete
from stacklab.kinds.kind import Absent, Thing
from stacklab.replay.journal import Entry, Journal
from stacklab.replay.scene import Desk

IN_FLIGHT = 10.0
"""Seconds after which a request that was sent before a crash has been carried out or never will be."""

CLOCKS_APART = 5.0
"""Seconds that the cloud's clock and ours may differ."""


def dependants(session: Session, chosen: Iterable[Step]) -> set[str]:
    """The chosen steps' ids and those of all steps that build on them."""
    found = {step.id for step in chosen}
    for step in session.steps():  # a step only needs earlier ones, so one pass in order is enough
        if step.needs & found:
            found.add(step.id)
    return found


def undo(desk: Desk, journal: Journal, chosen: Iterable[Step], undone: Callable[[Step, str], None]) -> int:
    """Undo the chosen steps and those that build on them; returns how many. Raises UndoIncomplete, CloudUnreachable."""
    wanted = dependants(desk.session, chosen)
    entries = journal.entries(desk.session.name)
    count = 0
    for step_id in reversed(entries):
        if step_id not in wanted:
            continue
        step = desk.session.step(step_id)
        detail = take_back(desk, journal, step)
        count += 1
        undone(step, detail)
    return count


def take_back(desk: Desk, journal: Journal, step: Step) -> str:
    """Undo one step that the journal knows; says what it removed."""
    entry = journal.entries(desk.session.name)[step.id]
    desk.memory.clear()
    removed = False
    kept = entry.kept if entry.state == "made" else _half_made(desk, step, entry)
    if kept is not None:
        try:
            removed = step.kind.remove(desk.scene(step), kept)
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
        return "nothing was left of it"
    return f"removed {step.title}" if removed else f"{step.title} was gone already"


def _half_made(desk: Desk, step: Step, entry: Entry) -> Thing | None:
    """What a step that was cut off left behind. Before it began nothing was there, so what is there is ours, unless
    the cloud says that it is older than that."""
    scene = desk.scene(step)
    # The cloud goes on with a request whose sender has died; what it makes must be there when we look.
    time.sleep(min(IN_FLIGHT, max(0.0, entry.at + IN_FLIGHT - time.time())))
    try:
        answer = step.kind.find(scene, step.params)
    except Absent:
        return None
    if answer is None:
        return None
    made = _made_at(answer[0])
    if made is not None and made < entry.at - CLOCKS_APART:
        return None
    return step.kind.keep(scene, step.params, answer[0])


def _made_at(thing: Thing) -> float | None:
    """When the cloud says that a thing was made (seconds since the epoch); not every service says it."""
    text = thing.get("created_at") or thing.get("created")
    if not isinstance(text, str):
        return None
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
