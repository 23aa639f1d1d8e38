"""Waiting for the cloud: always with a deadline, always saying for what."""

from __future__ import annotations

import time
from collections.abc import Callable

from stacklab.errors import StepFailed


def until(ready: Callable[[], bool], what: str, *, seconds: float, every: float = 0.5) -> None:
    """Call `ready` until it is true. Raises StepFailed, naming what was waited for, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise StepFailed(
                f"waited {seconds:.0f} s for {what}, in vain", advice="lab status shows whether all services run"
            )
        time.sleep(every)
