"""How a thing was found to be: what fixes, faults and the doctor answer with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["well", "broken", "not_applicable", "unknown"]


@dataclass(frozen=True)
class Finding:
    """How a thing is, and what was seen that says so. unknown: the look itself failed, or it is too `early` to tell."""

    state: State
    evidence: str
    early: bool = False

    @property
    def fine(self) -> bool:
        """Whether there is nothing to repair."""
        return self.state in ("well", "not_applicable")
