"""What every home can do. The CLI and the replay know homes only through this."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from stacklab.cloud.access import CloudAccess, ServiceState
from stacklab.conditions.fault import Fault
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


class Home(Protocol):
    """Where a cloud lives. Every method may be called again after a crash of any earlier call."""

    name: ClassVar[str]
    saves: ClassVar[bool]
    """Whether it has checkpoints. Where it has none, a reset removes thing by thing (`stacklab.replay.clearing`)."""
    lab: Lab

    def stages(self) -> Iterable[Stage]:
        """What `lab up` runs, in order; the last one leaves a usable cloud, proved by doing.

        It may be an iterator: what comes later may need what an earlier stage has made.
        """

    def status(self) -> HomeStatus:
        """What is there now. Never waits, never writes."""

    def access(self) -> CloudAccess:
        """How to reach the cloud. Raises NotRunning."""

    def service_names(self) -> Iterable[str]:
        """What `logs` and `restart` may name. Asks nobody: the shell's completion waits for it."""

    def logs(self, service: str | None) -> Mapping[str, Log]:
        """Logs by service name, all or the named one. Raises UnknownName."""

    def restart(self, service: str, progress: Progress) -> None:
        """Restart one service and wait until it answers. Raises UnknownName, ServiceFailed."""

    def site(self) -> Site:
        """The machine that the cloud runs on, for steps that run commands there."""

    def faults(self) -> Mapping[str, Fault]:
        """What can be broken here on purpose, by the words that session files use; also what this cloud then refuses."""

    def prove(self, progress: Progress) -> str:
        """Raises ServiceFailed unless the cloud is usable, found out by using it; says what was asked."""

    def https(self) -> Https:
        """TLS in front of the cloud (session https-endpoints)."""

    def checkpoint(self, name: str, progress: Progress) -> None:
        """Save cloud and files under this name, replacing an earlier one only when the new one is whole."""

    def checkpoints(self) -> list[str]:
        """Names of what `restore` can go back to."""

    def begin(self) -> str:
        """Settle which checkpoint is the start of the session that lab.json names; its name."""

    def verify(self, name: str) -> None:
        """Raises CheckpointMissing, CheckpointBroken where `restore` could not go back; touches nothing."""

    def drop(self, name: str, progress: Progress) -> None:
        """Forget a checkpoint; nothing to do where there is none of this name."""

    def restore(self, name: str, progress: Progress) -> None:
        """Bring cloud and files back to a checkpoint; services keep running. Raises CheckpointMissing."""

    def down(self, progress: Progress) -> None:
        """Stop everything; what the learner made stays."""

    def destroy(self, progress: Progress) -> Iterator[str]:
        """Remove everything of this home, yielding each thing removed."""

    def deployment(self) -> Deployment:
        """What DevStack made of which machine. Raises HomeUnavailable where there is no machine of its own."""

    def others(self) -> list[Path]:
        """The directories of all other labs of this kind of home, also of those in other state directories."""

    def shares(self) -> dict[Path, str]:
        """The directories that labs of this kind of home share, and what lies there."""
