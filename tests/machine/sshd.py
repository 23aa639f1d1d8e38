"""A real sshd on a free port of the loopback interface, as the current user, with keys and configuration of its own.

As root it lets in every account; as an ordinary user it lets in that user only. Nothing of the machine's own sshd or of ~/.ssh
is read or changed.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from stacklab.machines.address import Address
from stacklab.machines.ssh import SshMachine

STARTS_WITHIN = 60.0


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def new_key(path: Path, kind: str = "ed25519") -> Path:
    """A key pair without a passphrase: `path` and `path`.pub."""
    size = ["-b", "2048"] if kind == "rsa" else []
    argv = ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "lab test", "-f", str(path)]
    subprocess.run(argv, check=True)
    return path


def fingerprint(key: Path) -> str:
    """`SHA256:…`"""
    argv = ["ssh-keygen", "-l", "-f", str(key)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[1]


class Sshd:
    """`directory` gets everything; `options` are lines for sshd_config. Use `start`, `machine`, `stop`."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.user = getpass.getuser()
        self.known_hosts = directory / "known_hosts"
        self.key = new_key(directory / "user_key")
        self.host_key = new_key(directory / "host_key")
        self.log = directory / "sshd.log"
        self.authorized = directory / "authorized_keys"
        self.authorized.write_text(self.key.with_suffix(".pub").read_text())
        self._config = directory / "sshd_config"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()  # last: it is free until somebody else takes it
        self.configure(*options)

    def configure(self, *options: str) -> None:
        """Write sshd_config; the first of two values counts, so `options` win."""
        root = os.getuid() == 0
        lines = [
            *options,
            "ListenAddress 127.0.0.1",
            f"Port {self.port}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.authorized}",
            f"PidFile {self.directory}/sshd.pid",
            "StrictModes no",  # the keys lie below a directory that pytest made
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            f"UsePAM {'yes' if root else 'no'}",
            "PermitRootLogin yes",
            "PrintMotd no",
            "MaxStartups 100",
            "AcceptEnv NOTHING",
            "SetEnv SHLVL=2",  # with it bash does not take itself for sshd's first shell, and leaves the user's ~/.bashrc alone
            "Subsystem sftp internal-sftp",
        ]
        self._config.write_text("".join(f"{line}\n" for line in lines))

    def start(self) -> Sshd:
        """Start it and wait until it listens."""
        Path("/run/sshd").mkdir(exist_ok=True) if os.getuid() == 0 else None
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "openssh-server is not installed"
        self._process = subprocess.Popen(
            [program, "-D", "-f", str(self._config), "-E", str(self.log)],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"sshd does not listen: {self.log.read_text() if self.log.exists() else 'no log'}")

    def stop(self) -> None:
        """Stop listening; sessions that stand go on, as with a real sshd."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=60)
            self._process = None

    def sessions(self) -> list[int]:
        """The processes of the connections that it serves, and their children."""
        if self._process is None:
            return []
        return descendants(self._process.pid)

    def end_sessions(self) -> None:
        """Kill every connection, as a crash would."""
        for pid in self.sessions():
            kill(pid)

    def machine(self, **options: Any) -> SshMachine:
        """A machine of the current user's on this sshd. `options` as SshMachine's; `address` for another one."""
        address = options.pop("address", None) or Address("127.0.0.1", options.pop("user", self.user), self.port)
        return SshMachine(address, **{"known_hosts": self.known_hosts, "key": self.key, **options})


class Proxy:
    """A TCP proxy in front of a port; `freeze` makes it a network that hangs: connections stand, and nothing passes.

    `cut_after`: how many bytes it takes towards the port before it ends all connections.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.cut_after: int | None = None
        self._taken = 0
        self._flowing = threading.Event()
        self._flowing.set()
        self._over = False
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Let nothing pass from now on."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Let everything pass again."""
        self._flowing.set()

    def close(self) -> None:
        """End it and all connections."""
        self._over = True
        self._flowing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.end_connections()

    def end_connections(self) -> None:
        """End those that stand, in the middle of whatever passes; new ones work."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._over:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                continue
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), sink:
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
                self._taken += len(data)
                if self.cut_after is not None and self._taken > self.cut_after:
                    self.cut_after = None
                    self.end_connections()


def kill(pid: int, signal_: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone already."""
    try:
        os.kill(pid, signal_)
    except ProcessLookupError:
        return


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    below = list(parents.get(pid, []))
    for child in below:
        below += parents.get(child, [])
    return below
