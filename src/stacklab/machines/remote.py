"""The command line that sshd is given: whom it runs as, for how long, in which environment, and how we know it began.

sshd hands one string to the account's shell, which must be a POSIX one (bash, dash, zsh, ksh). Nothing but fixed text and
quoted words stands in it. On the machine two small programs of `sh` run one inside the other: the outer becomes the asked-for
user and turns a death by signal into 128 + the signal (paramiko drops "exit-signal", so the number would be lost); the
inner, already that user, says that it began, sets the environment and has `timeout` (coreutils) end it in time, with or
without us.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from stacklab.errors import CommandFailed, LabError, NotEnoughSpace
from stacklab.machines.base import shown

KILL_AFTER = 5
"""Seconds between SIGTERM and SIGKILL for a command that took too long."""
LONGEST = 120_000
"""Bytes of a command line; Linux takes 128 KiB (MAX_ARG_STRLEN) for the one string that the account's shell is given."""

# The outer one stays, for the status; what it says of a death by signal ("Killed") goes nowhere. One line each, without '!',
# so that more shells than the POSIX ones get them through their quotes unharmed.
_OUTER = (
    "user=$1; shift; exec 3>&2 2>/dev/null; me=$(id -u); "
    'if [ -n "$user" ] && [ "$(id -u -- "$user" || echo -1)" -ne "$me" ]; then '
    'if [ "$me" = 0 ] && command -v runuser >/dev/null; then set -- runuser -u "$user" -- "$@"; '
    'else set -- sudo -n -H -u "$user" -- "$@"; fi; fi; '
    '(exec "$@" 2>&3 3>&-); exit $?'
)
_INNER = (
    'printf "%s %s\\n" "$1" "$$"; printf "%s %s\\n" "$1" "$$" >&2; seconds=$2; user=$3; count=$4; shift 4; '
    'if [ -n "$user" ]; then eval "HOME=~$user"; USER=$user; LOGNAME=$user; export HOME USER LOGNAME; '
    "cd 2>/dev/null || cd /; fi; "
    "PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/local/sbin:/usr/sbin:/sbin; export PATH; "
    'while [ "$count" -gt 0 ]; do export "$1"; shift; count=$((count - 1)); done; '
    f'if command -v timeout >/dev/null; then exec timeout -k {KILL_AFTER} "$seconds" "$@"; fi; '
    'if command -v setsid >/dev/null; then exec setsid "$@"; fi; exec "$@"'
)

# Read whole before it begins: half a script is not half the work, and what it runs must not eat the rest of it.
SCRIPT = (
    "lab_end=$1; shift; lab_script=$(cat); "
    'case $lab_script in *"$lab_end") ;; *) echo "the script did not arrive whole" >&2; exit 1 ;; esac; '
    'exec </dev/null; eval "${lab_script%"$lab_end"}"'
)
"""For `sh -euc`: the script's last line, then its own arguments; the script itself is standard input."""

PUT = """
path=$1 size=$2 mode=$3 owner=$4
directory=$(dirname -- "$path")
LC_ALL=C; export LC_ALL
if [ -d "$path" ]; then echo "$path is a directory" >&2; exit 1; fi
umask 022
mkdir -p -- "$directory"
umask 077
new=$(mktemp -- "$directory/.lab-XXXXXXXXXX")
trap 'rm -f -- "$new"' EXIT
trap 'exit 143' HUP INT PIPE TERM
cat >"$new"
here=$(wc -c <"$new")
# A lost connection looks like the end of the input.
if [ "$here" -ne "$size" ]; then echo "only $here of $size bytes arrived" >&2; exit 1; fi
chown -- "$owner" "$new"
chmod -- "$mode" "$new"
mv -f -- "$new" "$path"
# A file keeps the SELinux type of its temporary name's directory; policy may want another one for its own name.
if command -v restorecon >/dev/null; then restorecon -- "$path" || :; fi
"""
"""For `sh -euc`: path, size in bytes, mode, owner; the content is standard input."""

READ = """
path=$1 start=$2 limit=$3
if [ ! -e "$path" ]; then echo absent >&2; exit 44; fi
if [ -d "$path" ]; then echo "$path is a directory" >&2; exit 1; fi
if [ -z "$limit" ]; then exec tail -c "+$start" -- "$path"; fi
tail -c "+$start" -- "$path" | head -c "$limit"
"""
"""For `sh -euc`: path, first byte (from 1), how many bytes (nothing: all). Exits with ABSENT where there is no such file."""
ABSENT = 44

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Command:
    """A program to run on a machine. `user` None: as whoever logged in.

    The environment travels in the command line, because sshd takes no variable that its AcceptEnv does not name: anybody on the
    machine can see it (`ps`), so no secret belongs there.
    """

    argv: tuple[str, ...]
    user: str | None
    environment: Mapping[str, str]
    seconds: float
    called: str = ""
    """What messages call it; nothing: its words."""
    token: str = field(default_factory=lambda: f"lab-{secrets.token_hex(8)}")
    """What the inner program says first, on both streams, with its process id: a line that nothing else can have printed."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.called or brief(self.argv)

    def line(self) -> str:
        """The string for sshd. Raises CommandFailed for words that no program can be given."""
        if not self.argv:
            raise CommandFailed("there is no command to run")
        if not self.seconds > 0:  # for `timeout`, 0 means no end at all
            raise CommandFailed(f"no time is left to run {self.name} ({self.seconds:g} s)")
        if self.user is not None and not _USER.fullmatch(self.user):
            raise CommandFailed(f"{self.user!r} cannot be a user's name on a Linux machine")
        for name in self.environment:
            if not _VARIABLE.fullmatch(name):
                raise CommandFailed(f"{name!r} cannot be the name of an environment variable")
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        if any("\0" in word for word in (*self.argv, *variables)):
            raise CommandFailed(f"a word of this command holds a NUL byte, which no program can be given: {self.name}")
        seconds = f"{self.seconds:.3f}".rstrip("0").rstrip(".")  # whole where it is: busybox takes nothing else
        inner = ["/bin/sh", "-c", _INNER, "lab", self.token, seconds, self.user or "", str(len(variables))]
        line = "exec " + shlex.join(["/bin/sh", "-c", _OUTER, "lab", self.user or "", *inner, *variables, *self.argv])
        if len(line.encode("utf-8", "surrogateescape")) > LONGEST:
            raise CommandFailed(
                f"the command is longer than a machine takes ({LONGEST} bytes): {self.name}",
                advice="long text goes through standard input (given=…) or into a file (put)",
            )
        return line


def script_command(text: str, arguments: tuple[str, ...], user: str | None, seconds: float) -> tuple[Command, str]:
    """A shell script as a command, and what its standard input has to be."""
    end = f"# lab-{secrets.token_hex(8)}"
    argv = ("sh", "-euc", SCRIPT, "script", end, *arguments)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    called = f"the script that begins with: {lines[0][:80]}" if lines else "an empty script"
    return Command(argv, user, {}, seconds, called), f"{text}\n{end}"


def last_line(said: str) -> str:
    """The last line of what a program said, for the end of a message."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f": {lines[-1][:300]}" if lines else ""


def put_refused(name: str, path: str, status: int, said: str) -> LabError:
    """Why a file could not be put onto the machine `name`, from how PUT ended and what it said."""
    if any(words in said for words in ("No space left on device", "Disk quota exceeded")):
        return NotEnoughSpace(f"{name}: no space left to write {path}", advice="free some space on the machine")
    return CommandFailed(f"{name}: {path} could not be written{last_line(said)}", status=status, said=said)


def brief(argv: tuple[str, ...]) -> str:
    """A command for a message: on one line, and not for ever."""
    text = " ".join(shown(argv).split())
    return text if len(text) <= 100 else f"{text[:97]}…"
