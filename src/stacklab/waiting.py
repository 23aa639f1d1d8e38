"""Waiting for something, with an end: what it is, how long it may take and usually does, and what was seen last."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from stacklab.errors import LabError, ServiceFailed

T = TypeVar("T")

SAY_AGAIN = 30.0
"""Seconds after which a line that only counts on is said again."""
_DURATION = re.compile(r"\d+(\.\d+)?( of \d+)? (s|min|h)\b")


@dataclass(frozen=True)
class NotYet:
    """What a look answers for as long as it is not so yet: what was seen instead."""

    evidence: str


def until(
    look: Callable[[], T | NotYet],
    what: str,
    *,
    seconds: float,
    every: float = 2.0,
    progress: Callable[[str], None] | None = None,
    usual: float | None = None,
    advice: str = "",
    error: type[LabError] = ServiceFailed,
) -> T:
    """Look until it is so; what the look gave then. `what`, in words: "the agent's first report".

    `usual`: the seconds that it takes as a rule. Raises `error` with the last evidence when the time is up, and at once
    whatever `look` raises.
    """
    say = sparing(progress) if progress else None
    limit = f"up to {seconds:.0f} s" + (f", usually {usual:.0f} s" if usual else "")
    evidence = ""
    for seen in looks(look, seconds, every):
        if not isinstance(seen, NotYet):
            return seen
        evidence = seen.evidence
        if say:
            say(f"waiting for {what} ({limit}): {(evidence.splitlines() or [''])[0]}")
    raise error(f"{what} did not come within {seconds:.0f} s: {evidence}", advice=advice)


def looks(look: Callable[[], T], seconds: float, every: float = 2.0) -> Iterator[T]:
    """What looking gives, again and again until the time is up; the last look is made after that."""
    deadline = time.monotonic() + seconds
    while True:
        late = time.monotonic() > deadline
        yield look()
        if late:
            return
        time.sleep(every)


def sparing(progress: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Callable[[str], None]:
    """`progress` without the lines that differ from the last one in their seconds alone; every SAY_AGAIN s they are said.

    Without a terminal each of them is a line of its own.
    """
    last, at = None, 0.0

    def say(detail: str) -> None:
        nonlocal last, at
        what, now = _DURATION.sub("", detail), clock()
        if what != last or now - at >= SAY_AGAIN:
            last, at = what, now
            progress(detail)

    return say
