"""The tests' box booted by QEMU alone: for what needs a kernel with SELinux enforcing, but neither Vagrant nor libvirt.

`python -m tests.vm.guest BOX` boots one by hand until it is interrupted.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stacklab import places
from stacklab.errors import LabError
from stacklab.machines.address import Address
from stacklab.machines.ssh import SshMachine
from tests.vm import box

BOOT_SECONDS = 1200
"""Emulated, on a machine that is busy with other tests."""
GEMS, KEYS = Path("/usr/share/rubygems-integration/all/gems"), "vagrant-[0-9]*/keys/vagrant"


def missing() -> str | None:
    """Why no guest can be run here, or None. For `pytest.skip`."""
    if why := box.why_not():
        return why
    if shutil.which("qemu-system-x86_64") is None:
        return "run: apt-get install qemu-system-x86"
    return None if list(GEMS.glob(KEYS)) else "Vagrant's well-known key is not there; run: apt-get install vagrant"


def built_box() -> Path:
    """The box that all tests of this directory share, built if need be."""
    return box.box(places.cache_home())


@dataclass
class Guest:
    """A running guest. `console`: what it printed on its serial line."""

    machine: SshMachine
    console: Path

    def wait(self, seconds: float = BOOT_SECONDS) -> str:
        """Until it lets us in; returns its boot id."""
        until = time.monotonic() + seconds
        while True:
            try:
                return self.machine.run("cat", "/proc/sys/kernel/random/boot_id", seconds=60).out.strip()
            except LabError as error:  # on its way up or down it may as well refuse a login, or end a command
                if time.monotonic() > until:
                    said = self.console.read_text(errors="replace")[-1500:]
                    raise AssertionError(f"no SSH login within {seconds:.0f} s: {error.message}\n{said}") from error
                self.machine.close()
                time.sleep(3)

    def reboot(self) -> None:
        """In order; back when it lets us in again."""
        before = self.wait()
        with contextlib.suppress(LabError):  # it ends the connection over which it was told
            self.machine.run("systemctl", "reboot", user="root", check=False)
        until = time.monotonic() + BOOT_SECONDS
        while self.wait() == before:
            assert time.monotonic() < until, "it does not go down"
            time.sleep(3)


@contextlib.contextmanager
def guest(image: Path, scratch: Path) -> Iterator[Guest]:
    """A guest from a .box file, on a throw-away disk; gone at the end of the `with`."""
    with tarfile.open(image) as archive:
        archive.extract("box.img", scratch, filter="data")
    key = scratch / "key"
    key.write_bytes(sorted(GEMS.glob(KEYS))[-1].read_bytes())
    key.chmod(0o600)
    port, console = _free_port(), scratch / "console"
    argv = [
        "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "2", "-m", "1024", "-display", "none",
        "-serial", f"file:{console}", "-drive", f"file={scratch / 'box.img'},if=virtio",
        "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22", "-device", "virtio-net-pci,netdev=net",
    ]  # fmt: skip
    log = scratch / "qemu.log"
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    address = Address("127.0.0.1", "vagrant", port)
    machine = SshMachine(address, known_hosts=scratch / "known_hosts", key=key, connect=120, patience=180)
    running = Guest(machine, console)
    try:
        time.sleep(0.5)
        assert process.poll() is None, log.read_text(errors="replace")
        running.wait()
        yield running
    finally:
        machine.close()
        process.kill()
        process.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, guest(Path(sys.argv[1]), Path(directory)) as started:
        print(started.machine.name, "key", Path(directory) / "key")
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(1e6)
