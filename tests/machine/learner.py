"""A learner with a home directory of their own, who runs the command `lab`; ssh_config calls the machine `course`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from stacklab.machines.address import Address
from stacklab.machines.base import Machine
from stacklab.machines.ssh import SshMachine
from tests.systems import System

LAB = str(Path(sys.executable).with_name("lab"))
BESIDE = ("mariadb", "rabbitmq-server", "libvirtd")
"""What stands beside DevStack on a real machine, and here is a sleeping unit of the same name."""
SLEEPER = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
CONTAINER = {"container": {"title": "In a container", "why": "a test", "when": "container"}}
"""For `variants` of a profile."""


def put_sleepers(machine: Machine, *names: str) -> None:
    """Sleeping units of these names, that start at boot; Debian's own services as on CentOS 7, or a machine looks used."""
    machine.run("systemctl", "disable", "--now", "apache2", "memcached", user="root")
    for name in names:
        machine.put(f"/etc/systemd/system/{name}.service", SLEEPER)
    machine.run("systemctl", "daemon-reload", user="root")
    machine.run("systemctl", "enable", *names, user="root")  # started later: a machine with a database looks used


def connected(system: System) -> SshMachine:
    return SshMachine(Address(system.address, system.user), known_hosts=system.known_hosts, key=system.key)


class Learner:
    """`profile`: the text of a profile's file, for their own configuration directory."""

    def __init__(self, home: Path, system: System, machine: SshMachine, profile: dict[str, Any]) -> None:
        self.home, self.system, self.machine = home, system, machine
        self.image = home / "image.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.image, "1M"], check=True)
        config = f"Host course\n  HostName {system.address}\n  User {system.user}\n  IdentityFile {system.key}\n"
        self._write(".ssh/config", config)
        self._write(f".config/stacklab/profiles/{profile['name']}.yaml", json.dumps(profile))
        environment = {name: text for name, text in os.environ.items() if not name.startswith(("XDG_", "LAB_", "OS_"))}
        self.environment = environment | {"HOME": str(home), "NO_COLOR": "1"}

    def _write(self, name: str, text: str) -> None:
        (self.home / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.home / name).write_text(text)

    def configure(self, **deploy: object) -> None:
        """`deploy:` of config.yaml."""
        self._write(".config/stacklab/config.yaml", json.dumps({"deploy": deploy}))

    def lab(self, *arguments: str, expect: int = 0, seconds: float = 900) -> str:
        done = subprocess.run(
            [LAB, *arguments], env=self.environment, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [LAB, *arguments], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def up(self, *more: str, expect: int = 0) -> str:
        return self.lab("up", "session4", "--image", str(self.image), *more, expect=expect)
