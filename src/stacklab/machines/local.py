"""This machine, as the same `Machine` that a machine at the other end of SSH is."""

from __future__ import annotations

import getpass
import os
import signal
from pathlib import Path

from stacklab.errors import SudoRefused
from stacklab.machines.base import KILL_AFTER, SBIN, Command, Machine
from stacklab.machines.output import ChildProcess, Output


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
        try:
            child = ChildProcess(list(command.argv), out, err, env=environment, cwd=_home())
        except OSError as error:  # as a shell says it
            missing = isinstance(error, FileNotFoundError)
            err.write(
                f"{command.argv[0]}: {'not found' if missing else error.strerror}\n".encode("utf-8", "surrogateescape")
            )
            return 127 if missing else 126, out, err
        try:
            status = child.attend(given, command.seconds)
        except BaseException:
            child.end(signal.SIGINT)
            raise
        if status is None:
            child.end(grace=KILL_AFTER)
            raise command.overdue(self.name, err.text() or out.text())
        return 128 - status if status < 0 else status, out, err


def _home() -> str:
    """Where programs run: the home directory; a user whose number nobody knows has none."""
    try:
        home = Path.home()
    except RuntimeError:
        return "/"
    return str(home) if os.access(home, os.X_OK) else "/"
