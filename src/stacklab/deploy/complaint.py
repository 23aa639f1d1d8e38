"""What is wrong with a file that somebody wrote for a deployment, and on which line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, order=True)
class Complaint:
    """One thing that is wrong. `line`: from 1; 0 for something that stands nowhere in the file. It never quotes a password."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


def meant(name: str, known: Iterable[str]) -> str | None:
    """What a name is probably a slip of the pen for; None where it is one of `known`, or like none of them."""
    names = list(known)
    if name in names:
        return None
    found = get_close_matches(name.upper(), names, n=1, cutoff=0.86)
    return found[0] if found else None
