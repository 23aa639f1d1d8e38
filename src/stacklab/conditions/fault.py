"""A fault: something broken on purpose, so that a learner finds it and mends it. A fix backwards."""

from __future__ import annotations

from abc import ABC, abstractmethod

from stacklab.conditions.finding import Finding
from stacklab.stages import Progress


class Fault(ABC):
    """One fault of one lab's cloud, on the home where it lives: homes make them (`Home.faults`).

    `id`: the word that session files use. All methods may be called in any state, also half-way broken or mended by the
    learner in another way, and again after a crash. What is needed for the way back is kept before anything is changed.
    """

    id: str
    title: str

    def why_not(self) -> str | None:
        """Why this cloud cannot have it, in words for a learner, or None."""
        return None

    @abstractmethod
    def look(self) -> Finding:
        """Whether the thing is well now, found out by looking at it alone, never at what the lab remembers."""

    @abstractmethod
    def inflict(self, progress: Progress) -> None:
        """Break it; returns when the symptoms show. Nothing outside the lab is touched."""

    @abstractmethod
    def mend(self, progress: Progress) -> None:
        """Put it right again and return when it is well; nothing to do where it is well already."""
