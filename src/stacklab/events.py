"""What happens, as values: rooms that do the work emit these, and only `console` turns them into text or JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class StageBegan:
    """A stage starts; `usual` is how many seconds it took before (or is known to take), if that is known."""

    stage: str
    title: str
    usual: float | None = None


@dataclass(frozen=True)
class StageMoved:
    """Something to show while a stage runs: one line on what is going on now."""

    stage: str
    detail: str


@dataclass(frozen=True)
class StageEnded:
    """A stage's outcome. `detail` says why it had nothing to do, or what came of it."""

    stage: str
    title: str
    outcome: Literal["done", "already", "skipped", "failed"]
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class Note:
    """A line for the user that belongs to no stage."""

    text: str
    level: Literal["info", "warning"] = "info"


Event = StageBegan | StageMoved | StageEnded | Note
Emit = Callable[[Event], None]
