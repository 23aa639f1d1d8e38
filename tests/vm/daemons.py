"""libvirt's daemons where no init system starts them: started for the tests, and exactly those stopped again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from stacklab.homes.libvirt.accelerator import find_accelerator
from stacklab.waiting import looks

SOCKETS = {"virtlogd": Path("/run/libvirt/virtlogd-sock"), "libvirtd": Path("/run/libvirt/libvirt-sock")}
SECONDS = 30
NO_BINDING = "no libvirt module for Python here: pip install 'stacklab[libvirt]'"
# A /dev/kvm that is there but does not work makes libvirt ask QEMU for its abilities at every single call, which takes seconds.
# So libvirtd sees none, in a mount namespace of its own; `namespaces`: carrying that mount into each VM's /dev fails.
HIDE_KVM = """
cd "$1"; shift
: >no-kvm
cat /etc/libvirt/qemu.conf >qemu.conf
echo 'namespaces = []' >>qemu.conf
mount --bind no-kvm /dev/kvm
mount --bind qemu.conf /etc/libvirt/qemu.conf
exec "$@"
"""


def listens(path: Path) -> bool:
    """Whether somebody answers at a unix socket. The file alone says nothing: a killed daemon leaves it."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def why_not() -> str | None:
    """Why tests with real VMs cannot run here, and the command that changes it."""
    if not find_spec("libvirt"):
        return NO_BINDING
    if listens(SOCKETS["libvirtd"]):
        return None
    if Path("/run/systemd/system").is_dir():
        return "libvirt does not run: sudo systemctl start libvirtd"
    if os.geteuid() != 0:
        return "libvirt does not run, and only root may start it: run the tests as root, or start libvirtd"
    if not Path("/usr/sbin/libvirtd").exists():
        return "libvirt is not installed: apt-get install -y libvirt-daemon-system vagrant-libvirt"
    return None


@contextmanager
def daemons(directory: Path) -> Iterator[None]:
    """virtlogd and libvirtd listen. What is started here gets its pid file and its log in `directory`, and ends afterwards."""
    started: list[int] = []
    try:
        for name, path in SOCKETS.items():
            if not listens(path):
                started.insert(0, _start(name, path, directory))
        yield
    finally:
        for pid in started:
            _stop(pid)


def _start(name: str, path: Path, directory: Path) -> int:
    pid_file = directory / f"{name}.pid"
    path.parent.mkdir(parents=True, exist_ok=True)
    with (directory / f"{name}.log").open("wb") as log:
        command = [f"/usr/sbin/{name}", "--daemon", "--pid-file", str(pid_file)]
        if name == "libvirtd" and find_accelerator().driver == "qemu" and Path("/dev/kvm").exists():
            hide = ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", HIDE_KVM, "sh", str(directory)]
            command = [*hide, *command]
        subprocess.run(command, stdout=log, stderr=log, check=True)
    if not any(looks(lambda: listens(path) and pid_file.exists(), SECONDS, 0.1)):
        raise AssertionError(f"{name} does not listen at {path}: {(directory / f'{name}.log').read_text()}")
    return int(pid_file.read_text())


def _stop(pid: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        if any(looks(lambda: not Path(f"/proc/{pid}").exists(), SECONDS, 0.2)):
            return
