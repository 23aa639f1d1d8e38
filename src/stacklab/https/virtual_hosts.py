"""What shall stand behind TLS: one virtual host for each of the cloud's services, worked out from the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from stacklab.cloud.connection import Connection
from stacklab.cloud.horizon import LOGIN

HORIZON, KEYSTONE, SWIFT = "horizon", "keystone", "swift"

TYPES = {
    "identity": KEYSTONE, "object-store": SWIFT, "compute": "nova", "image": "glance", "network": "neutron",
    "placement": "placement", "block-storage": "cinder", "volumev3": "cinder", "volumev2": "cinder", "volume": "cinder",
}  # fmt: skip
"""What people call the services of these types (the service-types authority's names, and older ones)."""

LOOK_AT = {SWIFT: "/info", HORIZON: LOGIN}
"""What to ask of a service to see that it answers; of the others their version document, which is full of links."""


@dataclass(frozen=True)
class VirtualHost:
    """A TLS server before one service.

    `host`, `port`: where it answers. `prefix`: the path that it passes on, `backend`: the same path on the service's own plain
    address. `ask`: what to ask to see that it works. `plain_port`: where plain HTTP is redirected from, if it is.
    """

    name: str
    host: str
    port: int
    prefix: str
    backend: str
    ask: str
    plain_port: int | None = None

    @property
    def public(self) -> str:
        """What public URLs begin with: `https://192.0.2.7:5000`; 443 goes without saying."""
        return f"https://{self.host}" + ("" if self.port == 443 else f":{self.port}")

    @property
    def plain(self) -> str:
        """What the service's own URLs begin with."""
        parts = urlsplit(self.backend)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def redirecting(self) -> str:
        """The plain address that leads here, where there is one: `http://192.0.2.7`."""
        return f"http://{self.host}" + ("" if self.plain_port == 80 else f":{self.plain_port}")

    def public_url(self, url: str) -> str:
        """A plain URL of the service as the virtual host has it."""
        rest = urlsplit(url)
        return f"{self.public}{rest.path}" + (f"?{rest.query}" if rest.query else "")


def shape(url: str) -> tuple[str, str]:
    """Of a plain URL the address (`http://192.0.2.7:9696`) and the path that is the service's own there.

    Behind one web server on port 80 each service has a path; on a port of its own everything is the service's.
    """
    parts = urlsplit(url)
    shared = parts.port in (None, 80)
    segment = parts.path.strip("/").split("/")[0] if shared else ""
    return f"{parts.scheme}://{parts.netloc}", f"/{segment}"


@dataclass(frozen=True)
class EndpointCatalogue:
    """What Keystone has at this moment: services and endpoints, as its API shows them."""

    services: list[dict[str, Any]]
    endpoints: list[dict[str, Any]]

    @classmethod
    def read(cls, admin: Connection) -> EndpointCatalogue:
        """Raises CloudRefused, CloudUnreachable."""
        services = admin.get("identity", "services")["services"]
        ids = {service["id"] for service in services}
        endpoints = [row for row in admin.get("identity", "endpoints")["endpoints"] if row["service_id"] in ids]
        return cls(services, sorted(endpoints, key=lambda row: (row["service_id"], row["interface"], row["id"])))

    def called(self, service_id: str) -> str:
        """What the catalogue calls a service."""
        service = next(service for service in self.services if service["id"] == service_id)
        return str(service.get("name") or service["type"])

    def of_interface(self, interface: str) -> list[dict[str, Any]]:
        """The enabled endpoints of enabled services."""
        enabled = {service["id"] for service in self.services if service.get("enabled", True)}
        return [
            row
            for row in self.endpoints
            if row["interface"] == interface and row.get("enabled", True) and row["service_id"] in enabled
        ]

    def plain(self) -> dict[str, tuple[str, str]]:
        """For each enabled service, by its id: its type and its plain URL: internal, else public, else admin."""
        types = {service["id"]: str(service["type"]) for service in self.services}
        rows = [row for interface in ("admin", "public", "internal") for row in self.of_interface(interface)]
        plain = [row for row in rows if row["url"].startswith("http://")]
        return {row["service_id"]: (types[row["service_id"]], row["url"]) for row in plain}


def plan(
    urls: Iterable[tuple[str, str]], dashboard: str, port_for: Callable[[str, int], int], plain_port: int
) -> dict[str, VirtualHost]:
    """The virtual hosts for these (type, plain URL) and the dashboard, by name.

    `port_for`: (name, the service's own port) → TLS port.
    """
    services: dict[tuple[str, str], tuple[str, str]] = {}
    for kind, url in sorted(urls, key=lambda pair: (pair[0] not in TYPES, pair[0])):
        services.setdefault(shape(url), (TYPES.get(kind, kind), url))  # not again by an older name of the service
    hosts = {name: _before(name, url, port_for) for name, url in services.values()}
    horizon = _before(HORIZON, dashboard, port_for)
    asked = f"{horizon.prefix.rstrip('/')}/{LOOK_AT[HORIZON]}"
    hosts[HORIZON] = replace(horizon, ask=asked, plain_port=plain_port)
    return hosts


def _before(name: str, url: str, port_for: Callable[[str, int], int]) -> VirtualHost:
    """The virtual host before what answers at this plain URL."""
    parts = urlsplit(url)
    address, prefix = shape(url)
    port = port_for(name, parts.port or 80)
    return VirtualHost(name, str(parts.hostname), port, prefix, f"{address}{prefix}", LOOK_AT.get(name, prefix))


def virtual_host_of(hosts: Mapping[str, VirtualHost], url: str) -> VirtualHost | None:
    """The virtual host that stands before a plain URL."""
    address, prefix = shape(url)
    return next((host for host in hosts.values() if host.backend == f"{address}{prefix}"), None)
