"""How long things took while they were tested: printed at the end of a run, never asserted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

numbers: list[str] = []
"""A line for each measurement of this process."""


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Remember how long something took, and how busy the machine was."""
    began = time.monotonic()
    yield
    numbers.append(f"{what}: {time.monotonic() - began:.1f} s (load {os.getloadavg()[0]:.1f})")
