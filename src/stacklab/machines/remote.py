"""The command line that sshd is given: whom it runs as, for how long, in which environment, and how we know it began.

sshd hands one string to the account's shell, which must be a POSIX one (bash, dash, zsh, ksh). Nothing but fixed text and
quoted words stands in it. On the machine two small programs of `sh` run one inside the other: the outer becomes the asked-for
user and turns a death by signal into 128 + the signal (paramiko drops "exit-signal", so the number would be lost); the inner,
already that user, says that it began, sets the environment and has `timeout` (coreutils) end it in time, with or without us.
"""

from __future__ import annotations

import re
import secrets
import shlex
import time

from stacklab.machines.base import KILL_AFTER, SBIN, Command, Output

# What the outer one's shell says of a death by signal ("Killed") goes nowhere. One line each, without '!', so that more shells
# than the POSIX ones get them through their quotes unharmed.
_OUTER = (
    "user=$1; shift; exec 3>&2 2>/dev/null; me=$(id -u); "
    'if [ -n "$user" ] && [ "$(id -u -- "$user" || echo -1)" -ne "$me" ]; then '
    'if [ "$me" = 0 ] && command -v runuser >/dev/null; then set -- runuser -u "$user" -- "$@"; '
    'else set -- sudo -n -H -u "$user" -- "$@"; fi; fi; '
    '(exec "$@" 2>&3 3>&-); exit $?'
)
_INNER = (
    'printf "%s %s\\n" "$1" "$$"; printf "%s %s\\n" "$1" "$$" >&2; seconds=$2; user=$3; count=$4; shift 4; '
    'if [ -n "$user" ]; then HOME=$(getent passwd -- "$user" | cut -d: -f6); USER=$user; LOGNAME=$user; '
    "export HOME USER LOGNAME; cd 2>/dev/null || cd /; fi; "
    f"PATH=${{PATH:-/usr/bin:/bin}}:{SBIN}; export PATH; "
    'while [ "$count" -gt 0 ]; do export "$1"; shift; count=$((count - 1)); done; '
    f'exec timeout -k {KILL_AFTER} "$seconds" "$@"'
)


def new_token() -> str:
    """What the inner program says first, on both streams, with its process id: a line that nothing else can have printed."""
    return f"lab-{secrets.token_hex(8)}"


def line_for(command: Command, token: str) -> str:
    """The string for sshd. Its environment travels in it, because sshd takes no variable that its AcceptEnv does not name."""
    seconds = f"{max(command.seconds, 0.01):g}"  # for timeout(1), 0 means no end at all
    user, variables = command.user or "", command.variables
    inner = ["/bin/sh", "-c", _INNER, "lab", token, seconds, user, str(len(variables)), *variables, *command.argv]
    return "exec " + shlex.join(["/bin/sh", "-c", _OUTER, "lab", user, *inner])


class Marked(Output):
    """A stream of such a command line's, without what the login shell printed before the program.

    `begun`: the process id that the program began with, None before that; `since`: when it began.
    """

    def __init__(self, token: str, *, whole: bool = False) -> None:
        super().__init__(whole=whole)
        self.begun: int | None = None
        self.since = 0.0
        self._begin = re.compile(rf"{token} (\d+)\n".encode())
        self._before = bytearray()

    def write(self, data: bytes) -> None:
        """Take some bytes."""
        if self.begun is not None:
            super().write(data)
            return
        self._before += data
        if begin := self._begin.search(self._before):
            self.begun, self.since = int(begin[1]), time.monotonic()
            super().write(bytes(self._before[begin.end() :]))
            self._before.clear()

    def data(self) -> bytes:
        """What was printed; by the login shell, where the program did not begin."""
        return super().data() + bytes(self._before)
