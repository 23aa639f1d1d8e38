"""The services of an embedded cloud: their processes, their addresses, and their ports.

Ports are chosen free, remembered, and replaced when somebody else took one meanwhile.
"""

from __future__ import annotations

import errno
import random
import socket
import time
from collections.abc import Callable, Sequence
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
OVN = Service("ovn", "Open vSwitch and OVN", (), forked=False)
NAMES = tuple(service.name for service in SERVICES)
PORT_NAMES = tuple(port for service in SERVICES for port in service.ports)

# Keystone users of the services; each has a password of its own in each lab.
USERS = ("placement", "glance", "neutron", "nova", "cinder", "swift")

_PATHS = {"keystone": "/v3", "nova": "/v2.1", "cinder": "/v3", "swift": "/v1/AUTH_%(project_id)s", "horizon": "/"}


def running_services(network: str) -> tuple[Service, ...]:
    """All processes of a cloud whose network is `ovn` or `user`."""
    return (OVN, *SERVICES) if network == "ovn" else SERVICES


def urls(ports: dict[str, int]) -> dict[str, str]:
    """The address of each service, as the catalogue gives it out."""
    return {name: f"http://127.0.0.1:{ports[name]}{_PATHS.get(name, '')}" for name in NAMES}


# --- ports ---------------------------------------------------------------------------------------------------------

# Below the range that Linux hands to outgoing connections (32768 and up), above what distributions assign.
LOWEST, HIGHEST = 20000, 31999


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


def choose_ports(
    names: Sequence[str], remembered: dict[str, int], free: Callable[[int], bool] = is_free, seconds: float = 0
) -> tuple[dict[str, int], list[str]]:
    """A free port for each name, the remembered one where it is still free; and the names whose port had to change.

    For so many seconds a remembered port that a dying process of ours still holds is waited for, not given up.
    """
    deadline = time.monotonic() + seconds
    while True:
        chosen: dict[str, int] = {}
        replaced = []
        for name in names:
            port = remembered.get(name)
            if port is None or port in chosen.values() or not free(port):
                if port is not None:
                    replaced.append(name)
                port = _another({*chosen.values(), *remembered.values()}, free)
            chosen[name] = port
        if not replaced or time.monotonic() > deadline:
            return chosen, replaced
        time.sleep(0.1)


def _another(avoid: set[int], free: Callable[[int], bool]) -> int:
    candidates = list(range(LOWEST, HIGHEST + 1))
    random.shuffle(candidates)
    for port in candidates:
        if port not in avoid and free(port):
            return port
    raise OSError(errno.EADDRINUSE, f"no free port between {LOWEST} and {HIGHEST}")
