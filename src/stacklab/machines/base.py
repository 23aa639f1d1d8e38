"""A machine that runs commands and takes files: all that `deploy` and the shell steps know of where they work."""

from __future__ import annotations

import re
import secrets
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from stacklab.errors import CommandFailed, LabError, NotEnoughSpace
from stacklab.machines.output import Output

COMMAND_SECONDS = 120
"""How long a command may take when its caller does not say."""
FILE_SECONDS = 600.0
KILL_AFTER = 5
"""Seconds between SIGTERM and SIGKILL for a command that took too long."""
SBIN = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/sbin"
"""Programs find these on their PATH, too."""
LONGEST = 120_000
"""Bytes of a command line; Linux takes 128 KiB (MAX_ARG_STRLEN) for one string, and sshd hands on everything as one."""

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Read whole before it begins: half a script is not half the work, and what it runs must not eat the rest of it.
_SCRIPT = (
    "lab_end=$1; shift; lab_script=$(cat); "
    'case $lab_script in *"$lab_end") ;; *) echo "the script did not arrive whole" >&2; exit 1 ;; esac; '
    'exec </dev/null; eval "${lab_script%"$lab_end"}"'
)

# Path, size in bytes, mode and owner (both empty: as those of the file that is there); the content is standard input. Another
# name first, then the right one: whoever reads, and whatever happens, sees the old file or the new one, never a half.
_PUT = """
path=$1 size=$2 mode=$3 owner=$4
LC_ALL=C; export LC_ALL
if [ -d "$path" ]; then echo "$path is a directory" >&2; exit 1; fi
if [ -z "$mode" ]; then path=$(readlink -e -- "$path") || { echo "there is no file $1" >&2; exit 1; }; fi
directory=$(dirname -- "$path")
umask 022
mkdir -p -- "$directory"
umask 077
new=$(mktemp -- "$directory/.lab-XXXXXXXXXX")
trap 'rm -f -- "$new"' EXIT
trap 'exit 143' HUP INT PIPE TERM
[ -n "$mode" ] || cp --attributes-only --preserve=all -- "$path" "$new"
cat >"$new"
here=$(wc -c <"$new")
# A lost connection looks like the end of the input.
if [ "$here" -ne "$size" ]; then echo "only $here of $size bytes arrived" >&2; exit 1; fi
if [ -n "$mode" ]; then chown -- "$owner" "$new"; chmod -- "$mode" "$new"; fi
mv -f -- "$new" "$path"
# A file keeps the SELinux type of its temporary name's directory; policy may want another one for its own name.
if [ -n "$mode" ] && command -v restorecon >/dev/null; then restorecon -- "$path" || :; fi
"""

# Path, first byte (from 1), how many bytes (nothing: all).
_READ = """
path=$1 start=$2 limit=$3
if [ ! -e "$path" ]; then echo absent >&2; exit 44; fi
if [ -d "$path" ]; then echo "$path is a directory" >&2; exit 1; fi
if [ -z "$limit" ]; then exec tail -c "+$start" -- "$path"; fi
tail -c "+$start" -- "$path" | head -c "$limit"
"""
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

    def examine(self) -> None:
        """Raises CommandFailed for words that no program on a machine can be given."""
        if not self.argv:
            raise CommandFailed("there is no command to run")
        if not self.seconds > 0:  # for timeout(1), 0 means no end at all
            raise CommandFailed(f"no time is left to run {self.name} ({self.seconds:g} s)")
        if self.user is not None and not _USER.fullmatch(self.user):
            raise CommandFailed(f"{self.user!r} cannot be a user's name on a Linux machine")
        for name in self.environment:
            if not _VARIABLE.fullmatch(name):
                raise CommandFailed(f"{name!r} cannot be the name of an environment variable")
        words = [*self.argv, *self.variables]
        if any("\0" in word for word in words):
            raise CommandFailed(f"a word of this command holds a NUL byte, which no program can be given: {self.name}")
        if len(shlex.join(words).encode("utf-8", "surrogateescape")) > LONGEST:
            raise CommandFailed(
                f"the command is longer than a machine takes ({LONGEST} bytes): {self.name}",
                advice="long text goes through standard input (given=…) or into a file (put)",
            )

    def overdue(self, machine: str, output: str) -> CommandFailed:
        """The error where it did not end in time."""
        return CommandFailed(
            f"{machine}: {self.name} did not end within {self.seconds:g} s and was ended{last_line(output)}",
            said=output,
        )


class Machine(ABC):
    """A Linux machine. Arguments are lists and never meet a shell unquoted; secrets travel as `given`, never as arguments.

    Programs run in the account's home directory, with the sbin directories on PATH; of each stream of their output the
    beginning and the end are kept (`output.LIMIT`), text is decoded as UTF-8, what is none is replaced. Their environment is
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
        if offset < 0 or (limit is not None and limit < 0):
            raise ValueError(f"offset and limit count bytes: {offset}, {limit}")
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
        if status != 0:
            raise self._not_written(path, status, err.text().strip())

    def _not_written(self, path: str, status: int, errors: str) -> LabError:
        if any(words in errors for words in ("No space left on device", "Disk quota exceeded")):
            return NotEnoughSpace(
                f"{self.name}: no space left to write {path}", advice="free some space on the machine"
            )
        message = f"{self.name}: {path} could not be written{last_line(errors)}"
        return CommandFailed(message, status=status, said=errors)

    def _finished(self, command: Command, given: str | bytes | None, check: bool) -> Finished:
        began = time.monotonic()
        command.examine()
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
