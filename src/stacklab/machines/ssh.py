"""A machine that SSH reaches."""

from __future__ import annotations

import io
import shlex
import threading
import time
from collections.abc import Callable, Mapping
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
from stacklab.machines.address import Address
from stacklab.machines.base import COMMAND_SECONDS, Finished, Machine
from stacklab.machines.known_hosts import HostKey, Pins
from stacklab.machines.output import Marked, Source
from stacklab.machines.remote import ABSENT, KILL_AFTER, PUT, READ, Command, last_line, put_refused, script_command

if TYPE_CHECKING:
    from stacklab.machines.ssh_connection import SshConnection

Progress = Callable[[str], None]

CONNECT_SECONDS = 30.0
PULSE_SECONDS = 15.0
PATIENCE_SECONDS = 45.0
"""A connection over which nothing came for this long, though we asked, is given up."""
KILL_SECONDS = 15.0
"""How long ending a command on the machine may take, beyond the command's own time."""
PUT_SECONDS = 600.0
SESSIONS = 8
"""Commands at once on one connection; sshd's default is to allow 10 (MaxSessions), and ending one takes another."""

_TIMED_OUT = (124, 128 + 9)
"""What `timeout` exits with: 124 after SIGTERM, killed itself after SIGKILL (timeout(1))."""


class SshMachine:
    """`machines.base.Machine` over one SSH connection, which is made when it is first needed.

    `known_hosts`: the file of the lab's own in which host keys are pinned; on first contact a key is pinned and `say` is
    told, after that another one is refused. `host_key`: the key where it is known beforehand (a line of a .pub file); it
    replaces a pinned one. `key`: a private key file, tried before the address's own; where there are neither, the agent and the
    user's default keys are tried. `password`: the value, or who asks for it (asked once), tried last. `connect`, `pulse`,
    `patience` (seconds): for TCP, handshake and login, each; between two questions for a sign of life; until silence means
    that the connection is lost.

    Each stream of a program's output is kept up to output.LIMIT bytes, half its beginning and half its end; text is
    decoded as UTF-8, what is none is replaced. Programs run in the account's home directory, with the sbin directories on PATH.
    Their environment is visible to everybody on the machine: secrets go through `given`. May be used by several threads.
    """

    def __init__(
        self,
        address: Address,
        *,
        known_hosts: Path,
        key: Path | None = None,
        password: str | Callable[[], str] | None = None,
        host_key: str | None = None,
        say: Progress = lambda _: None,
        connect: float = CONNECT_SECONDS,
        pulse: float = PULSE_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.address = address
        self.name = address.name
        self.pins = Pins(known_hosts)
        self._keys = [*([key] if key else []), *address.identities]
        self._password = password
        self._say = say
        self._connect_seconds, self._pulse, self._patience = connect, pulse, patience
        self._connection: SshConnection | None = None
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(SESSIONS)
        self._jump = (
            SshMachine(
                address.jump, known_hosts=known_hosts, key=key, say=say, connect=connect, pulse=pulse, patience=patience
            )
            if address.jump
            else None
        )
        if host_key is not None:
            self.pins.pin(address.known_as, HostKey.parse(host_key))

    def __repr__(self) -> str:
        return f"SshMachine({self.name})"

    def connect(self) -> None:
        """Connect now rather than at the first command. Raises MachineUnreachable, HostKeyChanged, LoginRefused."""
        self._connected()

    def close(self) -> None:
        """Give the connection up (before the machine is reverted or stopped, say). The next call makes a new one."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        if self._jump is not None:
            self._jump.close()

    def forget_host_key(self) -> bool:
        """Close the connection and trust no host key of this machine any more; says whether one was pinned."""
        self.close()
        return self.pins.forget(self.address.known_as)

    def run(
        self,
        *argv: str,
        user: str | None = None,
        given: str | bytes | None = None,
        environment: Mapping[str, str] | None = None,
        seconds: float = COMMAND_SECONDS,
        check: bool = True,
    ) -> Finished:
        """See Machine.run. No secret in `environment`: it is visible on the machine, and `sudo` logs it."""
        return self._finished(Command(argv, user, environment or {}, seconds), _stream(given), check)

    def script(
        self, text: str, *arguments: str, user: str | None = None, seconds: float = COMMAND_SECONDS, check: bool = True
    ) -> Finished:
        """See Machine.script. What it runs finds its standard input empty; half a script (a lost connection) is not run."""
        command, given = script_command(text, arguments, user, seconds)
        return self._finished(command, _stream(given), check)

    def put(self, path: str, content: str | bytes, *, mode: int = 0o644, owner: str = "root") -> None:
        """See Machine.put. `owner`: `user` (with that account's group) or `user:group`. A symbolic link is replaced."""
        data = content.encode() if isinstance(content, str) else content
        self._put(io.BytesIO(data), len(data), path, mode, owner, PUT_SECONDS)

    def put_file(
        self,
        local: Path,
        remote: str,
        *,
        mode: int = 0o644,
        owner: str = "root",
        progress: Callable[[int, int], None] | None = None,
        seconds: float = PUT_SECONDS,
    ) -> None:
        """`put` for a file of this machine, of any size; `progress` gets the bytes sent so far and the file's size.

        Not Fabric's `put`: SFTP writes as whoever logged in, so a file of root's would be copied twice, and not
        replaced in one step. Raises NotEnoughSpace, CommandFailed; OSError where `local` cannot be read.
        """
        size = local.stat().st_size
        with local.open("rb") as file:
            self._put(_Counted(file, size, progress) if progress else file, size, remote, mode, owner, seconds)

    def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes | None:
        """See Machine.read. Without `limit` the whole file is held in memory. Raises CommandFailed for a directory."""
        if offset < 0 or (limit is not None and limit < 0):
            raise ValueError(f"offset and limit count bytes: {offset}, {limit}")
        words = ("sh", "-euc", READ, "read", path, str(offset + 1), "" if limit is None else str(limit))
        command = Command(words, "root", {}, PUT_SECONDS)
        status, out, err = self._execute(command, _stream(None), whole=True)
        if status == ABSENT and err.text().strip() == "absent":
            return None
        # Only `head` tells how a pipe ended, so what `tail` said is looked at, too.
        if status != 0 or err.text():
            raise CommandFailed(
                f"{self.name}: {path} cannot be read: {err.text().strip()}", status=status, said=err.text()
            )
        return out.data()

    def ssh_argv(self, *command: str, program: str = "ssh") -> list[str]:
        """The system's `ssh` to this machine: the same key and pinned host key, nothing of the user's configuration.

        `command`: words to run there (quoted here); none: an interactive login. The host key must be pinned already.
        """
        argv = [program, "-F", "none", *self._ssh_options(), "-p", str(self.address.port)]
        argv += ["--", f"{self.address.user}@{self.address.host}"]
        return [*argv, shlex.join(command)] if command else argv

    def proxy_command(self, program: str = "ssh") -> str:
        """What ssh's ProxyCommand is to be for reaching `%h`, port `%p`, through this machine."""
        argv = [program, "-F", "none", *self._ssh_options(), "-p", str(self.address.port)]
        fixed = shlex.join(argv).replace("%", "%%")
        return f"{fixed} -W '[%h]:%p' -- {shlex.quote(f'{self.address.user}@{self.address.host}').replace('%', '%%')}"

    def _ssh_options(self) -> list[str]:
        options = {
            # In quotes: ssh splits this value at spaces.
            "UserKnownHostsFile": f'"{str(self.pins.path).replace("%", "%%")}"',
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
            "ServerAliveInterval": f"{max(1, round(self._pulse))}",
            "ConnectTimeout": f"{max(1, round(self._connect_seconds))}",
        }
        if self._keys:
            options["IdentitiesOnly"] = "yes"
        if self._jump is not None:
            options["ProxyCommand"] = self._jump.proxy_command()
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return words + [word for key in self._keys for word in ("-i", str(key))]

    # --- running ---------------------------------------------------------------------------------------------------

    def _finished(self, command: Command, given: Source, check: bool) -> Finished:
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

    def _execute(self, command: Command, given: Source, *, whole: bool = False) -> tuple[int, Marked, Marked]:
        """Run to the end. Raises CommandFailed when it is overdue or its end is not told, SudoRefused when it never began."""
        line = command.line()
        out, err = (Marked(command.token, whole=whole) for _ in range(2))
        # The machine ends it by itself; our own deadline is for one that cannot.
        patience = command.seconds + KILL_AFTER + KILL_SECONDS / 2
        try:
            with self._slots:
                status, overdue = self._sent(line, command, given, out, err, patience)
        except KeyboardInterrupt:
            self._end(command, err, "INT")
            raise
        if overdue or (status in _TIMED_OUT and time.monotonic() - err.since >= command.seconds - 0.5):
            self._end(command, err, "KILL")
            raise CommandFailed(
                f"{self.name}: {command.name} did not end within {command.seconds:g} s and was ended"
                f"{last_line(err.text() or out.text())}",
                said=err.text() or out.text(),
            )
        if status is None:
            raise CommandFailed(
                f"{self.name}: {command.name} was ended there by something, its exit status is unknown"
                f"{last_line(err.text() or out.text())}",
                said=err.text() or out.text(),
            )
        if err.begun is None:
            raise self._never_began(command, status, (err.text() or out.text()).strip())
        return status, out, err

    def _sent(
        self, line: str, command: Command, given: Source, out: Marked, err: Marked, seconds: float
    ) -> tuple[int | None, bool]:
        from stacklab.machines.ssh_connection import Full, Lost

        for attempt in (1, 2):
            connection = self._connected()
            try:
                return connection.run(line, given, out, err, seconds)
            except Full as full:
                raise MachineUnreachable(
                    f"{self.name} runs no more commands at once: {full}",
                    advice="look at MaxSessions in its sshd_config",
                ) from full
            except Lost as lost:
                self._forget_connection(connection)
                # A connection that was found dead before anything was sent over it is simply made again.
                if lost.begun or attempt == 2:
                    raise MachineUnreachable(
                        f"the connection to {self.name} was lost while it ran {command.name}: {lost}"
                        if lost.begun
                        else f"{self.name} takes no command: {lost}",
                        advice="is the machine still up? The same command connects again",
                    ) from lost
        raise AssertionError

    def _end(self, command: Command, err: Marked, signal: str) -> None:
        """Send a signal to all that is left of a command, as far as that can be done."""
        if err.begun is None:
            return
        kill = 'kill -s "$1" -- "-$2" 2>/dev/null || kill -s "$1" "$2" 2>/dev/null'
        words = ("sh", "-c", kill, "kill", signal, str(err.begun))
        ending = Command(words, command.user, {}, KILL_SECONDS)
        sinks = (Marked(ending.token), Marked(ending.token))
        try:
            self._sent(ending.line(), ending, _stream(None), *sinks, KILL_SECONDS)
        except LabError:
            return  # without a connection, the machine's own `timeout` has to do it

    def _never_began(self, command: Command, status: int, said: str) -> LabError:
        if command.user is not None:
            return SudoRefused(
                f"{self.name} cannot run commands as {command.user}: {said or f'status {status}'}",
                advice=f"on the machine, a file in /etc/sudoers.d with the line '{self.address.user} ALL=(ALL) NOPASSWD: ALL' "
                "allows it (and the package sudo must be there); or log in as root",
            )
        return LoginRefused(
            f"{self.name} lets us in, but its shell runs no commands: {said or f'status {status}'}",
            advice="give the account an ordinary shell such as /bin/bash",
        )

    def _put(self, source: Source, size: int, path: str, mode: int, owner: str, seconds: float) -> None:
        whose = owner if ":" in owner else f"{owner}:"  # "user:" means: and that account's group
        argv = ("sh", "-euc", PUT, "put", path, str(size), f"{mode:04o}", whose)
        status, _, err = self._execute(Command(argv, "root", {}, seconds), source)
        if status == 0:
            return
        raise put_refused(self.name, path, status, err.text().strip())

    # --- the connection --------------------------------------------------------------------------------------------

    def _connected(self) -> SshConnection:
        with self._lock:
            if self._connection is not None and self._connection.alive:
                return self._connection
            if self._connection is not None:
                self._connection.close()
            from stacklab.machines.ssh_connection import connect

            self._connection = connect(
                self.address,
                self.pins,
                keys=self._keys,
                only_keys=bool(self._keys),
                password=self._ask_password if self._password is not None else None,
                through=self._jump.tunnel if self._jump else None,
                say=self._say,
                seconds=self._connect_seconds,
                pulse=self._pulse,
                patience=self._patience,
            )
            return self._connection

    def tunnel(self, host: str, port: int) -> Any:
        """A channel to `host:port` as this machine sees it, to be used like a socket. Raises MachineUnreachable."""
        return self._connected().tunnel(host, port)

    def _forget_connection(self, connection: SshConnection | None = None) -> None:
        with self._lock:
            if self._connection is not None and connection in (None, self._connection):
                self._connection.close()
                self._connection = None

    def _ask_password(self) -> str:
        if callable(self._password):
            self._password = self._password()
        return self._password or ""


class _Counted:
    """A file that tells how much of it has been read."""

    def __init__(self, file: Source, size: int, progress: Callable[[int, int], None]) -> None:
        self._file, self._size, self._progress = file, size, progress
        self._read = 0

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self._read += len(data)
        if data:
            self._progress(self._read, self._size)
        return data


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


def _stream(given: str | bytes | None) -> Source:
    if isinstance(given, str):
        given = given.encode("utf-8", "surrogateescape")
    return io.BytesIO(given or b"")
