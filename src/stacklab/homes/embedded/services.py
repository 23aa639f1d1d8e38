"""The services of an embedded cloud: their processes, ports and addresses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """One process. `forked` from the supervisor's preloaded libraries (native threads) or started apart (eventlet)."""

    name: str
    title: str
    ports: tuple[str, ...]
    forked: bool = True


SERVICES = (
    Service("keystone", "identity", ("keystone",)),
    Service("placement", "placement", ("placement",)),
    Service("glance", "image", ("glance",)),
    Service("neutron", "network", ("neutron",)),
    Service("nova", "compute", ("nova",)),
    Service("horizon", "dashboard", ("horizon",)),
    Service("cinder", "volume", ("cinder",), forked=False),
    Service("swift", "object store", ("swift",), forked=False),
)
NAMES = tuple(service.name for service in SERVICES)
PORT_NAMES = tuple(port for service in SERVICES for port in service.ports)

# Keystone users of the services; each has a password of its own in each lab.
USERS = ("placement", "glance", "neutron", "nova", "cinder", "swift")

_PATHS = {"keystone": "/v3", "nova": "/v2.1", "cinder": "/v3", "swift": "/v1/AUTH_%(project_id)s", "horizon": "/"}


def urls(ports: dict[str, int]) -> dict[str, str]:
    """The address of each service, as the catalogue gives it out."""
    return {name: f"http://127.0.0.1:{ports[name]}{_PATHS.get(name, '')}" for name in NAMES}
