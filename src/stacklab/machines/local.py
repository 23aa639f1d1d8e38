"""This machine, as the same `Machine` that a machine at the other end of SSH is."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from stacklab.errors import SudoRefused
from stacklab.machines.base import KILL_AFTER, SBIN, Command, Machine, Output

LAST_WORDS = 1.0
"""Seconds for reading what a program has left in its pipes."""


class LocalMachine(Machine):
    """Nothing is ever done as anybody but the user who runs us: where we are not root, what would be root's is ours."""

    name = "this machine"

    def _root(self) -> str | None:
        return None

    def _owner(self, owner: str) -> str:
        if os.geteuid() == 0:
            return super()._owner(owner)
        if owner.split(":")[0] in ("root", getpass.getuser()):
            return f"{os.geteuid()}:{os.getegid()}"
        raise SudoRefused(f"{self.name}: a file of {owner} cannot be written by {getpass.getuser()}")

    def _execute(self, command: Command, given: bytes, *, whole: bool = False) -> tuple[int, Output, Output]:
        if command.user is not None and command.user != ("root" if os.geteuid() == 0 else getpass.getuser()):
            raise SudoRefused(
                f"{self.name}: nothing is done as {command.user} here", advice="log in as that user, and run lab there"
            )
        out, err = Output(whole=whole), Output(whole=whole)
        path = f"{os.environ.get('PATH', '/usr/bin:/bin')}:{SBIN}"
        environment = {**os.environ, "PATH": path, **command.environment}
        pipe = subprocess.PIPE
        try:
            # In a session of its own, so that Ctrl-C is ours to pass on.
            process = subprocess.Popen(
                command.argv, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd=_home(), bufsize=0,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:  # as a shell says it
            missing = isinstance(error, FileNotFoundError)
            err.write(f"{command.argv[0]}: {'not found' if missing else error.strerror}\n".encode())
            return 127 if missing else 126, out, err
        stdin, stdout, stderr = cast(tuple[IO[bytes], ...], (process.stdin, process.stdout, process.stderr))
        readers = [_beside(out.fill, stdout.read), _beside(err.fill, stderr.read)]
        _beside(_feed, stdin, given)
        try:
            status = process.wait(command.seconds)
        except subprocess.TimeoutExpired as error:
            _end(process)
            raise command.overdue(self.name, err.text() or out.text()) from error
        except BaseException:
            _end(process, signal.SIGINT)
            raise
        # Its own last words are there; what a child that it left behind goes on printing is not its output.
        for reader in readers:
            reader.join(LAST_WORDS)
        return 128 - status if status < 0 else status, out, err


def _beside(target: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _feed(pipe: IO[bytes], given: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), pipe:  # nobody has to read it
        rest = memoryview(given)
        while rest:
            rest = rest[pipe.write(rest) :]


def _end(process: subprocess.Popen[bytes], first: signal.Signals = signal.SIGTERM) -> None:
    """End it and all that is left of its group."""
    for number in (first, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_AFTER)


def _home() -> str:
    """Where programs run: the home directory; a user whose number nobody knows has none."""
    try:
        home = Path.home()
    except RuntimeError:
        return "/"
    return str(home) if os.access(home, os.X_OK) else "/"
