"""The module that knows Fabric (and, with `logins`, paramiko): a connection that is made, watched, and runs one command line.

Fabric runs everything through `Connection.run`; its runner is ours (`_Runner`), because Fabric's own reads its channel without
any timeout (paramiko#503), waits for ever for an exit status (paramiko#1507) or an open channel (fabric#1384), keeps all output
in memory as decoded text, and copies standard input a character at a time. Import this module late: it costs half a second.
"""

from __future__ import annotations

import contextlib
import errno
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
from functools import partial
from pathlib import Path
from typing import Any

import fabric  # type: ignore[import-untyped]
import paramiko
from fabric.runners import Remote  # type: ignore[import-untyped]
from invoke.exceptions import ThreadException
from paramiko.auth_strategy import AuthFailure
from paramiko.ssh_exception import AuthenticationException, ChannelException, IncompatiblePeer, SSHException

from stacklab.errors import HostKeyChanged, LabError, LoginRefused, MachineUnreachable
from stacklab.machines.address import Address
from stacklab.machines.known_hosts import HostKey, KnownHosts
from stacklab.machines.logins import Logins
from stacklab.machines.output import CHUNK, Output

CHANNEL_SECONDS = 20.0
"""How long a machine may take to open a channel on a connection that stands."""
TICK = 0.5
"""Seconds between two looks at whether a blocking wait still makes sense."""
QUIET = 3.0
"""After a program's end its output is waited for this long: a daemon that it left behind may hold the stream open for ever."""
_BROKEN = (SSHException, EOFError, OSError)
"""What paramiko raises on a connection that is gone."""
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}

# paramiko logs handshake errors with tracebacks, and Python prints what no handler takes; they are raised as well.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class ConnectionLost(Exception):
    """The connection is gone. `begun`: the command may have begun, so it must not be sent again."""

    def __init__(self, why: str, *, begun: bool) -> None:
        super().__init__(why)
        self.begun = begun


class SessionsFull(Exception):
    """The machine opens no further session on this connection; those that are there go on."""


# --- one command ---------------------------------------------------------------------------------------------------


class _Job(io.BytesIO):
    """The standard input of one command, and what came of it; it travels as Fabric's `in_stream`."""

    sent = False
    overdue = False

    def __init__(self, given: bytes, opening: threading.Lock) -> None:
        super().__init__(given)
        self.opening = opening


class _Runner(Remote):  # type: ignore[misc]
    """Runs one command line: bytes in, bytes out, no wait without an end."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._leave = threading.Event()
        self._deadline = 0.0

    def start(self, command: str, shell: str, env: dict[str, Any], timeout: float | None = None) -> None:
        job = self.streams["in"]
        with job.opening:
            self.channel = self.context.create_session()
        self.channel.settimeout(TICK)
        job.sent = True
        # Bytes: what is no UTF-8 (a file's name, perhaps) travels as it is.
        self.channel.exec_command(command.encode("utf-8", "surrogateescape"))

    def start_timer(self, timeout: float | None) -> None:
        self._deadline = time.monotonic() + (timeout or 0.0)

    def wait(self) -> None:
        while not self.channel.status_event.wait(TICK) and not self.has_dead_threads:
            if time.monotonic() > self._deadline:
                self.streams["in"].overdue = True
                self._leave.set()
                return

    def send_interrupt(self, interrupt: KeyboardInterrupt) -> None:
        self._leave.set()
        raise interrupt

    def stop(self) -> None:
        # Not Fabric's: it sets SIGWINCH back to the default, whoever handled it before.
        if hasattr(self, "channel"):
            with contextlib.suppress(*_BROKEN):
                self.channel.close()

    def returncode(self) -> int | None:
        # -1 is paramiko's word for a channel that closed without any status.
        status = self.channel.exit_status if self.channel.status_event.is_set() else -1
        return None if status < 0 else int(status)

    def handle_stdout(self, buffer_: list[str], hide: bool, output: Output) -> None:
        self._drain(self.channel.recv, output)

    def handle_stderr(self, buffer_: list[str], hide: bool, output: Output) -> None:
        self._drain(self.channel.recv_stderr, output)

    def _drain(self, receive: Callable[[int], bytes], output: Output) -> None:
        heard = time.monotonic()
        while not self._leave.is_set():
            ended = self.channel.status_event.is_set()
            try:
                data = receive(CHUNK)
            except TimeoutError:
                if ended and time.monotonic() - heard > QUIET:
                    return
                continue
            except _BROKEN:
                return
            if not data:
                return
            heard = time.monotonic()
            output.write(data)
            if ended and heard > self._deadline:
                return

    def handle_stdin(self, input_: _Job, output: Output, echo: bool = False) -> None:
        while data := input_.read(CHUNK):
            if not self._passed_on(data):
                return
        with contextlib.suppress(*_BROKEN):
            self.channel.shutdown_write()

    def _passed_on(self, data: bytes) -> bool:
        rest = memoryview(data)
        while rest:
            if self._leave.is_set() or self.channel.exit_status_ready():
                return False
            try:
                rest = rest[self.channel.send(rest) :]
            except TimeoutError:
                continue
            except _BROKEN:
                return False  # closed from there: the program reads no more, and its status says what that means
        return True


class SshConnection:
    """An open, authenticated connection, watched by a thread that asks the machine for a sign of life."""

    def __init__(self, link: fabric.Connection, sock: Any, pulse: float, patience: float) -> None:
        self._link = link
        self._transport: paramiko.Transport = link.transport
        self._sock = sock
        self._over = threading.Event()
        self._opening = threading.Lock()  # paramiko keeps one refusal of a channel, whoever it was for
        self.silent = False
        threading.Thread(target=self._watch, args=(pulse, patience), name="ssh-pulse", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it is open, as far as is known."""
        return self._transport.is_active()

    def run(self, line: str, given: bytes, out: Output, err: Output, seconds: float) -> tuple[int | None, bool]:
        """Run a command line; its exit status (None: it told none) and whether `seconds` passed before its end.

        Raises ConnectionLost, SessionsFull.
        """
        job = _Job(given, self._opening)
        try:
            result = self._link.run(
                line, in_stream=job, out_stream=out, err_stream=err, hide=False, warn=True, pty=False, timeout=seconds
            )
        except ThreadException as error:
            raise error.exceptions[0].value from error
        except ChannelException as error:
            raise SessionsFull(error.text) from error
        except _BROKEN as error:
            raise ConnectionLost(self._why(error), begun=job.sent) from error
        if result.exited is None and not job.overdue and self._is_lost():
            raise ConnectionLost(self._why(None), begun=True)
        return result.exited, job.overdue

    def tunnel(self, host: str, port: int) -> paramiko.Channel:
        """A channel to another machine, as seen from this one, to be used like a socket. Raises MachineUnreachable."""
        try:
            return self._transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=CHANNEL_SECONDS)
        except _BROKEN as error:
            raise MachineUnreachable(
                f"{self._link.user}@{self._link.host} cannot reach {host}:{port}: {error}",
                advice=f"is {host} up, and may {self._link.host} forward connections (AllowTcpForwarding in its sshd_config)?",
            ) from error

    def close(self) -> None:
        """Close it; never waits for the machine."""
        self._over.set()
        self._link.client.close()

    def _watch(self, pulse: float, patience: float) -> None:
        # paramiko's own keepalive asks for no answer, so it never notices a machine that is silent.
        while not self._over.wait(pulse) and self.alive:
            asked = time.monotonic()
            answered = threading.Event()
            threading.Thread(target=self._expect, args=(asked, answered, patience), daemon=True).start()
            with contextlib.suppress(*_BROKEN):
                self._transport.global_request("keepalive@openssh.com", wait=True)
            answered.set()

    def _expect(self, asked: float, answered: threading.Event, patience: float) -> None:
        # Other traffic is a sign of life, too: on a slow line the answer queues behind it.
        while not answered.wait(TICK):
            if self._over.is_set():
                return
            if time.monotonic() - max(asked, getattr(self._sock, "heard", 0.0)) > patience:
                self.silent = True
                self._transport.close()
                return

    def _is_lost(self) -> bool:
        for _ in range(4):  # a channel closes a moment before its transport knows
            if not self.alive:
                return True
            time.sleep(TICK / 2)
        return False

    def _why(self, error: Exception | None) -> str:
        if self.silent:
            return "the machine gave no sign of life"
        text = str(error).strip() if error is not None else ""
        return text.rstrip(".").lower() or "the other side closed it"


# --- making it -----------------------------------------------------------------------------------------------------


def connect(
    address: Address,
    known_hosts: KnownHosts,
    *,
    key: Path | None,
    through: Callable[[str, int], Any] | None,
    say: Callable[[str], None],
    seconds: float,
    pulse: float,
    patience: float,
) -> SshConnection:
    """Connect and log in. `key`: the only file to try. `through`: makes the channel to go through (a jump).

    `seconds`: for TCP, for the handshake, and for the login, each. `pulse`, `patience`: how often the machine is asked for a
    sign of life, and how long it may owe one. Raises MachineUnreachable, HostKeyChanged, LoginRefused.
    """
    with tempfile.TemporaryFile() as complaints:
        sock: Any
        if through:
            sock = through(address.host, address.port)
        elif proxy := address.setting("proxycommand"):
            sock = _by_program(address.expanded(proxy), complaints.fileno())
        else:
            sock = _dial(address, float(address.setting("connecttimeout") or seconds), pulse + patience)
        logins = Logins(address, key)  # type: ignore[abstract]
        # Nothing of ~/.fabric.yaml or ~/.ssh/config gets in here: ssh itself has completed the address from the latter.
        config = fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig())
        config.runners.remote = _Runner
        link = fabric.Connection(
            address.host,
            user=address.user,
            port=address.port,
            config=config,
            connect_timeout=max(1, round(seconds)),
            connect_kwargs={
                "sock": sock,
                "auth_strategy": logins,
                "banner_timeout": seconds,
                "auth_timeout": seconds,
                "channel_timeout": CHANNEL_SECONDS,
                "transport_factory": partial(_transport, seconds, known_hosts.of(address.known_as)),
            },
        )
        # Fabric's own is to add any key silently.
        link.client.set_missing_host_key_policy(_Policy(address, known_hosts, say))
        try:
            link.open()
        except BaseException as error:
            link.client.close()
            sock.close()
            complaints.seek(0)
            if known := _connect_error(error, address, logins, complaints.read().decode(errors="replace")):
                raise known from error
            raise
    return SshConnection(link, sock, pulse, patience)


class _Policy(paramiko.MissingHostKeyPolicy):
    """First contact: pin the key and say so; after that, no other one. paramiko itself is given no keys to compare with."""

    def __init__(self, address: Address, known_hosts: KnownHosts, say: Callable[[str], None]) -> None:
        self._address, self._known_hosts, self._say = address, known_hosts, say

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Raises HostKeyChanged."""
        shown, name = HostKey(key.get_name(), key.get_base64()), self._address.known_as
        pinned = self._known_hosts.of(name)
        if not pinned:
            self._known_hosts.pin(name, shown)
            self._say(
                f"first contact with {self._address.name}: host key {shown.fingerprint} ({shown.kind}) is pinned from now on"
            )
        elif shown not in pinned:
            raise HostKeyChanged(
                f"{self._address.name} shows another host key than before: {shown.fingerprint} ({shown.kind}) instead of "
                + ", ".join(f"{key.fingerprint} ({key.kind})" for key in pinned),
                advice=f"if the machine was made anew on purpose, forget its key: ssh-keygen -R '{name}' "
                f"-f {self._known_hosts.path} – if not, somebody may stand between you and it",
            )


def _transport(seconds: float, pinned: list[HostKey], sock: Any, **options: Any) -> paramiko.Transport:
    transport = paramiko.Transport(sock, **options)
    # The key exchange of an emulated machine that is just booting takes longer than paramiko's 15 seconds.
    transport.handshake_timeout = seconds
    # Of a machine's host keys the pinned one is asked for.
    kinds = {key.kind for key in pinned}
    security = transport.get_security_options()
    security.key_types = sorted(
        security.key_types, key=lambda kind: kind not in kinds and not (kind[:4] == "rsa-" and "ssh-rsa" in kinds)
    )
    return transport


class _Socket(socket.socket):
    """A socket that remembers when it last heard something, and ends the `program` that is at its other end."""

    heard = 0.0
    program: subprocess.Popen[bytes] | None = None

    def recv(self, *arguments: Any) -> bytes:
        """As socket.recv."""
        data = super().recv(*arguments)
        self.heard = time.monotonic()
        return data

    def close(self) -> None:
        """As socket.close."""
        super().close()
        program, self.program = self.program, None
        if program is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGTERM)  # ssh sends SIGHUP, which what runs under nohup ignores
            threading.Thread(target=program.wait, name="ssh-proxy", daemon=True).start()


def _by_program(command: str, complaints: int) -> _Socket:
    """What a ProxyCommand connects to. Not paramiko's own, which does not notice the program's end.

    `complaints`: the file that the program's error messages go to.
    """
    near, far = socket.socketpair()
    sock = _Socket(fileno=near.detach())
    argv = [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"]  # as ssh runs it
    with far:
        # In a session of its own, so that Ctrl-C is ours to pass on.
        sock.program = subprocess.Popen(
            argv, stdin=far.fileno(), stdout=far.fileno(), stderr=complaints, start_new_session=True
        )
    return sock


def _dial(address: Address, seconds: float, dead_after: float) -> _Socket:
    """A TCP connection to the first of the host's addresses that takes one."""
    family = _FAMILIES.get(address.setting("addressfamily"), socket.AF_UNSPEC)
    try:
        targets = socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise MachineUnreachable(
            f"the name {address.host} cannot be resolved: {getattr(error, 'strerror', error)}",
            advice="check its spelling, or give an IP address",
        ) from error
    failed: OSError | None = None
    for family, kind, protocol, _, target in targets:
        sock = _Socket(family, kind, protocol)
        try:
            sock.settimeout(seconds)
            sock.connect(target)
        except OSError as error:
            sock.close()
            failed = error
            continue
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Data that nobody acknowledges ends the connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(dead_after * 1000))
        return sock
    raise no_way(failed, address, seconds) from failed


# --- what went wrong -----------------------------------------------------------------------------------------------


def no_way(error: OSError | None, address: Address, seconds: float) -> MachineUnreachable:
    """Why there is no TCP connection."""
    where = f"{address.host} port {address.port}"
    if isinstance(error, ConnectionRefusedError):
        return MachineUnreachable(
            f"{where} refuses connections: no SSH server listens there", advice="is sshd running?"
        )
    if isinstance(error, TimeoutError):
        return MachineUnreachable(
            f"{where} did not answer within {seconds:.0f} s",
            advice=f"is the machine up, and does a firewall drop the port? {_look(address)}",
        )
    if error is not None and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return MachineUnreachable(f"there is no route to {where}", advice="is the machine up, and on this network?")
    return MachineUnreachable(
        f"{where} cannot be reached: {error}", advice="is the machine up, and on this network? Is its address right?"
    )


def _connect_error(error: BaseException, address: Address, logins: Logins, proxy: str) -> LabError | None:
    """Our word for what Fabric raised; `proxy`: what the ProxyCommand complained of, if anything."""
    where = f"{address.host} port {address.port}"
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
    if isinstance(error, IncompatiblePeer):
        return MachineUnreachable(
            f"{where} and we know no common way to encrypt: {error}", advice="its sshd is too old"
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
