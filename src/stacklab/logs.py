"""Reading logs that grow, in files or in a machine's journal: the last lines, and what comes after."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

POLL = 0.3


class Log(Protocol):
    """One service's log."""

    where: str
    """Where a person finds it: a path, or the command that shows it."""
    poll: float
    """Seconds between two looks at it."""

    def last(self, count: int) -> list[str]:
        """The last `count` lines (none if there is no such log yet). What is written from now on, `more` returns."""

    def more(self) -> list[str]:
        """The whole lines added since `last`, or since `more` was called before."""


class FileLog:
    """A log in a file of this machine; one that is begun anew is read from its start."""

    poll = POLL

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self._read = 0

    def last(self, count: int) -> list[str]:
        self._read = self.path.stat().st_size if self.path.exists() else 0
        if count == 0 or self._read == 0:
            return []
        with self.path.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=count)]

    def more(self) -> list[str]:
        if not self.path.exists():
            return []
        if self.path.stat().st_size < self._read:
            self._read = 0
        lines = []
        with self.path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                lines.append(line.decode(errors="replace").rstrip("\n"))
        return lines


def follow_logs(logs: Mapping[str, Log]) -> Iterator[tuple[str, str]]:
    """(name, line) for every line added after each log's `last` was asked, for ever."""
    while True:
        for name, log in logs.items():
            for line in log.more():
                yield name, line
        time.sleep(max((log.poll for log in logs.values()), default=POLL))
