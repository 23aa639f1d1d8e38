"""A machine that SSH reaches, over a connection of Fabric's; what others do there (forwards, logins) takes the system's ssh."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stacklab.errors import (
    CommandFailed,
    LabError,
    LoginRefused,
    MachineUnreachable,
    SudoRefused,
)
from stacklab.machines.address import Address, ssh_program
from stacklab.machines.base import KILL_AFTER, Command, Machine, last_line
from stacklab.machines.remote import Marked, line_for, new_token
from stacklab.waiting import NotYet, until

if TYPE_CHECKING:
    from stacklab.machines.ssh_connection import SshConnection

Progress = Callable[[str], None]

CONNECT_SECONDS = 30.0
PULSE_SECONDS = 15.0
PATIENCE_SECONDS = 45.0
"""A connection over which nothing came for this long, though we asked, is given up."""
KILL_SECONDS = 15.0
"""How long ending a command on the machine may take, beyond the command's own time."""

_TIMED_OUT = (124, 128 + 9)
"""What `timeout` exits with: 124 after SIGTERM, killed itself after SIGKILL (timeout(1))."""

# For the system's ssh: nothing of the user's configuration that would ask a person or run something beside.
_OPTIONS = {
    "BatchMode": "yes", "GlobalKnownHostsFile": "/dev/null", "HashKnownHosts": "no", "UpdateHostKeys": "no",
    "CheckHostIP": "no", "VerifyHostKeyDNS": "no", "ClearAllForwardings": "yes", "ForwardAgent": "no", "ForwardX11": "no",
    "RequestTTY": "no", "EscapeChar": "none", "RemoteCommand": "none", "PermitLocalCommand": "no", "ControlMaster": "no",
    "ControlPath": "none",
}  # fmt: skip


class SshMachine(Machine):
    """A machine at this address.

    `known_hosts`: the file of the lab's own in which host keys are pinned; on first contact a key is pinned and `say` is told,
    after that another one is refused. `key`: a private key file; without it the agent and the keys that the user's
    configuration or ssh itself names are tried. `connect`, `pulse`, `patience` (seconds): for TCP, handshake and login, each;
    between two questions for a sign of life; until silence means that the connection is lost. May be used by several threads.
    """

    def __init__(
        self,
        address: Address,
        *,
        known_hosts: Path,
        key: Path | None = None,
        say: Progress = lambda _: None,
        connect: float = CONNECT_SECONDS,
        pulse: float = PULSE_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.address = address
        self.name = address.name
        self.known_hosts = known_hosts
        self._key = key
        self._say = say
        self._connect_seconds, self._pulse, self._patience = connect, pulse, patience
        self._lock = threading.Lock()
        self._connection: SshConnection | None = None

    # --- the connection --------------------------------------------------------------------------------------------

    def connect(self) -> SshConnection:
        """The connection, made if need be. Raises MachineUnreachable, HostKeyChanged, LoginRefused."""
        from stacklab.machines.ssh_connection import connect

        address = self.address
        with self._lock:
            if self._connection is None or not self._connection.alive:
                if self._connection is not None:
                    self._connection.close()
                self._connection = connect(
                    address,
                    self.known_hosts,
                    key=self._key,
                    proxy=address.expanded(
                        self._through(address.jump) if address.jump else address.setting("proxycommand")
                    ),
                    say=self._say,
                    seconds=self._connect_seconds,
                    pulse=self._pulse,
                    patience=self._patience,
                )
            return self._connection

    def close(self) -> None:
        """Give the connection up (before the machine is reverted or stopped, say). The next call makes a new one."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def pinned(self) -> list[str]:
        """The host keys that are trusted, a line on each: kind and fingerprint."""
        from paramiko import HostKeys

        keys = HostKeys(str(self.known_hosts)).lookup(self.address.known_as) if self.known_hosts.exists() else None
        return [f"{key.get_name()} {key.fingerprint}" for key in (keys or {}).values()]

    def forget_host_key(self) -> None:
        """Close the connection and trust no host key of this machine any more."""
        self.close()
        if self.known_hosts.exists():
            argv = ["ssh-keygen", "-q", "-R", self.address.known_as, "-f", str(self.known_hosts)]
            subprocess.run(argv, check=True, capture_output=True)

    def ssh_argv(self, *command: str) -> list[str]:
        """The command that does the same by hand: the same key, and the host key must be pinned already.

        `command`: words to run there (quoted here); none: an interactive login.
        """
        words = [shlex.join(command)] if command else []
        return [ssh_program(), *self._options(self.address, "yes"), *self._to(self.address), *words]

    def proxy_command(self) -> str:
        """What ssh's ProxyCommand is to be for reaching `%h`, port `%p`, through this machine."""
        return self._through(self.address)

    def _options(self, address: Address, unknown: str) -> list[str]:
        """For the system's ssh. `unknown`: a host key must be pinned ("yes"), or is at first contact ("accept-new")."""
        options = {
            # In quotes: ssh splits this value at spaces.
            "UserKnownHostsFile": f'"{str(self.known_hosts).replace("%", "%%")}"',
            "HostKeyAlias": address.known_as,
            "StrictHostKeyChecking": unknown,
            "ServerAliveInterval": f"{max(1, round(self._pulse))}",
            "ServerAliveCountMax": f"{max(1, round(self._patience / self._pulse))}",
            "ConnectTimeout": f"{max(1, round(self._connect_seconds))}",
            "LogLevel": "ERROR",
            **_OPTIONS,
        }
        if self._key is not None:
            options["IdentitiesOnly"] = "yes"
        if address.jump is not None:
            options["ProxyCommand"] = self._through(address.jump)
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return [*words, *(["-i", str(self._key)] if self._key else [])]

    def _to(self, address: Address) -> list[str]:
        return [*address.arguments[:-1], "--", address.arguments[-1]]

    def _through(self, address: Address) -> str:
        """A jump's host key is pinned at first contact by ssh itself, in the same file."""
        *options, target = self._to(address)
        fixed = shlex.join([ssh_program(), *self._options(address, "accept-new"), *options[:-1]])
        return f"{fixed.replace('%', '%%')} -W '[%h]:%p' -- {shlex.quote(target).replace('%', '%%')}"

    # --- running ---------------------------------------------------------------------------------------------------

    def _execute(self, command: Command, given: bytes, *, whole: bool = False) -> tuple[int, Marked, Marked]:
        token = new_token()
        line = line_for(command, token)
        out, err = Marked(token, whole=whole), Marked(token, whole=whole)
        # The machine ends it by itself; our own deadline is for one that cannot.
        seconds = command.seconds + KILL_AFTER + KILL_SECONDS / 2
        try:
            status = self._sent(line, command, given, out, err, seconds)
            late = status in _TIMED_OUT and time.monotonic() - err.since >= command.seconds - 0.5
        except TimeoutError:
            late = True
        except LabError:
            raise
        except BaseException:
            self._end(command, err, "INT")
            raise
        output = err.text() or out.text()
        if late:
            self._end(command, err, "KILL")  # what it started may have outlived it
            raise command.overdue(self.name, output)
        if err.begun is None:
            raise self._never_began(command, output.strip() or f"status {status}")
        if status is None:
            raise CommandFailed(
                f"{self.name}: {command.name} was ended there by something, its exit status is unknown{last_line(output)}",
                said=output,
            )
        return status, out, err

    def _sent(self, line: str, command: Command, given: bytes, out: Marked, err: Marked, seconds: float) -> int | None:
        """The command's status (None: it told none). Raises TimeoutError if `seconds` passed before its end."""
        from stacklab.machines.ssh_connection import ConnectionLost

        for again in (True, False):
            try:
                return self.connect().run(line, given, out, err, seconds)
            except ConnectionLost as lost:
                if lost.begun:
                    raise MachineUnreachable(
                        f"the connection to {self.name} was lost while it ran {command.name}: {lost}",
                        advice="is the machine still up? The same command connects again",
                    ) from lost
                # A connection that was found dead before anything was sent over it is simply made again.
                if not again:
                    raise MachineUnreachable(
                        f"{self.name} takes no command: {lost}", advice="is the machine still up?"
                    ) from lost
        raise AssertionError

    def _end(self, command: Command, err: Marked, number: str) -> None:
        """Send a signal to all that is left of a command, as far as that can be done."""
        if err.begun is None:
            return
        kill = 'kill -s "$1" -- "-$2" 2>/dev/null || kill -s "$1" "$2" 2>/dev/null'
        with contextlib.suppress(LabError):  # without a connection, the machine's own `timeout` has to do it
            words = ("sh", "-c", kill, "kill", number, str(err.begun))
            self.run(*words, user=command.user, seconds=KILL_SECONDS, check=False)

    # --- what went wrong -------------------------------------------------------------------------------------------

    def _never_began(self, command: Command, output: str) -> LabError:
        if command.user is not None:
            return SudoRefused(
                f"{self.name} cannot run commands as {command.user}: {output}",
                advice=f"on the machine, a file in /etc/sudoers.d with the line '{self.address.user} ALL=(ALL) NOPASSWD: ALL' "
                "allows it (and the package sudo must be there); or log in as root",
            )
        return LoginRefused(
            f"{self.name} lets us in, but its shell runs no commands: {output}",
            advice="give the account an ordinary shell such as /bin/bash",
        )


def wait_for_ssh(machine: Machine, seconds: float, progress: Progress) -> None:
    """Wait until a machine runs commands over SSH. Raises MachineUnreachable when `seconds` are over."""

    def look() -> bool | NotYet:
        try:
            return machine.run("true", seconds=30).ok
        except (MachineUnreachable, CommandFailed) as error:
            machine.close()
            return NotYet(error.message)

    until(
        look,
        f"SSH with {machine.name}",
        seconds=seconds,
        every=1.0,
        progress=progress,
        advice="the machine's console may say why",
        error=MachineUnreachable,
    )
