"""What every home can do. The CLI and the replay know homes only through this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from stacklab.cloud.access import CloudAccess, ServiceState
from stacklab.conditions.condition import Fault
from stacklab.errors import CheckpointMissing
from stacklab.https.server import Https
from stacklab.lab import Lab
from stacklab.logs import Log
from stacklab.machines.site import Site
from stacklab.stages import Progress, Stage

if TYPE_CHECKING:
    from stacklab.deploy.deployment import Deployment


@dataclass(frozen=True)
class HomeStatus:
    """`state`: absent, stopped, running, or degraded (some service is not well)."""

    state: str
    services: list[ServiceState] = field(default_factory=list)
    dashboard: str | None = None
    notes: list[str] = field(default_factory=list)


START = "start"
"""The checkpoint that a session begins with."""


class HomeCheckpoints:
    """Saved states of a home's cloud and files. These are of a home that has none; where there are some, all is overridden."""

    saves: ClassVar[bool] = False
    """Where it does not, a reset removes thing by thing (`stacklab.replay.clear`)."""

    def save(self, name: str, progress: Progress) -> None:
        """Save cloud and files under this name, replacing an earlier one only when the new one is whole."""
        self.verify(name)

    def names(self) -> list[str]:
        """What `restore` can go back to."""
        return []

    def start(self) -> str:
        """Settle which checkpoint is the start of the session that lab.json names; its name."""
        return START

    def verify(self, name: str) -> None:
        """Raises CheckpointMissing, CheckpointBroken where `restore` could not go back; touches nothing."""
        raise CheckpointMissing(
            "there are no checkpoints here: the machine is yours, and lab does not save it",
            advice="lab reset removes what is in the learner's project; or go back to a snapshot of your own",
        )

    def drop(self, name: str, progress: Progress) -> None:
        """Forget a checkpoint; nothing to do where there is none of this name."""

    def restore(self, name: str, progress: Progress) -> None:
        """Bring cloud and files back to a checkpoint; services keep running. Raises CheckpointMissing."""
        self.verify(name)


class Home(ABC):
    """Where a cloud lives. Every method may be called again after a crash of any earlier call."""

    name: ClassVar[str]
    lab: Lab
    checkpoints: HomeCheckpoints

    @abstractmethod
    def stages(self) -> Iterable[Stage]:
        """What `lab up` runs, in order; the last one leaves a usable cloud, proved by doing.

        It may be an iterator: what comes later may need what an earlier stage has made.
        """

    @abstractmethod
    def status(self) -> HomeStatus:
        """What is there now. Never waits, never writes."""

    @abstractmethod
    def access(self) -> CloudAccess:
        """How to reach the cloud. Raises NotRunning."""

    @abstractmethod
    def service_names(self) -> Iterable[str]:
        """What `logs` and `restart` may name. Asks nobody: the shell's completion waits for it."""

    @abstractmethod
    def logs(self, service: str | None) -> Mapping[str, Log]:
        """Logs by service name, all or the named one. Raises UnknownName."""

    @abstractmethod
    def restart(self, service: str, progress: Progress) -> None:
        """Restart one service and wait until it answers. Raises UnknownName, ServiceFailed."""

    @abstractmethod
    def site(self) -> Site:
        """The machine that the cloud runs on, for steps that run commands there."""

    @abstractmethod
    def faults(self) -> Mapping[str, Fault]:
        """What can be broken here on purpose, by the words that session files use; also what this cloud then refuses."""

    @abstractmethod
    def prove(self, progress: Progress) -> str:
        """Raises ServiceFailed unless the cloud is usable, found out by using it; says what was asked."""

    @abstractmethod
    def https(self) -> Https:
        """TLS in front of the cloud (session https-endpoints)."""

    @abstractmethod
    def down(self, progress: Progress) -> None:
        """Stop everything; what the learner made stays."""

    @abstractmethod
    def destroy(self, progress: Progress) -> Iterator[str]:
        """Remove everything of this home, yielding each thing removed."""

    @abstractmethod
    def deployment(self) -> Deployment:
        """What DevStack made of which machine. Raises HomeUnavailable where there is no machine of its own."""

    def others(self) -> list[Path]:
        """The directories of all other labs of this kind of home, also of those in other state directories."""
        return []

    def shares(self) -> dict[Path, str]:
        """The directories that labs of this kind of home share, and what lies there."""
        return {}
