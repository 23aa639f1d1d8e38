"""A machine that runs commands and takes files: all that `deploy` and the shell steps know of where they work."""

from __future__ import annotations

import secrets
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stacklab.errors import CommandFailed, NotEnoughSpace

COMMAND_SECONDS = 120
"""How long a command may take when its caller does not say."""
FILE_SECONDS = 600.0
KILL_AFTER = 5
"""Seconds between SIGTERM and SIGKILL for a command that took too long."""
SBIN = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/sbin"
"""Programs find these on their PATH, too."""
CHUNK = 1 << 16
LIMIT = 16 * 1024 * 1024
"""Bytes that are kept of one stream: the first and the last half of it, with a line between that says how much is missing."""

# Read whole before it begins: half a script is not half the work, and what it runs must not eat the rest of it.
_SCRIPT = (
    "lab_end=$1; shift; lab_script=$(cat); "
    'case $lab_script in *"$lab_end") ;; *) echo "the script did not arrive whole" >&2; exit 1 ;; esac; '
    'exec </dev/null; eval "${lab_script%"$lab_end"}"'
)

_PUT, _READ = ((Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("put.sh", "read.sh"))
_ABSENT = 44


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


class Output:
    """One stream of a program's. `whole`: nothing is left out."""

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def write(self, data: bytes) -> None:
        """Take some bytes."""
        room = len(data) if self._whole else max(0, LIMIT // 2 - len(self._head))
        self._head += data[:room]
        self._tail += data[room:]
        surplus = len(self._tail) - LIMIT // 2
        if surplus > LIMIT // 8:  # now and then, so that cutting costs little
            del self._tail[:surplus]
            self._left_out += surplus

    def fill(self, read: Callable[[int], bytes]) -> None:
        """Take what `read` gives, to its end."""
        while data := read(CHUNK):
            self.write(data)

    def data(self) -> bytes:
        """What was printed."""
        missing = f"\n[… {self._left_out} bytes left out …]\n".encode() if self._left_out else b""
        return bytes(self._head) + missing + bytes(self._tail)

    def text(self) -> str:
        """What was printed, as UTF-8; what is none is replaced."""
        return self.data().decode("utf-8", "replace")


@dataclass(frozen=True)
class Command:
    """A program to run on a machine; see `Machine.run`. `called`: what messages call it; nothing: its words."""

    argv: tuple[str, ...]
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = COMMAND_SECONDS
    called: str = ""

    @property
    def name(self) -> str:
        """What messages call it: on one line, and not for ever."""
        text = self.called or " ".join(shown(self.argv).split())
        return text if len(text) <= 120 else f"{text[:117]}…"

    @property
    def variables(self) -> list[str]:
        """Its environment, as env(1) takes it."""
        return [f"{name}={value}" for name, value in self.environment.items()]

    def overdue(self, machine: str, output: str) -> CommandFailed:
        """The error where it did not end in time."""
        return CommandFailed(
            f"{machine}: {self.name} did not end within {self.seconds:g} s and was ended{last_line(output)}",
            said=output,
        )


class Machine(ABC):
    """A Linux machine. Arguments are lists and never meet a shell unquoted; secrets travel as `given`, never as arguments.

    Programs run in the account's home directory, with the sbin directories on PATH; of each stream of their output the
    beginning and the end are kept (`LIMIT`), text is decoded as UTF-8, what is none is replaced. Their environment is
    visible to everybody on the machine, and sudo logs it. Every method raises MachineUnreachable (no way there, or the
    connection was lost and could not be made again), HostKeyChanged, LoginRefused; those that act as root raise SudoRefused.
    A lost connection is made again by itself at the next call; a command that was under way when it was lost is not
    repeated, its caller decides.
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
        return self._finished(Command(argv, user, environment or {}, seconds), given, check)

    def script(
        self, text: str, *arguments: str, user: str | None = None, seconds: float = COMMAND_SECONDS, check: bool = True
    ) -> Finished:
        """Run a shell script (`sh -eu`, fed through standard input, so its length and its quoting do not matter).

        What it runs finds its standard input empty. Half a script (a lost connection) is not run.
        """
        end = f"# lab-{secrets.token_hex(8)}"
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        called = f"the script that begins with: {lines[0][:80]}" if lines else "an empty script"
        command = Command(("sh", "-euc", _SCRIPT, "script", end, *arguments), user, {}, seconds, called)
        return self._finished(command, f"{text}\n{end}", check)

    def put(self, path: str, content: str | bytes, *, mode: int = 0o644, owner: str = "root") -> None:
        """Write a file as root, whole or not at all, its directory made if need be. A symbolic link is replaced.

        `owner`: `user` (with that account's group) or `user:group`. Raises NotEnoughSpace, CommandFailed.
        """
        self._put(path, content, f"{mode:04o}", self._owner(owner))

    def replace(self, path: str, content: str | bytes) -> None:
        """Give a file that is there another content, whole or not at all; owner, mode and SELinux label stay.

        A symbolic link stays one: what it leads to is replaced. Raises NotEnoughSpace, CommandFailed.
        """
        self._put(path, content, "", "")

    def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes | None:
        """What is in a file (as root) from `offset` on; None if there is no such file. Without `limit` all is held in memory.

        Raises CommandFailed for a directory.
        """
        words = ("sh", "-euc", _READ, "read", path, str(offset + 1), "" if limit is None else str(limit))
        status, out, err = self._execute(Command(words, self._root(), {}, FILE_SECONDS), b"", whole=True)
        if status == _ABSENT and err.text().strip() == "absent":
            return None
        # Only `head` tells how a pipe ended, so what `tail` printed is looked at, too.
        if status != 0 or err.text():
            raise CommandFailed(
                f"{self.name}: {path} cannot be read: {err.text().strip()}", status=status, said=err.text()
            )
        return out.data()

    def close(self) -> None:  # noqa: B027 -- not every machine has a connection
        """Give the connection up. The next call makes a new one."""

    # --- what the two kinds of machine do differently -------------------------------------------------------------------

    @abstractmethod
    def _execute(self, command: Command, given: bytes, *, whole: bool = False) -> tuple[int, Output, Output]:
        """Run to the end: status, output, errors. `whole`: nothing of them is left out. Raises CommandFailed, SudoRefused."""

    def _root(self) -> str | None:
        """As whom files are read and written."""
        return "root"

    def _owner(self, owner: str) -> str:
        """As chown takes it: "user:" means that account's group, too."""
        return owner if ":" in owner else f"{owner}:"

    def _put(self, path: str, content: str | bytes, mode: str, owner: str) -> None:
        data = _bytes(content)
        argv = ("sh", "-euc", _PUT, "put", path, str(len(data)), mode, owner)
        status, _, err = self._execute(Command(argv, self._root(), {}, FILE_SECONDS), data)
        errors = err.text().strip()
        if status and ("No space left on device" in errors or "Disk quota exceeded" in errors):
            raise NotEnoughSpace(f"{self.name}: no space left to write {path}", advice="free some space on the machine")
        if status:
            message = f"{self.name}: {path} could not be written{last_line(errors)}"
            raise CommandFailed(message, status=status, said=errors)

    def _finished(self, command: Command, given: str | bytes | None, check: bool) -> Finished:
        began = time.monotonic()
        status, out, err = self._execute(command, _bytes(given))
        done = Finished(command.name, status, out.text(), err.text(), time.monotonic() - began)
        if check and not done.ok:
            output = done.err or done.out
            message = f"{self.name}: {done.command} ended with status {status}{last_line(output)}"
            raise CommandFailed(message, status=status, said=output)
        return done


def shown(argv: tuple[str, ...] | list[str]) -> str:
    """A command as a person would type it."""
    return shlex.join(argv)


def last_line(output: str) -> str:
    """The last line of what a program printed, for the end of a message."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return f": {lines[-1][:300]}" if lines else ""


def _bytes(given: str | bytes | None) -> bytes:
    return given.encode("utf-8", "surrogateescape") if isinstance(given, str) else given or b""


def probe(machine: Machine, *argv: str, seconds: float = 60) -> Finished:
    """Look as root; any exit status is an answer. Raises CommandFailed where the machine has no such program."""
    done = machine.run(*argv, user="root", seconds=seconds, check=False)
    # sudo says it with status 1, a shell with 127.
    if done.status == 127 or (not done.ok and "command not found" in done.err):
        raise CommandFailed(f"the machine has no program '{argv[0]}'", status=done.status, said=done.err)
    return done
