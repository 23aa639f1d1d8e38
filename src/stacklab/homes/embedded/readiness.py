"""Proof that an embedded cloud is usable: what is asked of any cloud, and of what only this one lets us see."""

from __future__ import annotations

from stacklab.cloud.connection import Connection
from stacklab.conditions import ready
from stacklab.errors import NotRunning, ServiceFailed
from stacklab.homes.embedded import supervision
from stacklab.homes.embedded.layout import Layout
from stacklab.homes.embedded.services import urls
from stacklab.stages import Progress
from stacklab.waiting import NotYet

SECONDS = 120

CHECKS = {
    "keystone": ("identity",),
    "glance": ("image",),
    "placement": ("placement",),
    "neutron": ("network",),
    "nova": ("compute", "compute services", "conductor and scheduler", "the host's inventory"),
    "cinder": ("block-storage", "volume services", "the volume pools"),
    "swift": ("object-store",),
    "horizon": ("dashboard",),
}
"""What is asked of each service; the first is its type in the catalogue, which does not have Horizon."""


def prove(
    layout: Layout, ports: dict[str, int], progress: Progress, *, service: str | None = None, seconds: float = SECONDS
) -> None:
    """Ask each service, or only Keystone and this one, until it answers as it should.

    Raises ServiceFailed: which, what it said, its log; NotRunning where the service was stopped.
    """
    admin = Connection(layout.clouds_file, "lab-admin")
    owner = {check: name for name, names in CHECKS.items() for check in names}

    def hopeless(check: str, evidence: str) -> None:
        name = owner[check]
        state = next(state for state in supervision.services(layout) if state.name == name)
        if state.state == "stopped":
            raise NotRunning(f"{name} is not running", advice="lab up starts it")
        if state.state == "failed":
            last = supervision.last_line(layout.logs / f"{name}.log")
            raise ServiceFailed(
                f"{name} is not usable: {evidence}; its log last said: {last}", advice=f"lab logs {name}"
            )

    ready.prove(
        admin, urls(ports)["horizon"], progress, seconds=seconds, hopeless=hopeless,
        needed=[names[0] for name, names in CHECKS.items() if name != "horizon"], advice="lab status; lab logs SERVICE",
        only=CHECKS[service] if service else owner,
        more={
            "conductor and scheduler": lambda: ready.services_up(admin, "compute", "nova-conductor", "nova-scheduler"),
            "the host's inventory": lambda: _inventory(admin),
            "volume services": lambda: ready.services_up(admin, "block-storage", "cinder-volume", "cinder-scheduler"),
            "the volume pools": lambda: _pools(admin),
        },
    )  # fmt: skip


def _inventory(admin: Connection) -> object:
    for provider in admin.get("placement", "resource_providers")["resource_providers"]:
        if admin.get("placement", "resource_providers", provider["uuid"], "inventories")["inventories"]:
            return provider
    return NotYet("nova-compute has not told placement what its host has")


def _pools(admin: Connection) -> object:
    pools = admin.get("block-storage", "scheduler-stats", "get_pools")["pools"]
    return pools or NotYet("cinder-volume has not told the scheduler what its pool has")
