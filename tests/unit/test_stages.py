"""`lab up` in parts: however a part ends, it is told and remembered."""

from __future__ import annotations

import pytest

from stacklab.events import Event, StageBegan, StageEnded
from stacklab.lab import Lab
from stacklab.stages import Stage, run_stages

pytestmark = pytest.mark.usefixtures("own_directories")


def test_an_interruption_at_the_very_beginning_is_told_and_remembered() -> None:
    lab = Lab("intro")
    told: list[Event] = []

    def emit(event: Event) -> None:
        told.append(event)
        if isinstance(event, StageBegan):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(lab, [Stage("one", "the first", lambda: None, lambda progress: "")], emit)
    assert isinstance(told[-1], StageEnded)
    assert (told[-1].outcome, told[-1].detail) == ("failed", "interrupted")
    assert lab.record.stages["one"].outcome == "interrupted"
