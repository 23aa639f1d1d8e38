"""A session at a machine whose cloud nobody asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stacklab.cloud.access import Ability, CloudAccess
from stacklab.cloud.connection import Connection
from stacklab.course.session import Session
from stacklab.kinds.context import Workspace
from stacklab.machines.site import Site


def no_cloud() -> Any:
    """There is none."""
    raise AssertionError("no cloud here")


def workspace_on(
    site: Site, session: Session, directory: Path, say: Callable[[str], None] = lambda text: None
) -> Workspace:
    """The session at this machine. `directory`: where clouds.yaml would be."""
    able, clouds = Ability(True), directory / "clouds.yaml"
    access = CloudAccess(clouds, "lab-admin", "lab-learner", able, able, lambda server: None)
    connections = (Connection(clouds, "lab-admin"), Connection(clouds, "lab-learner"))
    return Workspace(
        session, access, *connections, {}, lambda name: "", say, lambda: site, no_cloud, no_cloud, no_cloud
    )
