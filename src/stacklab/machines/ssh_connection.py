"""The module that knows Fabric (and, with `logins`, paramiko): a connection that is made, watched, and runs one command line.

Import it late: it costs half a second.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fabric  # type: ignore[import-untyped]
import paramiko
from fabric.runners import Remote  # type: ignore[import-untyped]
from invoke.exceptions import CommandTimedOut
from paramiko.auth_strategy import AuthFailure
from paramiko.ssh_exception import AuthenticationException, BadHostKeyException, SSHException

from stacklab.errors import HostKeyChanged, LabError, LoginRefused, MachineUnreachable
from stacklab.machines.address import Address
from stacklab.machines.base import CHUNK, Output
from stacklab.machines.logins import Logins

CHANNEL_SECONDS = 20.0
"""How long a machine may take to open a channel on a connection that stands."""
SESSIONS = 4
"""Commands at once on one connection; an sshd allows ten, or fewer where it was hardened (MaxSessions)."""
QUIET = 3.0
"""After a program's end its output is waited for this long: a daemon that it left behind may hold the stream open for ever."""
_BROKEN = (SSHException, EOFError, OSError)
"""What paramiko raises on a connection that is gone."""
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class ConnectionLost(Exception):
    """The connection is gone. `begun`: the command may have begun, so it must not be sent again."""

    def __init__(self, why: str, *, begun: bool) -> None:
        super().__init__(why)
        self.begun = begun


class _Input(io.BytesIO):
    """A command's standard input. `sent`: the command is on its way."""

    sent = False


class _Runner(Remote):  # type: ignore[misc]
    """Fabric's, for bytes: its own decodes output, joins all of it at each chunk, and copies input by the character."""

    def start(self, command: str, shell: str, env: dict[str, Any], timeout: float | None = None) -> None:
        self.channel = self.context.create_session()
        self.streams["in"].sent = True
        # Bytes: what is no UTF-8 (a file's name, perhaps) travels as it is.
        self.channel.exec_command(command.encode("utf-8", "surrogateescape"))
        self.heard = time.monotonic()

    def wait(self) -> None:
        super().wait()
        readers = [self.threads[self.handle_stdout], self.threads[self.handle_stderr]]
        while any(reader.is_alive() for reader in readers) and time.monotonic() - self.heard < QUIET:
            time.sleep(self.input_sleep)
        self.channel.close()

    def send_interrupt(self, interrupt: KeyboardInterrupt) -> None:
        self.channel.close()
        raise interrupt

    def handle_stdout(self, buffer_: list[str], hide: bool, output: Output) -> None:
        self._drain(self.channel.recv, output)

    def handle_stderr(self, buffer_: list[str], hide: bool, output: Output) -> None:
        self._drain(self.channel.recv_stderr, output)

    def _drain(self, receive: Callable[[int], bytes], output: Output) -> None:
        def read(size: int) -> bytes:
            data = receive(size)
            self.heard = time.monotonic()
            return data

        output.fill(read)

    def handle_stdin(self, input_: _Input, output: Output, echo: bool = False) -> None:
        # Closed from there: the program reads no more, and its status says what that means.
        with contextlib.suppress(*_BROKEN):
            while data := input_.read(CHUNK):
                self.channel.sendall(data)
            self.channel.shutdown_write()


class SshConnection:
    """An open, authenticated connection, watched by a thread that asks the machine for a sign of life.

    `program`: what stands between (a ProxyCommand), ended with the connection.
    """

    def __init__(
        self, link: fabric.Connection, program: subprocess.Popen[bytes] | None, pulse: float, patience: float
    ) -> None:
        self._link, self._program = link, program
        self._transport: paramiko.Transport = link.transport
        self._sessions = threading.Semaphore(SESSIONS)
        self._over = threading.Event()
        self._silent = False
        threading.Thread(target=self._watch, args=(pulse, patience), name="ssh-pulse", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it is open, as far as is known."""
        return self._transport.is_active()

    def run(self, line: str, given: bytes, out: Output, err: Output, seconds: float) -> int | None:
        """Run a command line; its exit status, None where it told none. Raises ConnectionLost; TimeoutError after `seconds`."""
        source = _Input(given)
        try:
            with self._sessions:
                result = self._link.run(
                    line, in_stream=source, out_stream=out, err_stream=err, hide=False, warn=True, timeout=seconds
                )
        except CommandTimedOut as error:
            raise TimeoutError from error
        except _BROKEN as error:
            raise ConnectionLost(self._why(error), begun=source.sent) from error
        if result.exited >= 0:
            return int(result.exited)
        # -1 is paramiko's word for a channel that closed without any status, which it does a moment before its transport.
        self._transport.join(1.0)
        if not self.alive:
            raise ConnectionLost(self._why(None), begun=True)
        return None

    def close(self) -> None:
        """Close it; never waits for the machine."""
        self._over.set()
        self._link.client.close()
        _end(self._program)

    def _watch(self, pulse: float, patience: float) -> None:
        # paramiko's own keepalive asks for no answer, so it never notices a machine that is silent.
        while not self._over.wait(pulse) and self.alive:
            silence = threading.Timer(patience, self._give_up)
            silence.daemon = True
            silence.start()
            with contextlib.suppress(*_BROKEN):
                self._transport.global_request("keepalive@openssh.com", wait=True)
            silence.cancel()

    def _give_up(self) -> None:
        self._silent = True
        self._transport.close()

    def _why(self, error: Exception | None) -> str:
        if self._silent:
            return "the machine gave no sign of life"
        return str(error or "").strip().rstrip(".").lower() or "the other side closed it"


# --- making it -----------------------------------------------------------------------------------------------------


def connect(
    address: Address,
    known_hosts: Path,
    *,
    key: Path | None,
    proxy: str,
    say: Callable[[str], None],
    seconds: float,
    pulse: float,
    patience: float,
) -> SshConnection:
    """Connect and log in. `key`: the only file to try. `proxy`: the command to go through; nothing: TCP.

    `seconds`: for TCP, for the handshake, and for the login, each. `pulse`, `patience`: how often the machine is asked for a
    sign of life, and how long it may owe one. Raises MachineUnreachable, HostKeyChanged, LoginRefused.
    """

    def transport(sock: Any, **options: Any) -> paramiko.Transport:
        made = paramiko.Transport(sock, **options)
        # The key exchange of an emulated machine that is just booting takes longer than paramiko's 15 seconds.
        made.handshake_timeout = seconds
        return made

    with tempfile.TemporaryFile() as complaints:
        sock, program = _by_program(proxy, complaints.fileno()) if proxy else (_dial(address, seconds), None)
        logins = Logins(address, key)  # type: ignore[abstract]
        # Nothing of ~/.fabric.yaml or ~/.ssh/config gets in here: ssh itself has completed the address from the latter.
        config = fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig())
        config.runners.remote = _Runner
        alias = address.setting("hostkeyalias")
        link = fabric.Connection(  # host and port are what the host key is known as: the way there is `sock`
            alias or address.host,
            user=address.user,
            port=22 if alias else address.port,
            config=config,
            connect_timeout=max(1, round(seconds)),
            connect_kwargs={
                "sock": sock,
                "auth_strategy": logins,
                "banner_timeout": seconds,
                "auth_timeout": seconds,
                "channel_timeout": CHANNEL_SECONDS,
                "transport_factory": transport,
            },
        )
        # Fabric's own is to add any key silently.
        link.client.set_missing_host_key_policy(_Policy(address, known_hosts, say))
        if known_hosts.exists():
            link.client.load_host_keys(str(known_hosts))
        try:
            link.open()
        except BaseException as error:
            link.client.close()
            sock.close()
            _end(program)
            complaints.seek(0)
            if ours := _connect_error(error, address, known_hosts, logins, complaints.read().decode(errors="replace")):
                raise ours from error
            raise
    return SshConnection(link, program, pulse, patience)


class _Policy(paramiko.MissingHostKeyPolicy):
    """First contact: pin the key and say so. After that, paramiko lets no other one pass."""

    def __init__(self, address: Address, known_hosts: Path, say: Callable[[str], None]) -> None:
        self._address, self._known_hosts, self._say = address, known_hosts, say

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """As ssh does it: a line more."""
        self._known_hosts.parent.mkdir(parents=True, exist_ok=True)
        self._known_hosts.touch(0o600)
        with self._known_hosts.open("a") as file:
            file.write(f"{hostname} {key.get_name()} {key.get_base64()}\n")
        self._say(f"first contact with {self._address.name}: host key {_shown(key)} is pinned from now on")


def _shown(key: paramiko.PKey) -> str:
    return f"{key.fingerprint} ({key.get_name()})"


def _by_program(command: str, complaints: int) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """What a ProxyCommand connects to. Not paramiko's own, which does not notice the program's end.

    `complaints`: the file that the program's error messages go to.
    """
    near, far = socket.socketpair()
    argv = [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"]  # as ssh runs it
    with far:
        # In a session of its own, so that Ctrl-C is ours to pass on.
        return near, subprocess.Popen(
            argv, stdin=far.fileno(), stdout=far.fileno(), stderr=complaints, start_new_session=True
        )


def _end(program: subprocess.Popen[bytes] | None) -> None:
    if program is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGTERM)  # ssh sends SIGHUP, which what runs under nohup ignores
        threading.Thread(target=program.wait, name="ssh-proxy", daemon=True).start()


def _dial(address: Address, seconds: float) -> socket.socket:
    """A TCP connection."""
    try:
        sock = socket.create_connection((address.host, address.port), seconds)
    except TimeoutError as error:
        raise MachineUnreachable(
            f"{address.host} port {address.port} did not answer within {seconds:.0f} s",
            advice=f"is the machine up, and does a firewall drop the port? {_look(address)}",
        ) from error
    except (OSError, UnicodeError) as error:
        raise MachineUnreachable(
            f"{address.host} port {address.port} cannot be reached: {getattr(error, 'strerror', error)}",
            advice=f"is its address right, the machine up, on this network, and its sshd running? {_look(address)}",
        ) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _connect_error(
    error: BaseException, address: Address, known_hosts: Path, logins: Logins, proxy: str
) -> LabError | None:
    """Our word for what Fabric raised; `proxy`: what the ProxyCommand complained of, if anything."""
    where = f"{address.host} port {address.port}"
    if isinstance(error, BadHostKeyException):
        return HostKeyChanged(
            f"{address.name} shows another host key than before: {_shown(error.key)} instead of {_shown(error.expected_key)}",
            advice=f"if the machine was made anew on purpose, forget its key: ssh-keygen -R '{address.known_as}' "
            f"-f {known_hosts} – if not, somebody may stand between you and it",
        )
    if isinstance(error, AuthFailure) or (isinstance(error, AuthenticationException) and logins.refused):
        tried = "; ".join(logins.tried) or "nothing: there is no key and no agent to try"
        return LoginRefused(
            f"{address.name} does not let us in. Tried: {tried}",
            advice=f"put a public key into ~{address.user}/.ssh/authorized_keys on the machine, or name the right key or user",
        )
    if isinstance(error, AuthenticationException):
        return MachineUnreachable(
            f"{where} closed the connection, or fell silent, while we logged in as {address.user}",
            advice=f"is the machine up, and not just booting? {_look(address)}",
        )
    if isinstance(error, _BROKEN):
        lines = proxy.strip().splitlines() or [str(error)]
        text = lines[-1].strip().rstrip(".")
        return MachineUnreachable(
            f"{where} did not answer as an SSH server does" + (f": {text}" if text else ""),
            advice=f"is the machine up, and is that the port of its sshd? {_look(address)}",
        )
    return None


def _look(address: Address) -> str:
    """The command that does, for the end of an advice."""
    return f"lab doctor --on ssh://{address.name} looks closer"
