"""A length of time as people say it."""

from __future__ import annotations


def seconds(value: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 60:
        return f"{value:.0f} s"
    return f"{int(value) // 60} min {int(value) % 60} s"
