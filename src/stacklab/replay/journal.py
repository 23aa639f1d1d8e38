"""What the replay did and made, in order: undo removes exactly this.

One JSON object a line, appended and synced before the next thing happens, so that a crash at any moment leaves a
record of what was under way: `begin` before a step touches the cloud, `made` after it, `undone` when it has been removed.
It is written twice, and every line has a checksum: where one file is broken, the other's line counts.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from stacklab.errors import LabDamaged
from stacklab.files import copy_of, disk_error, remove_precious, warn_of, write_atomic

State = Literal["begin", "made", "undone"]
FORMAT = 2
"""Of a line. Format 1 is the same without `format` and `sum`."""


@dataclass(frozen=True)
class JournalEntry:
    """The last that is known of a step. `kept` is what its kind needs for removing it (None while it is under way).

    `declared`: what undo has to know of the step as it was applied (see `stacklab.replay.undo.declared`).
    """

    session: str
    step: str
    kind: str
    state: State
    at: float
    kept: dict[str, Any] | None = None
    declared: dict[str, Any] | None = None

    @property
    def about(self) -> dict[str, Any]:
        """`declared`, filled. An older lab had the declarations of all steps that it refers to in it."""
        declared = self.declared or {}
        older: dict[str, Any] = next((step for step in declared.get("steps", []) if step["id"] == self.step), {})
        title = f"the {self.kind} of step {self.step}"
        return {"exercise": "steps", "as": "admin", "title": title, "needs": (), **declared, **older}


_KNOWN = {field.name for field in fields(JournalEntry)}


class Journal:
    """The journal of one lab."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # --- writing ---------------------------------------------------------------------------------------------------

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
        self.repair()
        for file in (self.path, copy_of(self.path)):
            _append(file, _sealed({"format": FORMAT, **line}))

    def clear(self) -> None:
        """Forget everything: the cloud has been brought back to before all of it."""
        remove_precious(self.path)

    def repair(self) -> None:
        """Both files hold the same whole lines before the next is appended: one may be cut off, or broken."""
        whole = "".join(f"{line}\n" for line in self._lines()).encode()
        for file in (self.path, copy_of(self.path)):
            if whole != (file.read_bytes() if file.exists() else b""):
                write_atomic(file, whole, mode=0o600)

    # --- reading ---------------------------------------------------------------------------------------------------

    def entries(self, session: str) -> dict[str, JournalEntry]:
        """By step, what is under way or made and not undone, in the order in which it began. Raises LabDamaged."""
        known: dict[str, JournalEntry] = {}
        for entry in self._all():
            if entry.session != session:
                continue
            if entry.state == "undone":
                known.pop(entry.step, None)
            elif entry.step in known and entry.state == "made":
                # Keeps its place in the order, and what was noted of it when it began.
                known[entry.step] = replace(entry, declared=entry.declared or known[entry.step].declared)
            else:
                known.pop(entry.step, None)
                known[entry.step] = entry
        return known

    def sessions(self) -> list[str]:
        """Sessions of which something is under way or made and not undone, the one worked on last at the end."""
        known = list(dict.fromkeys(reversed([entry.session for entry in self._all()])))
        return [name for name in reversed(known) if self.entries(name)]

    def _all(self) -> Iterator[JournalEntry]:
        if all(file.exists() and not file.stat().st_size for file in (self.path, copy_of(self.path))):
            raise _lost(f"{self.path} is empty")  # what is cut off in the first line of all has no copy yet
        for number, line in enumerate(self._lines(), 1):
            entry = _parsed(line)
            if entry is None:
                raise _lost(f"{self.path}:{number} is broken")
            yield entry

    def _lines(self) -> list[str]:
        """Of either file the line that is whole. One that is whole in neither keeps its place, unless it comes after the end
        of a file in which all is whole: then it is no line of ours."""
        files = [_lines_of(file) for file in (self.path, copy_of(self.path))]
        ends = [len(lines) for lines in files if lines and all(_parsed(line) for line in lines)]
        known = []
        for number in range(max(len(lines) for lines in files)):
            here = [lines[number] for lines in files if number < len(lines)]
            whole = next((line for line in here if _parsed(line)), None)
            if whole is None and ends and number >= max(ends):
                break
            known.append(here[0] if whole is None else whole)
        if known != files[0]:
            warn_of(self.path, "is broken")
        return known


def _lost(what: str) -> LabDamaged:
    return LabDamaged(
        f"{what}, and so is its copy: what was made cannot be told any more",
        advice="lab check still grades what is there; lab reset puts everything back, and what was made since the start is "
        "lost then",
    )


def _append(file: Path, line: str) -> None:
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise disk_error(error, file) from error


def _lines_of(file: Path) -> list[str]:
    """A line without its end was cut off by a crash or a full disk; what it would have noted had not begun."""
    text = file.read_bytes().decode(errors="replace") if file.exists() else ""
    return text.split("\n")[:-1]


def _sealed(line: dict[str, Any]) -> str:
    return json.dumps({**line, "sum": zlib.crc32(json.dumps(line).encode())})


def _parsed(line: str) -> JournalEntry | None:
    """None for a broken line. Raises LabDamaged for what a newer lab has written."""
    try:
        values = json.loads(line)
        if values.get("format", 1) > FORMAT:
            raise LabDamaged("a newer lab has written the journal", advice="update lab; nothing is broken")
        if "sum" in values and line != _sealed({name: value for name, value in values.items() if name != "sum"}):
            return None
        return JournalEntry(**{name: value for name, value in values.items() if name in _KNOWN})
    except (ValueError, TypeError, AttributeError):
        return None
