"""What the tests of real instances share: start one in the running cloud, get into it, and look at it from outside."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import openstack
import pytest
from openstack.config import OpenStackConfig

from stacklab.cloud.access import SshEndpoint
from stacklab.homes.base import Home
from stacklab.images import find_image

LOGIN_SECONDS = 300  # emulated, beside other tests and a VM
PATIENCE = 300
"""Seconds after which something that comes soon has to be there, on a machine that does much else."""


def until(
    what: str, look: Callable[[], Any], seconds: float = PATIENCE, evidence: Callable[[], str] | None = None
) -> Any:
    """What `look` returns once it is true; fails with `what`, and the evidence there is, after a while."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            seen = f"\n{evidence()}" if evidence else ""
            raise AssertionError(f"after {seconds:.0f} s still not: {what}{seen}")
        time.sleep(0.3)


class Guests:
    """Instances of the admin project, with everything that they need, removed again by `clean`."""

    def __init__(self, home: Home, directory: Path) -> None:
        self.home = home
        self.access = home.access()
        self.cloud: Any
        self.image: Any
        region = OpenStackConfig(config_files=[str(self.access.clouds_file)]).get_one(self.access.admin)
        self.cloud = openstack.connection.Connection(config=region)
        self.instances = self.access.clouds_file.parent / "nova" / "instances"
        self.key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self.tag = f"guests-{os.getpid()}"
        image = find_image(None, lambda line: None)
        self.login = image.login_user
        self.image = self.cloud.create_image(
            self.tag, filename=str(image.path), disk_format=image.disk_format, container_format="bare", wait=True,
            os_shutdown_timeout=str(PATIENCE),  # a busy machine's guest may need longer than Nova waits by itself
        )  # fmt: skip
        self.flavor = self.cloud.compute.create_flavor(name=self.tag, ram=128, vcpus=1, disk=1)
        self.network = self.cloud.network.create_network(name=self.tag)
        self.cloud.network.create_subnet(network_id=self.network.id, name=self.tag, ip_version=4, cidr="10.77.0.0/24")
        self.cloud.compute.create_keypair(name=self.tag, public_key=self.key.with_suffix(".pub").read_text())
        self.servers: list[str] = []
        self.volumes: list[str] = []
        self.images: list[str] = [self.image.id]

    def start(self, name: str, **more: Any) -> Any:
        """An ACTIVE server."""
        if "block_device_mapping_v2" not in more:
            more.setdefault("image_id", self.image.id)
        server = self.cloud.compute.create_server(
            name=name, flavor_id=self.flavor.id, networks=[{"uuid": self.network.id}], key_name=self.tag, **more
        )
        self.servers.append(server.id)
        return self.wait(server, "ACTIVE")

    def wait(self, server: Any, status: str) -> Any:
        """The server once it has this status and no task under way."""

        def look() -> Any:
            now = self.cloud.compute.get_server(server.id)
            assert now.status != "ERROR", now.fault
            return now if now.status == status and now.task_state is None else None

        return until(f"{server.name} is {status}", look, 2 * PATIENCE)

    def volume(self, name: str, **more: Any) -> Any:
        """An available volume of 1 GB."""
        volume = self.cloud.create_volume(1, name=name, wait=True, timeout=PATIENCE, **more)
        self.volumes.append(volume.id)
        return volume

    def attach(self, server: Any, volume: Any) -> None:
        self.cloud.compute.create_volume_attachment(server.id, volume_id=volume.id)
        self._volume_is(volume, "in-use")

    def detach(self, server: Any, volume: Any) -> None:
        self.cloud.compute.delete_volume_attachment(server.id, volume.id)
        self._volume_is(volume, "available")

    def _volume_is(self, volume: Any, status: str) -> None:
        def look() -> bool:
            return bool(self.cloud.block_storage.get_volume(volume.id).status == status)

        until(f"{volume.name} is {status}", look)

    def address(self, server: Any) -> str:
        return str(next(iter(server.addresses.values()))[0]["addr"])

    def console(self, server: Any) -> str:
        return str(self.cloud.compute.get_server_console_output(server.id)["output"])

    def monitor(self, server: Any, *commands: str) -> list[Any]:
        """What QEMU answers to commands without arguments."""
        folder = os.open(self.instances / server.id, os.O_RDONLY | os.O_DIRECTORY)  # socket paths are limited
        try:
            with socket.socket(socket.AF_UNIX) as link, link.makefile("r") as answers:
                link.settimeout(15)
                link.connect(f"/proc/self/fd/{folder}/qmp")
                answers.readline()  # the greeting
                found = []
                for command in ("qmp_capabilities", *commands):
                    link.sendall(json.dumps({"execute": command}).encode() + b"\n")
                    lines = (json.loads(line) for line in answers)
                    found.append(next(line for line in lines if "event" not in line))
                return found[1:]
        finally:
            os.close(folder)

    def evidence(self, server: Any) -> str:
        """How far the guest is: the end of its console, and what QEMU says of it."""
        try:
            state = str(self.monitor(server, "query-status", "query-rx-filter", "query-blockstats"))
        except OSError as error:
            state = f"QEMU does not answer: {error}"
        try:
            console = (self.instances / server.id / "console.log").read_text(errors="replace")
        except OSError as error:
            console = f"none: {error}"
        return "\n".join([state, "the end of its console:", *console.splitlines()[-40:]])

    def pid(self, server: Any) -> int:
        return int((self.instances / server.id / "pid").read_text())

    def way(self, server: Any) -> SshEndpoint:
        way = self.access.ssh_endpoint(server.id)
        assert way is not None
        return way

    def _ssh(self, server: Any, command: str) -> subprocess.CompletedProcess[str]:
        way = self.way(server)
        # Not pinned here: every guest has a fresh key, and a port may have been another guest's before.
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        options += ["-o", "ConnectTimeout=10", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
        return subprocess.run(
            ["ssh", *options, *way.through, "-i", self.key, "-p", str(way.port), f"{self.login}@{way.host}", command],
            capture_output=True, text=True, check=False, timeout=LOGIN_SECONDS,
        )  # fmt: skip

    def run(self, server: Any, command: str) -> str:
        """What a command in the guest prints; waits for the guest's SSH server."""

        refused = ""

        def attempt() -> subprocess.CompletedProcess[str] | None:
            nonlocal refused
            done = self._ssh(server, command)
            refused = done.stderr.strip()
            return None if done.returncode == 255 else done  # 255: ssh's own failure

        def evidence() -> str:
            return f"ssh says: {refused}\n{self.evidence(server)}"

        done = until(f"SSH into {server.name}", attempt, LOGIN_SECONDS, evidence)
        assert done.returncode == 0, done.stderr
        return str(done.stdout.strip())

    def delete(self, server: Any) -> None:
        self.cloud.compute.delete_server(server.id)
        self.cloud.compute.wait_for_delete(server, interval=0.3, wait=PATIENCE)

    def _is_gone(self, server: str) -> bool:
        return self.cloud.compute.find_server(server) is None

    def clean(self) -> None:
        """Remove all that was made, whatever state it is in."""
        for server in self.servers:
            self.cloud.compute.delete_server(server, ignore_missing=True)
        for server in self.servers:
            until(f"server {server} is gone", partial(self._is_gone, server))
        for volume in self.volumes:
            self.cloud.delete_volume(volume, wait=True, timeout=PATIENCE)
        for image in self.images:
            self.cloud.image.delete_image(image, ignore_missing=True)
        self.cloud.compute.delete_keypair(self.tag)
        self.cloud.compute.delete_flavor(self.flavor.id)
        self.cloud.network.delete_network(self.network.id)


Some = TypeVar("Some", bound=Guests)


@contextmanager
def guests_of(home: Home, directory: Path, kind: type[Some]) -> Iterator[Some]:
    """Guests in a running cloud, removed at the end."""
    ability = home.access().hypervisor
    if not ability.there:
        pytest.skip(f"instances do not run here: {ability.why}")
    guests = kind(home, directory)
    try:
        yield guests
    finally:
        guests.clean()


def alive(pid: int) -> bool:
    """Whether a process runs (one that has ended, but that nobody waited for, does not)."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False
