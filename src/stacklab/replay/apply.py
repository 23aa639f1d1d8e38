"""Doing steps: find, else create; what is there but different is reported, never papered over."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from stacklab.course.session import Step
from stacklab.errors import CloudRefused, LabError, StepDiffers, StepFailed
from stacklab.kinds.context import Absent, Context, Thing, Workspace
from stacklab.kinds.kind import Difference
from stacklab.replay.check import in_words, over
from stacklab.replay.journal import Journal
from stacklab.replay.remembered import declared
from stacklab.replay.undo import as_applied, take_back
from stacklab.replay.vias import do

Outcome = Literal["done", "already", "not_applicable"]
SETTLE_POLL = 0.2


@dataclass(frozen=True)
class Applied:
    """What became of a step, and in how many seconds."""

    step: Step
    outcome: Outcome
    detail: str
    seconds: float


def apply_step(desk: Workspace, journal: Journal, step: Step, via: str) -> Applied:
    """Do one step. Raises StepDiffers, StepFailed, CloudRefused, CloudUnreachable; the journal knows what it left."""
    began = time.monotonic()
    scene = desk.context(step)
    desk.memory.clear()
    try:
        outcome, detail = _apply(desk, scene, journal, step, via)
    except Absent as absent:
        need = f" (step {absent.step})" if absent.step else ""
        in_order = f"lab replay {desk.session.name}, without a step named, does all in order"
        advice = in_order if absent.step else "make it, or correct its name in the session file"
        raise StepFailed(
            f"step {step.id}: it builds on {absent.what}{need}, which is not there", advice=advice
        ) from absent
    finally:
        desk.memory.clear()
    return Applied(step, outcome, detail, time.monotonic() - began)


def _apply(desk: Workspace, scene: Context, journal: Journal, step: Step, via: str) -> tuple[Outcome, str]:
    desk.allow(step)
    reason = step.kind.applicable(scene, step.params)
    if reason:
        return "not_applicable", reason
    if ended := over(desk, step):
        return "already", ended
    if step.kind.settles_first:
        _settled(scene, step)
    if not step.kind.lasting(step.params):
        outlines = _do(scene, step, via)
        thing = _settled(scene, step)
        report = step.kind.report(thing)
        for text in filter(None, outlines if report is None else [report]):
            scene.say(text)
        return "done", step.kind.shown(thing)
    entry = journal.entries(desk.session.name).get(step.id)
    if entry and entry.state == "begin":
        # An earlier run was cut off in the middle of this step: what it left half made is ours to remove.
        take_back(as_applied(desk, journal), journal, step.id)
    existing = step.kind.find(scene, step.params)
    if existing and not (existing[1] and step.kind.repeatable):
        return _existing(step, *existing)
    before = step.kind.snapshot(scene, step.params)
    journal.write(desk.session.name, step.id, step.kind.name, "begin", before, declared(desk.session, step))
    try:
        _do(scene, step, via)
    except CloudRefused as refusal:
        if _changed_nothing(scene, step, before, refusal):
            # What comes to be there from now on is somebody else's.
            journal.write(desk.session.name, step.id, step.kind.name, "undone")
        raise
    thing = _settled(scene, step)
    kept = before if before is not None else step.kind.undo_data(scene, step.params, thing)
    journal.write(desk.session.name, step.id, step.kind.name, "made", kept)
    return "done", step.kind.shown(thing)


def _changed_nothing(scene: Context, step: Step, before: Thing | None, refusal: CloudRefused) -> bool:
    """Whether a step that the cloud refused has left nothing: it may have refused only the last of several requests.

    Not known of a step that changes what is there, nor after an answer that is no refusal: taking it back is safe then.
    """
    if before is not None or refusal.status is None or refusal.status >= 500:
        return False
    scene.workspace.memory.clear()
    try:
        return step.kind.find(scene, step.params) is None
    except Absent:
        return True
    except LabError:
        return refusal.status == 401  # nobody was let in, neither to make something nor to look


def _existing(step: Step, thing: Thing, differences: list[Difference]) -> tuple[Outcome, str]:
    if differences:
        raise StepDiffers(
            f"step {step.id}: {step.title} is there, but {'; '.join(in_words(one) for one in differences)}",
            advice=f"change or remove it yourself, or lab undo if the lab made it. Hint: {step.hint}",
        )
    return "already", step.kind.shown(thing)


def _do(scene: Context, step: Step, via: str) -> list[str]:
    """Do it; what a look brought, in lines."""
    refusal: CloudRefused | None = None
    outlines: list[str] = []
    try:
        outlines = do(scene, step, via)
    except CloudRefused as error:
        refusal = error
    try:
        step.kind.judge(scene, step.params, refusal)
    except LabError as error:
        error.args = (f"step {step.id}: {error.message}",)
        error.message = str(error)
        error.advice = error.advice or f"lab hint {scene.workspace.session.name}/{step.exercise}/{step.id}"
        raise
    return outlines


def _settled(scene: Context, step: Step) -> Thing:
    """The thing, once the cloud shows it as declared: an answer of 202 is a promise, not a result."""
    deadline = time.monotonic() + step.kind.settle_seconds(step.params)
    while True:
        scene.workspace.memory.clear()
        answer = step.kind.find(scene, step.params)
        if answer and not answer[1]:
            return answer[0]
        if time.monotonic() > deadline or (answer and _hopeless(answer[0])):
            actual = "; ".join(in_words(one) for one in answer[1]) if answer else "it is not there"
            raise StepFailed(f"step {step.id}: done, but {actual}", advice=f"Hint: {step.hint}")
        time.sleep(SETTLE_POLL)


def _hopeless(thing: Thing) -> bool:
    return str(thing.get("status", "")).lower() in ("error", "killed")
