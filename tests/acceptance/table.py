"""What a trial showed, for the README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- acceptance -->", "<!-- /acceptance -->"


class NoMarks(Exception):
    """The README says nowhere where the table goes."""


@dataclass(frozen=True)
class Part:
    """One part of the trial: what, how long (wall seconds), whether it did what it should, and what it showed."""

    what: str
    seconds: float
    good: bool
    showed: str
    stages: list[tuple[str, float]] = field(default_factory=list)


def table(parts: Sequence[Part], machine: str) -> str:
    """Markdown."""
    rows = ["| what | time | what it showed |", "|---|---|---|"]
    rows += [
        f"| {part.what} | {spoken(part.seconds)} | {'' if part.good else '**failed:** '}{part.showed} |"
        for part in parts
    ]
    total = sum(part.seconds for part in parts)
    return "\n".join([*rows, "", f"One run of `python -m tests.acceptance`, {spoken(total)} in all: {machine}."])


def spoken(seconds: float) -> str:
    """3 s, 59 s, 1 min 2 s, 75 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{round(whole / 60)} min"


def written(readme: str, text: str) -> str:
    """The README's text with the table between its marks; raises NoMarks if it has none."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise NoMarks(f"{README} has no {BEGIN} … {END}")
    return f"{head}{BEGIN}\n{text}\n{END}{tail}"
