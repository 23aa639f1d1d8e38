"""Where everything of one embedded cloud lies below its home directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# What a checkpoint saves besides the databases, below the home directory.
DATA = ("images", "volumes", "nova", "swift", "https")


DATABASES = tuple(
    f"{name}.db"
    for name in ("cinder", "glance", "keystone", "neutron", "nova_api", "nova_cell0", "nova_cell1", "placement")
)

_DIRECTORIES = (
    "checkpoints", "cinder/conversion", "conf/swift", "dashboard", "db", "https", "images", "keys", "locks", "logs", "neutron",
    "nova/instances", "run", "staging", "swift", "tasks", "volumes",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The paths of a cloud; `make` creates the directories (0700: passwords and disks of instances lie in them)."""

    home: Path

    @property
    def conf(self) -> Path:
        return self.home / "conf"

    @property
    def db(self) -> Path:
        return self.home / "db"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def instances(self) -> Path:
        return self.home / "nova" / "instances"

    @property
    def checkpoints(self) -> Path:
        return self.home / "checkpoints"

    @property
    def scratch(self) -> Path:
        """Where the steps of sessions keep their files; a restore empties it."""
        return self.home / "scratch"

    @property
    def clouds_file(self) -> Path:
        return self.home / "clouds.yaml"

    @property
    def state_file(self) -> Path:
        """How the services are; the supervisor writes it."""
        return self.run / "state.json"

    @property
    def cloud_file(self) -> Path:
        """What the processes inside read: ports, addresses, services."""
        return self.run / "cloud.json"

    @property
    def made_file(self) -> Path:
        """What the cloud was made as, its ports too. Written last; without it what lies here is not a cloud yet."""
        return self.home / "made.json"

    def make(self) -> None:
        for name in _DIRECTORIES:
            (self.home / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        self.home.chmod(0o700)
