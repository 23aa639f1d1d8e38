"""What a program on a machine prints: bounded in memory, and without what a login shell printed before it."""

from __future__ import annotations

import time
from typing import Protocol

LIMIT = 16 * 1024 * 1024
"""Bytes that are kept of one stream: the first and the last half of it, with a line between that says how much is missing."""
NOISE = 1024 * 1024
"""How much a login shell may print before the program begins."""


class Source(Protocol):
    """Where a program's standard input comes from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


class Sink(Protocol):
    """Takes a program's output as it comes."""

    def write(self, data: bytes) -> object:
        """Take some bytes."""


class Marked:
    """A sink for one stream. `begun`: the process id that the marker line told, None before it came; `since`: when that was."""

    def __init__(self, token: str, *, whole: bool = False) -> None:
        self.begun: int | None = None
        self.since = 0.0
        self._marker = f"{token} ".encode()
        self._whole = whole
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def write(self, data: bytes) -> None:
        """Take some bytes."""
        if self.begun is not None:
            self._keep(data)
            return
        self._head += data
        at = self._head.find(self._marker)
        end = self._head.find(b"\n", at) if at >= 0 else -1
        if end >= 0:
            rest = bytes(self._head[end + 1 :])
            self.begun = int(self._head[at + len(self._marker) : end])
            self.since = time.monotonic()
            self._head.clear()
            self._keep(rest)
        elif len(self._head) > NOISE:
            del self._head[: NOISE // 2]

    def data(self) -> bytes:
        """What was printed."""
        if not self._left_out:
            return bytes(self._head + self._tail)
        return bytes(self._head) + f"\n[… {self._left_out} bytes left out …]\n".encode() + bytes(self._tail)

    def text(self) -> str:
        """What was printed, as UTF-8; what is none is replaced."""
        return self.data().decode("utf-8", "replace")

    def _keep(self, data: bytes) -> None:
        if self._whole:
            self._head += data
            return
        room = max(0, LIMIT // 2 - len(self._head))
        self._head += data[:room]
        self._tail += data[room:]
        surplus = len(self._tail) - LIMIT // 2
        if surplus > LIMIT // 8:  # now and then, so that cutting costs little
            del self._tail[:surplus]
            self._left_out += surplus
