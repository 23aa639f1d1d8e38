"""Is a cloud that DevStack made usable? Found out by using it: a token, the catalogue, every service's list, the login page."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stacklab.cloud.connection import Connection
from stacklab.errors import LabError, ServiceFailed
from stacklab.stages import Progress

SECONDS = 300
"""How long services may take: on an emulated machine a first answer takes its time."""

# API references, docs.openstack.org/api-ref: the shortest list of each type of service, with the header a version needs.
LISTS: dict[str, tuple[str, ...]] = {
    "identity": ("projects",),
    "image": ("images",),
    "compute": ("servers",),
    "network": ("networks",),
    "placement": ("resource_providers",),
    "volume": ("volumes",),
    "volumev2": ("volumes",),
    "volumev3": ("volumes",),
    "block-storage": ("volumes",),
    "object-store": (),
    "orchestration": ("stacks",),
    "key-manager": ("v1", "secrets"),
    "dns": ("v2", "zones"),
    "shared-file-system": ("shares",),
    "sharev2": ("shares",),
    "share": ("shares",),
    "container-infra": ("clusters",),
    "database": ("instances",),
    "data-processing": ("clusters",),
    "baremetal": ("v1", "nodes"),
    "messaging": ("v2", "queues"),
    "application-catalog": ("v1", "environments"),
    "metric": ("v1", "metric"),
    "alarming": ("v2", "alarms"),
    "load-balancer": ("v2", "lbaas", "loadbalancers"),
}
LEGACY = {"compute_legacy", "cloudformation", "event", "metering"}
"""Older or second APIs of services that are asked through their first."""


class NotYet(LabError):
    """A service answered, but not as a usable one."""

    id = "not-yet"


def prove(admin: Connection, dashboard: str, progress: Progress, *, seconds: float = SECONDS) -> str:
    """Ask until everything answers as it should; returns what was asked. Raises ServiceFailed: which, and what it said."""
    deadline = time.monotonic() + seconds
    progress("asking identity for a token")
    types = _until("identity", lambda: _catalogue(admin), deadline, progress)
    asked = sorted(kind for kind in types if kind in LISTS)
    unknown = sorted(types - set(asked) - LEGACY)
    checks: dict[str, Callable[[], Any]] = {kind: _lister(admin, kind) for kind in asked}
    checks["compute services"] = lambda: _compute_up(admin)
    checks["dashboard"] = lambda: _login_page(dashboard, admin.verify)
    progress(f"asking {', '.join(checks)}")
    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = [pool.submit(_until, name, check, deadline, progress) for name, check in checks.items()]
        for answer in answers:
            answer.result()
    rest = f" (not asked, since unknown here: {', '.join(unknown)})" if unknown else ""
    return f"a token, the catalogue, a list from {', '.join(asked)}, the dashboard's login page{rest}"


def _lister(admin: Connection, kind: str) -> Callable[[], Any]:
    return lambda: admin.get(kind, *LISTS[kind])


def _listed(admin: Connection, kind: str, *path: str, within: str) -> list[dict[str, Any]]:
    answer = admin.get(kind, *path)
    if not isinstance(answer, dict) or within not in answer:  # a proxy's page, say, in place of the service
        raise NotYet(f"{kind} does not answer with {within}")
    found: list[dict[str, Any]] = answer[within]
    return found


def _catalogue(admin: Connection) -> set[str]:
    admin.forget()  # a token from before a restart or a reset means nothing
    services = _listed(admin, "identity", "services", within="services")
    enabled = {str(service["type"]) for service in services if service.get("enabled", True)}
    if not {"identity", "image", "compute", "network"} <= enabled:
        raise NotYet(f"the catalogue holds only {', '.join(sorted(enabled)) or 'nothing'}")
    return enabled


def _compute_up(admin: Connection) -> None:
    services = _listed(admin, "compute", "os-services", within="services")
    down = [
        f"{one['binary']} on {one['host']}" for one in services if one["state"] != "up" and one["status"] == "enabled"
    ]
    if down:
        raise NotYet(f"down: {', '.join(down)}")
    if "nova-compute" not in {one["binary"] for one in services}:
        raise NotYet("no nova-compute has reported yet")


def _login_page(dashboard: str, verify: bool | str) -> None:
    import requests

    try:
        answer = requests.get(f"{dashboard.rstrip('/')}/auth/login/", timeout=60, verify=verify)
    except requests.RequestException as error:
        raise NotYet(f"{dashboard} does not answer: {type(error).__name__}") from error
    if answer.status_code != 200 or 'name="password"' not in answer.text:
        raise NotYet(f"{dashboard} answers {answer.status_code} without a login form")


def _until(name: str, ask: Callable[[], Any], deadline: float, progress: Progress) -> Any:
    while True:
        try:
            return ask()
        except LabError as error:
            trouble = error.message
        if time.monotonic() > deadline:
            raise ServiceFailed(
                f"{name} is not usable: {trouble}", advice="lab status; lab fixes list; lab logs SERVICE"
            )
        progress(f"{name}: {trouble}")
        time.sleep(2)
