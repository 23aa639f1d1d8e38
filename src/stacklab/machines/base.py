"""A machine that runs commands and takes files: all that `deploy` and the shell steps know of where they work."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

COMMAND_SECONDS = 120
"""How long a command may take when its caller does not say."""


@dataclass(frozen=True)
class Finished:
    """A command that ended: `status` is its exit status (or 128 + the signal), `seconds` how long it took."""

    command: str
    status: int
    out: str
    err: str
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.status == 0

    @property
    def lines(self) -> list[str]:
        """What it printed, line by line."""
        return self.out.splitlines()


class Machine(Protocol):
    """A Linux machine. Arguments are lists and never meet a shell unquoted; secrets travel as `given`, never as arguments.

    Every method raises MachineUnreachable (no way there, or the connection was lost and could not be made again),
    HostKeyChanged, LoginRefused; those that act as root raise SudoRefused. A lost connection is made again by itself at the
    next call; a command that was under way when it was lost is not repeated, its caller decides.
    """

    name: str
    """What messages call it: `stack@192.0.2.7`."""

    def run(
        self,
        *argv: str,
        user: str | None = None,
        given: str | bytes | None = None,
        environment: Mapping[str, str] | None = None,
        seconds: float = COMMAND_SECONDS,
        check: bool = True,
    ) -> Finished:
        """Run a program and wait for its end.

        `user`: as whom ("root" or another account, through sudo without a password; None: whoever logged in). `given`: its
        standard input. Raises CommandFailed if `check` and its status is not 0, or if it takes longer than `seconds` (it is
        ended on the machine then).
        """

    def script(
        self, text: str, *arguments: str, user: str | None = None, seconds: float = COMMAND_SECONDS, check: bool = True
    ) -> Finished:
        """Run a shell script (`sh -eu`, fed through standard input, so its length and its quoting do not matter)."""

    def put(self, path: str, content: str | bytes, *, mode: int = 0o644, owner: str = "root") -> None:
        """Write a file as root, whole or not at all, its directory made if need be. Raises NotEnoughSpace."""

    def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes | None:
        """What is in a file (as root) from `offset` on; None if there is no such file."""

    def close(self) -> None:
        """Give the connection up. The next call makes a new one."""


def shown(argv: tuple[str, ...] | list[str]) -> str:
    """A command as a person would type it."""
    return shlex.join(argv)
