"""`lab goto` and `lab reset`: to the start of a session, or to just before one of its steps, by checkpoints.

Besides a session's start, a checkpoint is any place that an earlier `lab goto` has led to. Its name holds a hash of all that
came before it (the steps, as the session file has them now, and the files that they use), so a changed session never meets
an old one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from stacklab import __version__
from stacklab.course.session import Session, Step
from stacklab.errors import CheckpointMissing, LabError, NotRunning
from stacklab.events import Emit
from stacklab.homes.base import Home
from stacklab.kinds.context import Workspace
from stacklab.lab import Lab
from stacklab.records import Records
from stacklab.replay.apply import Applied, do_steps
from stacklab.replay.assets import Assets
from stacklab.replay.breaking import forget_all, repair_all
from stacklab.replay.check import check
from stacklab.replay.clear import clear
from stacklab.replay.current import begin_session, home_of, workspace_at
from stacklab.replay.trust import require_trusted
from stacklab.stages import Progress, Stage

PREFIX = "at."
"""Begins the names of the checkpoints that `lab goto` saves."""
KEEP = 4
"""How many of them a lab keeps; the oldest goes for a fifth."""

Working = Callable[[str, float | None], AbstractContextManager[Progress]]
"""Shows that something of this title goes on, which usually takes so many seconds."""


@dataclass(frozen=True)
class Arrived:
    """Where `lab goto` has led. `step`: the one that it is the learner's turn to do.

    `checkpoint`: what was gone back to; `applied`: what was done from there on; `saved`: the checkpoint made of the place, if
    one was; `notes`: what should be known of it.
    """

    step: Step
    checkpoint: str
    applied: list[Applied]
    saved: str | None
    notes: list[str]


def goto(
    lab: Lab,
    session: Session,
    step_id: str | None,
    emit: Emit,
    say: Callable[[str], None],
    working: Working,
) -> Arrived:
    """Bring the lab to the session's start, or to just before a step. The same call repairs what an interrupted one left.

    Raises NoLab, NotRunning, UnknownName, and whatever a step raises.
    """
    steps = list(session.steps())
    turn = session.step_at(step_id) if step_id else steps[0]
    before = steps[: steps.index(turn)]
    if before:
        require_trusted(lab, session)  # before anything is put back
    with lab.writing():
        home = home_of(lab)
        require_running(lab, session)
        begin_session(lab, session)
        start = home.checkpoints.start()
        with working(f"back to the start of {session.name}, or as near to {turn.id} as is saved", 3) as progress:
            nearest, done, notes = _nearest(lab, home, session, start, before)
            go_back(lab, home, nearest, progress)
        workspace = workspace_at(home, lab, session, say)
        left = [*_lost(workspace, before[:done]), *before[done:]]
        applied = do_steps(lab, workspace, left, "rest", emit)
        saved = None
        if before[done:] and home.checkpoints.saves:
            name = checkpoint_name(lab, session, start, before, turn)
            saved, trouble = _save(home, Records(lab), name, working)
            notes += [trouble] if trouble else []
        return Arrived(turn, nearest, applied, saved, notes)


def require_running(lab: Lab, session: Session) -> None:
    """Raises NoLab, NotRunning."""
    try:
        home_of(lab).access()
    except NotRunning as error:
        raise NotRunning(error.message, advice=f"lab up {session.name}") from error


# --- going back ----------------------------------------------------------------------------------------------------


def go_back(lab: Lab, home: Home, checkpoint: str, progress: Progress) -> None:
    """Cloud, journal and progress become what they were, and nothing is broken on purpose. The caller holds the lab's lock.

    lab.json says so until all of it is done: what is half one and half the other must not be worked on. Where the home has no
    checkpoints, thing by thing (`stacklab.replay.clear`). Raises CheckpointMissing before anything is touched.
    """
    if not home.checkpoints.saves:
        repair_all(lab, home, progress)
        clear(lab, home, progress)
        repair_all(lab, home, progress, strict=True)
        return
    home.checkpoints.verify(checkpoint)
    lab.secrets()  # what belongs to no checkpoint must be readable before anything is stopped
    repair_all(lab, home, progress)
    lab.update(restoring=checkpoint)
    home.checkpoints.restore(checkpoint, progress)
    forget_all(lab)  # what could not be repaired, as the cloud did not run, was part of what has been put back
    Assets(lab).forget_instances()
    Records(lab).put_back(checkpoint)
    lab.update(restoring=None)


def going_back_stage(lab: Lab, home: Home) -> Stage:
    """The part of `lab up` that ends what an interrupted reset or goto has begun."""

    def unfinished() -> str | None:
        return None if lab.record.restoring else "nothing"

    def finish(progress: Progress) -> str:
        name = str(lab.record.restoring)
        try:
            home.checkpoints.verify(name)
        except CheckpointMissing as error:
            progress(error.message)
            name = home.checkpoints.start()
        go_back(lab, home, name, progress)
        return f"went back to '{name}'"

    return Stage("records", "what an interrupted goto or reset left to do", unfinished, finish, 3)


# --- checkpoints on the way ----------------------------------------------------------------------------------------


def checkpoint_name(lab: Lab, session: Session, start: str, before: Sequence[Step], turn: Step) -> str:
    """The name of the checkpoint that holds `start` and the steps before `turn`, as they are declared now."""
    declared = [
        {
            "id": step.id,
            "kind": step.kind.name,
            "as": step.who,
            "with": step.params.model_dump(mode="json"),
            "runs": step.kind.runs(step.params),
        }
        for step in before
    ]
    known = {
        "lab": __version__,
        "start": [start, lab.record.start_of],
        "learner": session.learner,
        "files": [_stamp(asset) for asset in _files(lab)],
        "steps": declared,
    }
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]
    return f"{PREFIX}{session.name[:18]}.{turn.id[:18]}.{digest}"


def _files(lab: Lab) -> list[Path]:
    image = lab.record.image
    return [Assets(lab).public_key, *([Path(image.path)] if image else [])]


def _stamp(path: Path) -> list[str | int]:
    """Tells whether a file is the same one as before, without reading gigabytes."""
    try:
        status = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), status.st_size, status.st_mtime_ns]


def _nearest(lab: Lab, home: Home, session: Session, start: str, before: Sequence[Step]) -> tuple[str, int, list[str]]:
    """The whole checkpoint that leaves the fewest of the steps to do, how many are done in it, and which are damaged."""
    saved = set(home.checkpoints.names()) & set(Records(lab).names())
    steps = list(session.steps())
    damaged: list[str] = []
    for count in range(len(before), 0, -1):
        name = checkpoint_name(lab, session, start, before[:count], steps[count])
        if name in saved:
            try:
                home.checkpoints.verify(name)
                return name, count, damaged
            except CheckpointMissing as error:
                damaged.append(f"{error.message}; an older one is used")
    return start, 0, damaged


def _lost(workspace: Workspace, steps: Sequence[Step]) -> list[Step]:
    """Steps that a checkpoint does not hold: what they left was no part of the cloud (a process, a file beside it)."""
    lasting = [step for step in steps if step.kind.lasting(step.params)]
    grades = check(workspace, lasting).grades
    return [step for step, grade in zip(lasting, grades, strict=True) if grade.status == "failed"]


def _save(home: Home, records: Records, name: str, working: Working) -> tuple[str | None, str]:
    """Save the place that was reached; its name, or None and why not: that is no reason to fail."""
    try:
        with working("a checkpoint of it, so that the next time is quicker", 2) as progress:
            _make_room(home, records, progress)
            # First the records: a checkpoint counts only with them.
            home.checkpoints.drop(name, progress)
            records.keep(name)
            home.checkpoints.save(name, progress)
    except LabError as error:
        records.drop(name)
        return None, f"no checkpoint was saved, so the next time takes as long: {error.message}"
    return name, ""


def _make_room(home: Home, records: Records, progress: Progress) -> None:
    """At most KEEP with the one that comes; what an interrupted run left of one goes, too."""
    saved = {name for name in home.checkpoints.names() if name.startswith(PREFIX)}
    known = [name for name in records.names() if name.startswith(PREFIX)]
    whole = [name for name in known if name in saved]
    for name in {*(saved ^ set(known)), *whole[: max(0, len(whole) - KEEP + 1)]}:
        records.drop(name)
        home.checkpoints.drop(name, progress)
