"""Doing steps: find, else create; what is there but different is reported, never papered over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from stacklab.course.session import Session, Step
from stacklab.errors import CloudRefused, LabError, StepDiffers, StepFailed
from stacklab.events import Emit, StageBegan, StageEnded
from stacklab.kinds.context import Absent, Context, Thing, Workspace
from stacklab.kinds.kind import Difference
from stacklab.lab import Lab
from stacklab.replay.breaking import noticed
from stacklab.replay.check import over
from stacklab.replay.current import journal_of, open_workspace
from stacklab.replay.journal import Journal
from stacklab.replay.progress import ProgressFile
from stacklab.replay.undo import declared, take_back
from stacklab.replay.vias import do

Ask = Callable[[Step], Literal["run", "skip", "quit"]]
Outcome = Literal["done", "already", "not_applicable"]
SETTLE_POLL = 0.2


@dataclass(frozen=True)
class Applied:
    """What became of a step, and in how many seconds."""

    step: Step
    outcome: Outcome
    detail: str
    seconds: float


def replay(
    lab: Lab,
    session: Session,
    steps: Sequence[Step],
    via: str,
    emit: Emit,
    say: Callable[[str], None],
    ask: Ask | None = None,
) -> list[Applied]:
    """Do the steps in order; `ask` is asked before each. Raises what a step raises."""
    with lab.writing():
        return do_steps(lab, open_workspace(lab, session, say), steps, via, emit, ask)


def do_steps(
    lab: Lab,
    workspace: Workspace,
    steps: Sequence[Step],
    via: str,
    emit: Emit,
    ask: Ask | None = None,
) -> list[Applied]:
    """The same, by whoever holds the lab's lock."""
    session, journal, progress = workspace.session, journal_of(lab), ProgressFile(lab)
    done: list[Applied] = []
    for step in steps:
        answer = ask(step) if ask else "run"
        if answer == "quit":
            break
        if answer == "skip":
            continue
        name = f"{step.exercise}/{step.id}"
        title, began = f"{name}: {step.title}", time.monotonic()
        emit(StageBegan(name, title))
        try:
            applied = apply_step(workspace, journal, step, via)
        except LabError:
            progress.note(session.name, [(step.id, "failed")])
            emit(StageEnded(name, title, "failed", time.monotonic() - began))
            raise
        skipped = applied.outcome == "not_applicable"
        progress.note(session.name, [(step.id, "not_applicable" if skipped else "passed")])
        if not skipped:
            noticed(lab, session, [step.id])
        outcome = "skipped" if applied.outcome == "not_applicable" else applied.outcome
        emit(StageEnded(name, title, outcome, applied.seconds, applied.detail))
        done.append(applied)
    return done


def apply_step(workspace: Workspace, journal: Journal, step: Step, via: str) -> Applied:
    """Do one step. Raises StepDiffers, StepFailed, CloudRefused, CloudUnreachable; the journal knows what it left."""
    began = time.monotonic()
    context = workspace.context(step)
    workspace.memory.clear()
    try:
        outcome, detail = _apply(workspace, context, journal, step, via)
    except Absent as absent:
        need = f" (step {absent.step})" if absent.step else ""
        in_order = f"lab replay {workspace.session.name}, without a step named, does all in order"
        advice = in_order if absent.step else "make it, or correct its name in the session file"
        raise StepFailed(
            f"step {step.id}: it builds on {absent.what}{need}, which is not there", advice=advice
        ) from absent
    finally:
        workspace.memory.clear()
    return Applied(step, outcome, detail, time.monotonic() - began)


def _apply(workspace: Workspace, context: Context, journal: Journal, step: Step, via: str) -> tuple[Outcome, str]:
    reason = step.kind.applicable(context, step.params)
    if reason:
        return "not_applicable", reason
    if ended := over(workspace, step):
        return "already", ended
    if step.kind.settles_first:
        _settled(context, step)
    if not step.kind.lasting(step.params):
        outlines = do(context, step, via)
        thing = _settled(context, step)
        report = step.kind.report(thing)
        for text in filter(None, outlines if report is None else [report]):
            context.say(text)
        return "done", step.kind.shown(thing)
    entry = journal.entries(workspace.session.name).get(step.id)
    if entry and entry.state == "begin":
        # An earlier run was cut off in the middle of this step: what it left half made is ours to remove.
        take_back(workspace, journal, entry)
        entry = None
    existing = step.kind.find(context, step.params)
    again = step.kind.repeatable or (step.kind.changes and not entry)
    if existing and not (existing[1] and again):
        return _existing(step, *existing)
    before = step.kind.snapshot(context, step.params)
    journal.write(workspace.session.name, step.id, step.kind.name, "begin", before, declared(workspace.session, step))
    try:
        do(context, step, via)
    except CloudRefused as refusal:
        if _changed_nothing(context, step, before, refusal):
            # What comes to be there from now on is somebody else's.
            journal.write(workspace.session.name, step.id, step.kind.name, "undone")
        raise
    thing = _settled(context, step)
    kept = before if before is not None else step.kind.undo_data(context, step.params, thing)
    journal.write(workspace.session.name, step.id, step.kind.name, "made", kept)
    return "done", step.kind.shown(thing)


def _changed_nothing(context: Context, step: Step, before: Thing | None, refusal: CloudRefused) -> bool:
    """Whether a step that the cloud refused has left nothing: it may have refused only the last of several requests.

    Not known of a step that changes what is there, nor after an answer that is no refusal: taking it back is safe then.
    """
    if before is not None or refusal.status is None or refusal.status >= 500:
        return False
    context.workspace.memory.clear()
    try:
        return step.kind.find(context, step.params) is None
    except Absent:
        return True
    except LabError:
        return refusal.status == 401  # nobody was let in, neither to make something nor to look


def _existing(step: Step, thing: Thing, differences: list[Difference]) -> tuple[Outcome, str]:
    if differences:
        raise StepDiffers(
            f"step {step.id}: {step.title} is there, but {'; '.join(map(str, differences))}",
            advice=f"change or remove it yourself, or lab undo if the lab made it. Hint: {step.hint}",
        )
    return "already", step.kind.shown(thing)


def _settled(context: Context, step: Step) -> Thing:
    """The thing, once the cloud shows it as declared: an answer of 202 is a promise, not a result."""
    deadline = time.monotonic() + step.kind.settle_seconds
    while True:
        context.workspace.memory.clear()
        answer = step.kind.find(context, step.params)
        if answer and not answer[1]:
            return answer[0]
        if time.monotonic() > deadline or (answer and _hopeless(answer[0])):
            actual = "; ".join(map(str, answer[1])) if answer else "it is not there"
            raise StepFailed(f"step {step.id}: done, but {actual}", advice=f"Hint: {step.hint}")
        time.sleep(SETTLE_POLL)


def _hopeless(thing: Thing) -> bool:
    return str(thing.get("status", "")).lower() in ("error", "killed")
