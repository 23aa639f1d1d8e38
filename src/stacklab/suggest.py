"""Did you mean …?"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def closest(word: str, known: Iterable[str], otherwise: str) -> str:
    """Advice for a word that is none of `known`: the closest one, or the command that lists them."""
    found = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean '{found[0]}'?" if found else f"{otherwise} lists what there is"
