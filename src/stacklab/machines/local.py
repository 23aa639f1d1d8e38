"""This machine, as the same `Machine` that a machine at the other end of SSH is.

What sshd would be handed goes to a shell here: the same command line (`remote.Command`), so that a step does the same on both.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from stacklab.errors import CommandFailed, SudoRefused
from stacklab.machines.base import COMMAND_SECONDS, Finished
from stacklab.machines.output import Marked
from stacklab.machines.remote import ABSENT, KILL_AFTER, PUT, READ, Command, last_line, put_refused, script_command

FILE_SECONDS = 600.0
POLL = 0.05
"""Seconds between two looks at whether a program has ended whose output a child of its own keeps open."""
LAST_WORDS = 1.0
"""Seconds for reading what a program has left in its pipes; what its children go on printing is not its output."""
CHUNK = 1 << 16
_TIMED_OUT = (124, 128 + 9)
"""What `timeout` exits with: 124 after SIGTERM, killed itself after SIGKILL (timeout(1))."""


class LocalMachine:
    """See `stacklab.machines.base.Machine`. Nothing is ever done as anybody but the user who runs us.

    Programs run in that user's home directory, with the sbin directories on PATH; of each stream of their output both ends are
    kept (`machines.output.LIMIT`). They lead a session of their own, so that Ctrl-C is ours to pass on.
    """

    name = "this machine"

    def run(
        self,
        *argv: str,
        user: str | None = None,
        given: str | bytes | None = None,
        environment: Mapping[str, str] | None = None,
        seconds: float = COMMAND_SECONDS,
        check: bool = True,
    ) -> Finished:
        """See Machine.run."""
        return self._finished(Command(argv, user, environment or {}, seconds), _bytes(given), check)

    def script(
        self, text: str, *arguments: str, user: str | None = None, seconds: float = COMMAND_SECONDS, check: bool = True
    ) -> Finished:
        """See Machine.script. What it runs finds its standard input empty."""
        command, given = script_command(text, arguments, user, seconds)
        return self._finished(command, _bytes(given), check)

    def put(self, path: str, content: str | bytes, *, mode: int = 0o644, owner: str = "root") -> None:
        """See Machine.put. Where we are not root, what would be root's is ours. Raises SudoRefused for any other owner."""
        data = _bytes(content)
        argv = ("sh", "-euc", PUT, "put", path, str(len(data)), f"{mode:04o}", self._owner(owner))
        status, _, err = self._execute(Command(argv, None, {}, FILE_SECONDS), data)
        if status != 0:
            raise put_refused(self.name, path, status, err.text().strip())

    def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes | None:
        """See Machine.read. Without `limit` the whole file is held in memory. Raises CommandFailed for a directory."""
        if offset < 0 or (limit is not None and limit < 0):
            raise ValueError(f"offset and limit count bytes: {offset}, {limit}")
        words = ("sh", "-euc", READ, "read", path, str(offset + 1), "" if limit is None else str(limit))
        status, out, err = self._execute(Command(words, None, {}, FILE_SECONDS), b"", whole=True)
        if status == ABSENT and err.text().strip() == "absent":
            return None
        if status != 0 or err.text():
            raise CommandFailed(
                f"{self.name}: {path} cannot be read: {err.text().strip()}", status=status, said=err.text()
            )
        return out.data()

    def close(self) -> None:
        """There is no connection."""

    # --- running -------------------------------------------------------------------------------------------------------

    def _owner(self, owner: str) -> str:
        if os.geteuid() == 0:
            return owner if ":" in owner else f"{owner}:"
        if owner.split(":")[0] in ("root", getpass.getuser()):
            return f"{os.geteuid()}:{os.getegid()}"
        raise SudoRefused(f"{self.name}: a file of {owner} cannot be written by {getpass.getuser()}")

    def _finished(self, command: Command, given: bytes, check: bool) -> Finished:
        began = time.monotonic()
        status, out, err = self._execute(command, given)
        done = Finished(command.name, status, out.text(), err.text(), time.monotonic() - began)
        if check and not done.ok:
            raise CommandFailed(
                f"{self.name}: {done.command} ended with status {status}{last_line(done.err or done.out)}",
                status=status,
                said=done.err or done.out,
            )
        return done

    def _execute(self, command: Command, given: bytes, *, whole: bool = False) -> tuple[int, Marked, Marked]:
        """Run to the end. Raises CommandFailed when it is overdue or never began, SudoRefused for another user."""
        line = command.line()
        if command.user is not None and command.user != _ourselves():
            raise SudoRefused(
                f"{self.name}: nothing is done as {command.user} here", advice="log in as that user, and run lab there"
            )
        out, err = (Marked(command.token, whole=whole) for _ in range(2))
        began = time.monotonic()
        process = subprocess.Popen(
            ["/bin/sh", "-c", line],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=next(str(place) for place in (_home(), Path("/")) if os.access(place, os.X_OK)),
            start_new_session=True,
        )
        try:
            # It is ended by `timeout` in time; our own deadline is for a machine without one.
            overdue = not _attended(process, given, (out, err), began + command.seconds + KILL_AFTER + POLL)
        except BaseException:
            _end(process, err, signal.SIGINT)
            raise
        finally:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        status = process.wait() if not overdue else 0
        status = 128 - status if status < 0 else status
        if overdue or (status in _TIMED_OUT and time.monotonic() - err.since >= command.seconds - 0.5):
            _end(process, err, signal.SIGKILL)
            raise CommandFailed(
                f"{self.name}: {command.name} did not end within {command.seconds:g} s and was ended"
                f"{last_line(err.text() or out.text())}",
                said=err.text() or out.text(),
            )
        if err.begun is None:
            said = (err.text() or out.text()).strip() or f"status {status}"
            raise CommandFailed(f"{self.name}: its shell runs no commands: {said}", status=status, said=said)
        return status, out, err


def _bytes(given: str | bytes | None) -> bytes:
    return given.encode("utf-8", "surrogateescape") if isinstance(given, str) else given or b""


def _ourselves() -> str:
    return "root" if os.geteuid() == 0 else getpass.getuser()


def _home() -> Path:
    """The home directory; a user whose number nobody knows has none."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def _attended(process: subprocess.Popen[bytes], given: bytes, sinks: tuple[Marked, Marked], until: float) -> bool:
    """Feed a program and take what it prints until it has ended; False if it has not by `until` (monotonic).

    A child that it leaves behind may keep its output open for ever, so its end, not the output's, is what is waited for.
    """
    stdin, outputs = process.stdin, list(zip((process.stdout, process.stderr), sinks, strict=True))
    assert stdin is not None  # noqa: S101 -- a pipe
    rest = memoryview(given)
    with selectors.DefaultSelector() as selector:
        for pipe, sink in outputs:
            assert pipe is not None  # noqa: S101 -- a pipe
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, sink)
        os.set_blocking(stdin.fileno(), False)
        selector.register(stdin, selectors.EVENT_WRITE)
        while True:
            if process.poll() is not None:  # asked before reading: what it has said by then is read below
                until = min(until, time.monotonic() + LAST_WORDS)
            ended, left = process.returncode is not None, until - time.monotonic()
            ready = selector.select(0 if ended else max(0.0, min(POLL, left)))
            for key, _ in ready:
                if key.fileobj is stdin:
                    rest = _fed(stdin, rest)
                    over = not rest
                else:
                    over = not _taken(key.fd, key.data)
                if over:
                    selector.unregister(key.fileobj)
                if over and key.fileobj is stdin:
                    stdin.close()
            if ended and (left <= 0 or all(key.fileobj is stdin for key, _ in ready)):
                return True
            if left <= 0:
                return False
            if not ended and not selector.get_map():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(left)


def _fed(pipe: IO[bytes], rest: memoryview) -> memoryview:
    """What is still to be written; nothing where nobody reads any more."""
    try:
        return rest[os.write(pipe.fileno(), rest[:CHUNK]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return memoryview(b"")


def _taken(number: int, sink: Marked) -> bool:
    """Read what is there; False at the end of the stream."""
    try:
        data = os.read(number, CHUNK)
    except BlockingIOError:
        return True
    sink.write(data)
    return bool(data)


def _end(process: subprocess.Popen[bytes], err: Marked, first: signal.Signals) -> None:
    """End a program and all that is left of its group: `timeout` leads one, our shell leads the session."""
    for number in (first, signal.SIGKILL):
        for group in {err.begun or process.pid, process.pid}:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
