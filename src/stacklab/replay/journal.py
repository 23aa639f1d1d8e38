"""What the replay did and made, in order: undo removes exactly this.

One JSON object a line, appended and synced before the next thing happens, so that a crash at any moment leaves a
record of what was under way: `begin` before a step touches the cloud, `made` after it, `undone` when it has been removed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from stacklab.errors import LabDamaged
from stacklab.files import disk_error

State = Literal["begin", "made", "undone"]


@dataclass(frozen=True)
class Entry:
    """The last that is known of a step. `kept` is what its kind needs for removing it (None while it is under way).

    `declared`: the step as it was applied (see `stacklab.replay.remembered`).
    """

    session: str
    step: str
    kind: str
    state: State
    at: float
    kept: dict[str, Any] | None = None
    declared: dict[str, Any] | None = None


class Journal:
    """The journal of one lab."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(
        self,
        session: str,
        step: str,
        kind: str,
        state: State,
        kept: dict[str, Any] | None = None,
        declared: dict[str, Any] | None = None,
    ) -> None:
        """Append one line, on disk before this returns. Raises NotEnoughSpace."""
        line = {"session": session, "step": step, "kind": kind, "state": state, "at": time.time(), "kept": kept}
        line |= {"declared": declared} if declared else {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._drop_cut_line()
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(error, self.path) from error

    def entries(self, session: str) -> dict[str, Entry]:
        """By step, what is under way or made and not undone, in the order in which it began. Raises LabDamaged."""
        found: dict[str, Entry] = {}
        for entry in self._all():
            if entry.session != session:
                continue
            if entry.state == "undone":
                found.pop(entry.step, None)
            elif entry.step in found and entry.state == "made":
                # Keeps its place in the order, and what was said of it when it began.
                found[entry.step] = replace(entry, declared=entry.declared or found[entry.step].declared)
            else:
                found.pop(entry.step, None)
                found[entry.step] = entry
        return found

    def sessions(self) -> list[str]:
        """Sessions of which something is under way or made and not undone, the one worked on last at the end."""
        known = list(dict.fromkeys(reversed([entry.session for entry in self._all()])))
        return [name for name in reversed(known) if self.entries(name)]

    def _all(self) -> Iterator[Entry]:
        for number, line in enumerate(self._lines(), 1):
            try:
                yield Entry(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise LabDamaged(
                    f"{self.path}:{number} cannot be read: {error}", advice="lab reset starts afresh"
                ) from error

    def _drop_cut_line(self) -> None:
        """Remove a last line that a crash or a full disk cut off, so that the next one does not run into it."""
        if self.path.exists():
            content = self.path.read_bytes()
            if content and not content.endswith(b"\n"):
                os.truncate(self.path, content.rfind(b"\n") + 1)

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        lines = text.splitlines()
        # A line without its end was cut off by a crash or a full disk; what it would have said had not begun.
        return lines if text.endswith("\n") or not lines else lines[:-1]

    def clear(self) -> None:
        """Forget everything: the cloud has been brought back to before all of it."""
        self.path.unlink(missing_ok=True)
