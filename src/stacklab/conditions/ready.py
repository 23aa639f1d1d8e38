"""Is a cloud usable? Found out by using it: a token, the catalogue, every service's list, Horizon's login page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stacklab.cloud.connection import Connection
from stacklab.cloud.horizon import login_page
from stacklab.errors import LabError, ServiceFailed
from stacklab.stages import Progress
from stacklab.waiting import NotYet, until

SECONDS = 300
"""How long services may take: on an emulated machine a first answer takes its time."""

ADVICE = "lab status; lab fixes list; lab logs SERVICE"

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

SUPERSEDED = {
    "volume": {"volumev2", "volumev3", "block-storage"},
    "volumev2": {"volumev3", "block-storage"},
    "share": {"sharev2", "shared-file-system"},
}
"""Older APIs, by the newer ones that are asked instead. Pike's catalogue lists Cinder's first, and answers there with 404."""

NEEDED = ("identity", "image", "compute", "network")
Check = Callable[[], object]
"""Asks one thing of a cloud. Answers with NotYet, or raises a LabError, as long as it is not usable."""


def prove(
    admin: Connection,
    dashboard: str,
    progress: Progress,
    *,
    seconds: float = SECONDS,
    needed: Iterable[str] = NEEDED,
    only: Iterable[str] | None = None,
    more: Mapping[str, Check] | None = None,
    hopeless: Callable[[str, str], None] = lambda name, evidence: None,
    advice: str = ADVICE,
) -> str:
    """Ask until everything answers as it should; returns what was asked. Raises ServiceFailed: which, and what it said.

    `needed`: the types of service that must be there. `only`: the names of what to ask, instead of all. `more`: what else to
    ask, by name. `hopeless` is told of each that is not usable yet, and may raise where waiting is in vain.
    """

    def ask(name: str, check: Check) -> Any:
        def look() -> Any:
            try:
                answer = check()
            except LabError as error:
                answer = NotYet(error.message)
            except (KeyError, ValueError) as error:  # a service that is only just coming up may answer with anything
                answer = NotYet(f"{name} answers, but not with what it should: {error!r}")
            if isinstance(answer, NotYet):
                hopeless(name, answer.evidence)
            return answer

        what = f"a usable answer of {name}"
        return until(look, what, seconds=seconds, every=0.5, progress=progress, advice=advice, error=ServiceFailed)

    progress("asking identity for a token")
    types: set[str] = ask("identity", lambda: _catalogue(admin, set(needed)))
    asked = sorted(kind for kind in types if kind in LISTS and not SUPERSEDED.get(kind, set()) & types)
    checks: dict[str, Check] = {kind: _lister(admin, kind) for kind in asked}
    checks["compute services"] = lambda: services_up(admin, "compute", "nova-compute")
    checks["dashboard"] = lambda: _dashboard(dashboard, admin.verify)
    checks |= more or {}
    if only is not None:
        checks = {name: check for name, check in checks.items() if name in set(only)}
    progress(f"asking {', '.join(checks)}")
    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = [pool.submit(ask, name, check) for name, check in checks.items()]
        for answer in answers:
            answer.result()
    unknown = sorted(types - set(LISTS) - LEGACY)
    rest = f" (not asked, since unknown here: {', '.join(unknown)})" if unknown else ""
    return f"a token, the catalogue, a list from {', '.join(asked)}, the dashboard's login page{rest}"


def _lister(admin: Connection, kind: str) -> Check:
    return lambda: admin.get(kind, *LISTS[kind])


def listed(admin: Connection, kind: str, *path: str, within: str) -> list[dict[str, Any]] | NotYet:
    """What a service lists; not yet, where a proxy's page, say, stands in its place."""
    answer = admin.get(kind, *path)
    if not isinstance(answer, dict) or within not in answer:
        return NotYet(f"{kind} does not answer with {within}")
    entries: list[dict[str, Any]] = answer[within]
    return entries


def _catalogue(admin: Connection, needed: set[str]) -> set[str] | NotYet:
    admin.forget()  # a token from before a restart or a reset means nothing
    services = listed(admin, "identity", "services", within="services")
    if isinstance(services, NotYet):
        return services
    enabled = {str(service["type"]) for service in services if service.get("enabled", True)}
    if not needed <= enabled:
        return NotYet(f"the catalogue holds only {', '.join(sorted(enabled)) or 'nothing'}")
    return enabled


def services_up(admin: Connection, kind: str, *binaries: str) -> list[dict[str, Any]] | NotYet:
    """The inner services of a service, once all are up that are enabled, and these have reported."""
    services = listed(admin, kind, "os-services", within="services")
    if isinstance(services, NotYet):
        return services
    enabled = [service for service in services if service["status"] == "enabled"]
    down = [f"{service['binary']} on {service['host']}" for service in enabled if service["state"] != "up"]
    if down:
        return NotYet(f"down: {', '.join(down)}")
    silent = set(binaries) - {service["binary"] for service in services}
    return NotYet(f"no {', '.join(sorted(silent))} has reported yet") if silent else services


def _dashboard(dashboard: str, verify: bool | str) -> object:
    shown, evidence = login_page(dashboard, verify)
    return evidence if shown else NotYet(f"{dashboard} answers {evidence}")
