"""Reading log files that grow: the last lines, and what comes after."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

POLL = 0.3


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines (none if there is no such file yet)."""
    if not path.exists() or count == 0:
        return []
    with path.open(encoding="utf-8", errors="replace") as file:
        return [line.rstrip("\n") for line in deque(file, maxlen=count)]


def follow_logs(files: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """(name, line) for every line added from now on, for ever; a file that is begun anew is read from its start."""
    read = {name: path.stat().st_size if path.exists() else 0 for name, path in files.items()}
    while True:
        for name, path in files.items():
            if not path.exists():
                continue
            if path.stat().st_size < read[name]:
                read[name] = 0
            with path.open("rb") as file:
                file.seek(read[name])
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    read[name] += len(line)
                    yield name, line.decode(errors="replace").rstrip("\n")
        time.sleep(POLL)
