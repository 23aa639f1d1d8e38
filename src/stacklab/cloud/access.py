"""How a home's cloud is reached, and what it can do: what homes tell and everybody above them reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LEARNER = {"learner": "learner", "learner_project": "lab-project"}
"""Variables that every session has: the user and project that `as: learner` means. A home's clouds.yaml logs in as them."""


@dataclass(frozen=True)
class Ability:
    """Whether a cloud can do something, and if not (or only in part), why, in words for a learner."""

    there: bool
    why: str = ""


@dataclass(frozen=True)
class SshEndpoint:
    """Where SSH from this machine reaches an instance, and what that address stands for.

    `through`: more options for ssh, where the address can be reached only by way of another machine.
    """

    host: str
    port: int
    why: str = ""
    through: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServiceState:
    """One service of a home's cloud. `state`: running, starting, failed, stopped. `reason`: why it is not running."""

    name: str
    state: str
    pid: int | None = None
    since: float | None = None
    restarts: int = 0
    reason: str = ""
    log: Path | None = None
    memory: int | None = None  # bytes, proportional set size


@dataclass(frozen=True)
class CloudAccess:
    """How to reach a home's cloud.

    `clouds_file` is a clouds.yaml (0600) with the two entries named here; `ssh_endpoint` maps a server's id to where its SSH
    is reached, or None. `hypervisor`: instances really run. `data_path`: packets reach them from this machine. `inside`: the
    words before a command that is to run in the network of the cloud's machine, where that is not this machine's own.
    """

    clouds_file: Path
    admin: str
    learner: str
    hypervisor: Ability
    data_path: Ability
    ssh_endpoint: Callable[[str], SshEndpoint | None]
    dashboard: str | None = None
    inside: tuple[str, ...] = ()
