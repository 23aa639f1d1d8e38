"""`lab up` as resumable parts: each says whether it is done already, else runs; how long it took is remembered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stacklab.errors import LabError
from stacklab.events import Emit, StageBegan, StageEnded, StageMoved
from stacklab.lab import Lab

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """One part of `lab up`.

    `already` returns why there is nothing to do, or None; it must look at the thing itself, not at a record of it.
    `run` does it, reports with its argument, and returns one line on what came of it.
    `usual` is the duration in seconds to announce before this machine has a measurement of its own.
    """

    name: str
    title: str
    already: Callable[[], str | None]
    run: Callable[[Progress], str]
    usual: float | None = None


def run_stages(lab: Lab, stages: Iterable[Stage], emit: Emit) -> None:
    """Run each stage in turn. Raises what a stage raises, after emitting and recording its failure."""
    for stage in stages:
        began = time.monotonic()
        reason = stage.already()
        if reason is not None:
            emit(StageEnded(stage.name, stage.title, "already", time.monotonic() - began, reason))
            continue

        def progress(detail: str, name: str = stage.name) -> None:
            emit(StageMoved(name, detail))

        try:
            emit(StageBegan(stage.name, stage.title, lab.usual_seconds(stage.name) or stage.usual))
            lab.record_stage(stage.name, "running", 0.0)
            detail = stage.run(progress)
            seconds = time.monotonic() - began
            lab.record_stage(stage.name, "done", seconds)
        except BaseException as error:
            seconds = time.monotonic() - began
            outcome = "failed" if isinstance(error, Exception) else "interrupted"
            lab.record_stage(stage.name, outcome, seconds)
            detail = error.message if isinstance(error, LabError) else outcome
            emit(StageEnded(stage.name, stage.title, "failed", seconds, detail))
            raise
        emit(StageEnded(stage.name, stage.title, "done", seconds, detail))
