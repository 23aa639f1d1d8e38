"""What a program prints, bounded in memory; and feeding and reading a program until it has ended."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from typing import Any

LIMIT = 16 * 1024 * 1024
"""Bytes that are kept of one stream: the first and the last half of it, with a line between that says how much is missing."""
POLL = 0.05
"""Seconds between two looks at whether a program has ended whose output a child of its own keeps open."""
LAST_WORDS = 1.0
"""Seconds for reading what a program has left in its pipes; what its children go on printing is not its output."""
CHUNK = 1 << 16


class Output:
    """One stream of a program's. `whole`: nothing is left out."""

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def write(self, data: bytes) -> None:
        """Take some bytes."""
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

    def data(self) -> bytes:
        """What was printed."""
        if not self._left_out:
            return bytes(self._head + self._tail)
        return bytes(self._head) + f"\n[… {self._left_out} bytes left out …]\n".encode() + bytes(self._tail)

    def text(self) -> str:
        """What was printed, as UTF-8; what is none is replaced."""
        return self.data().decode("utf-8", "replace")


class ChildProcess:
    """A program of this machine's that leads a session of its own, so that Ctrl-C is ours to pass on."""

    def __init__(
        self, argv: list[str], out: Output, err: Output, *, env: dict[str, str] | None = None, cwd: str | None = None
    ) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, stderr=pipe, env=env, cwd=cwd, start_new_session=True
        )
        self._out, self._err = out, err

    def attend(self, given: bytes, seconds: float) -> int | None:
        """Feed it and take what it prints until it has ended: its exit status, None if it has not after `seconds`.

        A child that it leaves behind may keep its output open for ever, so its end, not the output's, is what is waited for.
        """
        until, rest, process = time.monotonic() + seconds, memoryview(given), self.process
        pipes = (process.stdin, process.stdout, process.stderr)
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as closing:
            for pipe, sink in zip(pipes, (None, self._out, self._err), strict=True):
                assert pipe is not None  # noqa: S101 -- it was asked for
                closing.callback(_close, pipe)
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ if sink else selectors.EVENT_WRITE, sink)
            while True:
                ended = process.poll() is not None  # asked before reading: what it has printed by then is read below
                if ended:
                    until = min(until, time.monotonic() + LAST_WORDS)
                left = until - time.monotonic()
                ready = selector.select(0 if ended else max(0.0, min(POLL, left)))
                for key, _ in ready:
                    if key.data is None:
                        rest = _fed(key.fd, rest)
                    if not (rest if key.data is None else _taken(key.fd, key.data)):
                        selector.unregister(key.fileobj)
                        _close(key.fileobj)
                if left <= 0 or (ended and all(key.data is None for key, _ in ready)):
                    return process.poll()
                if not ended and not selector.get_map():
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(left)

    def end(self, first: signal.Signals = signal.SIGTERM, grace: float = 2.0) -> None:
        """End it and all that is left of its group."""
        for number in (first, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace)


def _fed(number: int, rest: memoryview) -> memoryview:
    """What is still to be written; nothing where nobody reads any more."""
    try:
        return rest[os.write(number, rest[:CHUNK]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return memoryview(b"")


def _taken(number: int, sink: Output) -> bool:
    """Read what is there; False at the end of the stream."""
    try:
        data = os.read(number, CHUNK)
    except BlockingIOError:
        return True
    sink.write(data)
    return bool(data)


def _close(pipe: Any) -> None:
    with contextlib.suppress(OSError):  # what was not written any more
        pipe.close()
