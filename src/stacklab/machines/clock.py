"""A machine's clock, compared with ours and moved, however long a command takes to get there."""

from __future__ import annotations

import time

from stacklab.machines.base import Machine

LOOKS = 3

OFF_SECONDS = 30.0
"""What still counts as right: a look at a busy machine can be off by some seconds itself. Tokens and TLS bear minutes."""

SHIFT = """date -u -s "@$(date +%s.%N | awk -v by="$1" '{printf "%.3f", $1 + by}')" >/dev/null"""


def ahead(machine: Machine) -> float:
    """By how many seconds the machine's clock is ahead of ours. Raises CommandFailed."""
    off, _ = min((_look(machine) for _ in range(LOOKS)), key=lambda measured: measured[1])
    return off


def move(machine: Machine, seconds: float) -> None:
    """Move the machine's clock. Raises CommandFailed."""
    machine.script(SHIFT, f"{seconds:.3f}", user="root")


def set_clock(machine: Machine) -> None:
    """Move the machine's clock by what it is off. Raises CommandFailed.

    On a busy host a command may reach an emulated guest seconds late, so it carries a difference and not a time.
    """
    move(machine, -ahead(machine))


def _look(machine: Machine) -> tuple[float, float]:
    """By how many seconds it is ahead of us, and how far that may be wrong."""
    before = time.time()
    there = float(machine.run("date", "+%s.%N").out)
    after = time.time()
    return there - (before + after) / 2, (after - before) / 2
