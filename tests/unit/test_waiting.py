"""Every wait has an end, says what it waits for and how long it may take, and ends with what was seen last."""

from __future__ import annotations

import pytest

from stacklab.errors import NotRunning, ServiceFailed
from stacklab.waiting import SAY_AGAIN, NotYet, looks, sparing, until


def test_what_has_come_is_given_back_and_until_then_it_is_said_what_is_waited_for() -> None:
    seen = iter([NotYet("it answers 503"), NotYet("it answers 503"), NotYet("it starts"), "a token"])
    said: list[str] = []
    assert until(lambda: next(seen), "a token", seconds=60, every=0, usual=5, progress=said.append) == "a token"
    assert said == [
        "waiting for a token (up to 60 s, usually 5 s): it answers 503",
        "waiting for a token (up to 60 s, usually 5 s): it starts",
    ]


def test_what_does_not_come_in_time_ends_with_the_evidence_and_the_advice() -> None:
    with pytest.raises(NotRunning, match="a token did not come within 0 s: nobody answers") as caught:
        until(lambda: NotYet("nobody answers"), "a token", seconds=0, every=0, advice="lab up", error=NotRunning)
    assert caught.value.advice == "lab up"


def test_a_look_that_fails_ends_the_wait() -> None:
    def look() -> NotYet:
        raise ServiceFailed("it has crashed")

    with pytest.raises(ServiceFailed, match="it has crashed"):
        until(look, "a token", seconds=60, every=0)


def test_the_last_look_is_made_when_the_time_is_up() -> None:
    assert len(list(looks(lambda: 1, seconds=-1, every=0))) == 1
    assert len(list(looks(lambda: 1, seconds=0, every=0))) <= 2


def test_lines_that_only_count_on_are_said_now_and_then() -> None:
    said: list[str] = []
    now = 0.0
    progress = sparing(said.append, lambda: now)
    for now in (0, 10, 20, SAY_AGAIN, SAY_AGAIN + 1):
        progress(f"watching q-agt: up for {now:.0f} of 75 s")
    progress("watching n-cpu: up for 3 of 75 s")
    assert said == [
        "watching q-agt: up for 0 of 75 s",
        f"watching q-agt: up for {SAY_AGAIN:.0f} of 75 s",
        "watching n-cpu: up for 3 of 75 s",
    ]
