"""Did you mean …?"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def closest(word: str, known: Iterable[str], otherwise: str) -> str:
    """Advice for a word that is none of `known`: the closest one, or the command that lists them."""
    return meant(word, known) or f"{otherwise} lists what there is"


def closest_of(word: str, known: Iterable[str], what: str) -> str:
    """Advice for a word that is none of `known`: the closest one, or all of them. `what` they are: "its keys"."""
    names = list(known)
    return meant(word, names) or f"{what}: {', '.join(names) or 'none'}"


def meant(word: str, known: Iterable[str]) -> str:
    """The question whether the closest of `known` was meant; empty where none is close."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else ""
