"""A machine that SSH reaches, over a connection of Fabric's; what others do there (forwards, logins) takes the system's ssh."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stacklab.errors import (
    CommandFailed,
    HostKeyChanged,
    LabError,
    LoginRefused,
    MachineUnreachable,
    SudoRefused,
)
from stacklab.machines.address import Address, ssh_program
from stacklab.machines.base import KILL_AFTER, Command, Machine, last_line
from stacklab.machines.known_hosts import KnownHosts
from stacklab.machines.remote import Marked, line_for, new_token

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
        self.known_hosts = KnownHosts(known_hosts)
        self._key = key
        self._say = say
        self._connect_seconds, self._pulse, self._patience = connect, pulse, patience
        self._lock = threading.Lock()
        self._connection: SshConnection | None = None
        self._jump: SshMachine | None = None
        if address.jump is not None:
            self._jump = SshMachine(
                address.jump, known_hosts=known_hosts, key=key, say=say, connect=connect, pulse=pulse, patience=patience
            )

    def __repr__(self) -> str:
        return f"SshMachine({self.name})"

    # --- the connection --------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect now rather than at the first command. Raises MachineUnreachable, HostKeyChanged, LoginRefused."""
        self._connected()

    def close(self) -> None:
        """Give the connection up (before the machine is reverted or stopped, say). The next call makes a new one."""
        self._drop()
        if self._jump is not None:
            self._jump.close()

    def forget_host_key(self) -> bool:
        """Close the connection and trust no host key of this machine any more; says whether one was pinned."""
        self.close()
        return self.known_hosts.forget(self.address.known_as)

    def ssh_argv(self, *command: str) -> list[str]:
        """The command that does the same by hand: the same key, and the host key must be pinned already.

        `command`: words to run there (quoted here); none: an interactive login.
        """
        words = [shlex.join(command)] if command else []
        return [ssh_program(), *self._options(self.address), *self._to(self.address), *words]

    def proxy_command(self) -> str:
        """What ssh's ProxyCommand is to be for reaching `%h`, port `%p`, through this machine."""
        return self._through(self.address)

    def _connected(self) -> SshConnection:
        with self._lock:
            if self._connection is None or not self._connection.alive:
                if self._connection is not None:
                    self._connection.close()
                self._connection = self._new_connection()
            return self._connection

    def _new_connection(self) -> SshConnection:
        from stacklab.machines.ssh_connection import connect

        return connect(
            self.address,
            self.known_hosts,
            key=self._key,
            through=self._jump._tunnel if self._jump else None,
            say=self._say,
            seconds=self._connect_seconds,
            pulse=self._pulse,
            patience=self._patience,
        )

    def _tunnel(self, host: str, port: int) -> Any:
        """A channel to `host:port` as this machine sees it, to be used like a socket. Raises MachineUnreachable."""
        return self._connected().tunnel(host, port)

    def _drop(self, connection: SshConnection | None = None) -> None:
        """Close the connection, if it is this one."""
        with self._lock:
            if self._connection is not None and connection in (None, self._connection):
                self._connection.close()
                self._connection = None

    def _options(self, address: Address) -> list[str]:
        """For the system's ssh; the host key must be pinned."""
        options = {
            # In quotes: ssh splits this value at spaces.
            "UserKnownHostsFile": f'"{str(self.known_hosts.path).replace("%", "%%")}"',
            "HostKeyAlias": address.known_as,
            "StrictHostKeyChecking": "yes",
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
        *options, target = self._to(address)
        fixed = shlex.join([ssh_program(), *self._options(address), *options[:-1]])
        return f"{fixed.replace('%', '%%')} -W '[%h]:%p' -- {shlex.quote(target).replace('%', '%%')}"

    # --- running ---------------------------------------------------------------------------------------------------

    def _execute(self, command: Command, given: bytes, *, whole: bool = False) -> tuple[int, Marked, Marked]:
        token = new_token()
        line = line_for(command, token)
        out, err = Marked(token, whole=whole), Marked(token, whole=whole)
        # The machine ends it by itself; our own deadline is for one that cannot.
        seconds = command.seconds + KILL_AFTER + KILL_SECONDS / 2
        try:
            status, overdue = self._sent(line, command, given, out, err, seconds)
        except LabError:
            raise
        except BaseException:
            self._end(command, err, "INT")
            raise
        output = err.text() or out.text()
        if overdue or (status in _TIMED_OUT and time.monotonic() - err.since >= command.seconds - 0.5):
            self._end(command, err, "KILL")
            raise command.overdue(self.name, output)
        if err.begun is None:
            raise self._never_began(command, output.strip() or f"status {status}")
        if status is None:
            raise CommandFailed(
                f"{self.name}: {command.name} was ended there by something, its exit status is unknown{last_line(output)}",
                said=output,
            )
        return status, out, err

    def _sent(
        self, line: str, command: Command, given: bytes, out: Marked, err: Marked, seconds: float
    ) -> tuple[int | None, bool]:
        """The command's status (None: it told none) and whether `seconds` passed before its end."""
        from stacklab.machines.ssh_connection import ConnectionLost, SessionsFull

        extra: SshConnection | None = None
        for attempt in (1, 2, 3):
            connection = extra or self._connected()
            try:
                return connection.run(line, given, out, err, seconds)
            except SessionsFull as full:
                # As many commands at once as its MaxSessions allows: this one gets a connection of its own.
                if extra is not None:
                    raise MachineUnreachable(
                        f"{self.name} runs no more commands: {full}", advice="look at MaxSessions in its sshd_config"
                    ) from full
                extra = self._new_connection()
            except ConnectionLost as lost:
                self._drop(connection)
                if lost.begun:
                    raise MachineUnreachable(
                        f"the connection to {self.name} was lost while it ran {command.name}: {lost}",
                        advice="is the machine still up? The same command connects again",
                    ) from lost
                # A connection that was found dead before anything was sent over it is simply made again.
                if attempt == 3 or extra is not None:
                    raise MachineUnreachable(
                        f"{self.name} takes no command: {lost}", advice="is the machine still up?"
                    ) from lost
            finally:
                if extra is connection:
                    extra.close()
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


def wait_for_ssh(machine: Machine, seconds: float, progress: Progress, *, grace: float = 0.0) -> float:
    """Wait until a machine runs commands over SSH; returns how many seconds that took.

    `grace`: for how long a refused login or another host key is taken for a machine that is still booting (cloud-init
    places keys late); after that they are raised at once, as LoginRefused and HostKeyChanged. Raises MachineUnreachable
    when `seconds` are over, with what was wrong last.
    """
    began = time.monotonic()
    pause = 0.5
    while True:
        try:
            machine.run("true", seconds=30)
            return time.monotonic() - began
        except (LoginRefused, HostKeyChanged) as error:
            if time.monotonic() - began >= grace:
                raise
            last: LabError = error
        except (MachineUnreachable, CommandFailed) as error:
            last = error
        machine.close()
        waited = time.monotonic() - began
        if waited + pause > seconds:
            raise MachineUnreachable(
                f"no SSH with {machine.name} after {waited:.0f} s: {last.message}",
                advice=last.advice or "the machine's console may say why",
            ) from last
        progress(f"waiting for SSH with {machine.name} ({waited:.0f} of at most {seconds:.0f} s): {last.message}")
        time.sleep(pause)
        pause = min(pause * 1.5, 3.0)
