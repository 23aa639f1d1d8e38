"""A machine that SSH reaches, by the system's own ssh: whoever gets in with it gets in here.

One connection is kept for all commands (ControlMaster in ssh_config(5)), made when it is first needed, in the background, and
gone a minute after its last use whatever becomes of us. A command is one more `ssh` that uses it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

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
from stacklab.machines.output import ChildProcess
from stacklab.machines.refusal import hops, look_closer, why_refused
from stacklab.machines.remote import Marked, line_for, new_token

Progress = Callable[[str], None]

CONNECT_SECONDS = 30.0
PULSE_SECONDS = 15.0
PATIENCE_SECONDS = 45.0
"""A connection over which nothing came for this long, though we asked, is given up."""
IDLE_SECONDS = 60
KILL_SECONDS = 15.0
"""How long ending a command on the machine may take, beyond the command's own time."""
QUIET = 3.0
"""After a program's end its output is waited for this long: a daemon that it left behind may hold the stream open for ever."""

_TIMED_OUT = (124, 128 + 9)
"""What `timeout` exits with: 124 after SIGTERM, killed itself after SIGKILL (timeout(1))."""
_SSH_FAILED = 255
"""What ssh exits with where it has no connection, or lost it (ssh(1))."""

# Nothing of the user's configuration that would ask a person, run something beside, or let anybody back in here.
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
        self._directory: Path | None = None

    def __repr__(self) -> str:
        return f"SshMachine({self.name})"

    # --- the connection --------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect now rather than at the first command. Raises MachineUnreachable, HostKeyChanged, LoginRefused."""
        with self._lock:
            if not self._socket.exists():
                self._start()

    def close(self) -> None:
        """Give the connection up (before the machine is reverted or stopped, say). The next call makes a new one."""
        with self._lock:
            if self._directory is not None:
                _end_connection(self._directory)

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
        return self._through(self.address, None)

    @property
    def _socket(self) -> Path:
        """Where the connection is used: a path that is short enough for a socket (108 bytes), in a directory of our own."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="lab-ssh-", dir="/tmp"))
            weakref.finalize(self, _forget_connection, self._directory)
        return self._directory / "connection"

    @property
    def _log(self) -> Path:
        return self._socket.with_name("log")

    def _start(self) -> None:
        self._log.write_text("")
        self.known_hosts.path.parent.mkdir(parents=True, exist_ok=True)
        self.known_hosts.path.touch(mode=0o600)
        way = list(hops(self.address))
        before = {hop: self.known_hosts.of(hop.known_as) for hop in way}
        sharing = ["-M", "-N", "-S", str(self._socket), "-o", f"ControlPersist={IDLE_SECONDS}"]
        argv = [ssh_program(), *sharing, *self._options(self.address, self._log), *self._to(self.address)]
        nothing = subprocess.DEVNULL
        try:
            seconds = 3 * self._connect_seconds * len(way)
            done = subprocess.run(argv, stdin=nothing, stdout=nothing, stderr=nothing, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise MachineUnreachable(
                f"{self.name} fell silent while we logged in",
                advice=f"is the machine up, and not just booting? {look_closer(self.address)}",
            ) from error
        if done.returncode != 0:
            raise self._refusal(self._log.read_text(errors="replace"))
        for hop in way:
            for key in self.known_hosts.of(hop.known_as):
                if key not in before[hop]:
                    self._say(
                        f"first contact with {hop.name}: host key {key.fingerprint} ({key.kind}) is pinned from now on"
                    )

    def _options(self, address: Address, log: Path | None = None) -> list[str]:
        """`log`: where a connection of ours writes what it does; only such a one may be the first contact."""
        first_contact = log is not None and not self.known_hosts.of(address.known_as)
        options = {
            # In quotes: ssh splits this value at spaces.
            "UserKnownHostsFile": f'"{str(self.known_hosts.path).replace("%", "%%")}"',
            "HostKeyAlias": address.known_as,
            "StrictHostKeyChecking": "accept-new" if first_contact else "yes",
            "ServerAliveInterval": f"{max(1, round(self._pulse))}",
            "ServerAliveCountMax": f"{max(1, round(self._patience / self._pulse))}",
            "ConnectTimeout": f"{max(1, round(self._connect_seconds))}",
            "LogLevel": "DEBUG1" if log else "ERROR",
            **_OPTIONS,
        }
        if self._key is not None:
            options["IdentitiesOnly"] = "yes"
        if address.jump is not None:
            options["ProxyCommand"] = self._through(address.jump, log)
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return [*words, *(["-i", str(self._key)] if self._key else []), *(["-E", str(log)] if log else [])]

    def _to(self, address: Address) -> list[str]:
        return [*address.arguments[:-1], "--", address.arguments[-1]]

    def _through(self, address: Address, log: Path | None) -> str:
        *options, target = self._to(address)
        fixed = shlex.join([ssh_program(), *self._options(address, log), *options[:-1]])
        return f"{fixed.replace('%', '%%')} -W '[%h]:%p' -- {shlex.quote(target).replace('%', '%%')}"

    # --- running ---------------------------------------------------------------------------------------------------

    def _execute(self, command: Command, given: bytes, *, whole: bool = False) -> tuple[int, Marked, Marked]:
        for attempt in (1, 2):
            self.connect()
            token = new_token()
            out, err = Marked(token, whole=whole), Marked(token, whole=whole)
            status = self._sent(line_for(command, token), command, given, out, err)
            if status is not None:
                return status, out, err
            log = self._log.read_text(errors="replace")
            begun = err.begun is not None or f"Sending command: : {token}" in log
            self.close()
            if begun:
                raise MachineUnreachable(
                    f"the connection to {self.name} was lost while it ran {command.name}: {_why_lost(log)}",
                    advice="is the machine still up? The same command connects again",
                )
            # A connection that was found dead before anything was sent over it is simply made again.
            if attempt == 2:
                raise self._refusal(log)
        raise AssertionError

    def _sent(self, line: str, command: Command, given: bytes, out: Marked, err: Marked) -> int | None:
        """The command's status; None where there is no connection. Raises CommandFailed, SudoRefused, LoginRefused."""

        def settled() -> bool:
            return err.status is not None and time.monotonic() - max(out.heard, err.heard) > QUIET

        options = self._options(self.address, self._log)
        argv = [ssh_program(), "-S", str(self._socket), *options, *self._to(self.address), line]
        child = ChildProcess(argv, out, err, env=_environment())
        try:
            # The machine ends it by itself; our own deadline is for one that cannot.
            child_status = child.attend(given, command.seconds + KILL_AFTER + KILL_SECONDS / 2, settled)
        except BaseException:
            self._end(command, err, "INT")
            child.end()
            raise
        if child_status is None:
            child.end()
        output = err.text() or out.text()
        late = err.status in _TIMED_OUT and time.monotonic() - err.since >= command.seconds - 0.5
        if late or (child_status is None and err.status is None):
            self._end(command, err, "KILL")
            raise command.overdue(self.name, output)
        if err.status is None and child_status == _SSH_FAILED:
            return None
        if err.begun is None:
            raise self._never_began(command, output.strip() or f"status {child_status}")
        if err.status is None:
            raise CommandFailed(
                f"{self.name}: {command.name} was ended there by something, its exit status is unknown{last_line(output)}",
                said=output,
            )
        return err.status

    def _end(self, command: Command, err: Marked, number: str) -> None:
        """Send a signal to all that is left of a command, as far as that can be done."""
        if err.begun is None:
            return
        kill = 'kill -s "$1" -- "-$2" 2>/dev/null || kill -s "$1" "$2" 2>/dev/null'
        with contextlib.suppress(LabError):  # without a connection, the machine's own `timeout` has to do it
            words = ("sh", "-c", kill, "kill", number, str(err.begun))
            self.run(*words, user=command.user, seconds=KILL_SECONDS, check=False)

    # --- what went wrong -------------------------------------------------------------------------------------------

    def _refusal(self, log: str) -> LabError:
        return why_refused(log, self.address, self.known_hosts, self._key)

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


def _why_lost(log: str) -> str:
    return "the machine gave no sign of life" if "not responding" in log else "the other side closed it"


def _environment() -> dict[str, str]:
    """For ssh: distributions' ssh_config sends the language on (SendEnv), and programs there are to answer in their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("LANG", "LC_"))}


def _end_connection(directory: Path) -> None:
    """Ends it at once, whatever the machine says to that."""
    socket = directory / "connection"
    if socket.exists():
        argv = [ssh_program(), "-F", "none", "-S", str(socket), "-O", "exit", "--", "machine"]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=KILL_SECONDS, check=False)
        socket.unlink(missing_ok=True)


def _forget_connection(directory: Path) -> None:
    with contextlib.suppress(LabError):
        _end_connection(directory)
    shutil.rmtree(directory, ignore_errors=True)


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
