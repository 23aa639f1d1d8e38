"""TLS before one lab's cloud, as steps see it: authority, virtual hosts, and what was there before."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stacklab.errors import StepFailed
from stacklab.files import read_precious, remove_precious, write_precious
from stacklab.https import virtual_hosts
from stacklab.https.apache import Apache
from stacklab.https.authority import Authority
from stacklab.https.configuration import ServiceConfiguration
from stacklab.https.virtual_hosts import HORIZON, EndpointCatalogue, VirtualHost
from stacklab.waiting import NotYet, until

APACHE, FRONTS = "apache", "fronts"
"""What the lab calls its notes of how Apache was, and of the virtual hosts that were set up."""
RELOAD_SECONDS = 30


class NoTls(Exception):
    """There is no TLS server there; the message says what there is."""


def certificate_of(host: str, port: int) -> bytes:
    """The certificate that a server shows, whatever it is worth: DER. Raises NoTls."""
    try:
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, port), timeout=20))
    except ConnectionRefusedError as error:
        raise NoTls(f"{host}:{port}: nobody listens there") from error
    except OSError as error:  # ssl.SSLError is one
        raise NoTls(f"{host}:{port}: no TLS ({error})") from error


class Https:
    """TLS before one lab's cloud. All methods raise MachineUnreachable and its kin where the cloud is on another machine.

    `directory`: on this machine, the lab's own for this (0700). `dashboard`: Horizon's plain address. `rewrite`: makes the
    home write its clouds.yaml.
    """

    def __init__(
        self,
        directory: Path,
        lab: str,
        apache: Apache,
        configuration: ServiceConfiguration,
        dashboard: Callable[[], str],
        rewrite: Callable[[], None],
    ) -> None:
        self.directory = directory
        self.authority = Authority(directory, f"lab {lab}: certificate authority")
        self.apache = apache
        self.configuration = configuration
        self.dashboard = dashboard
        self.clouds_file = directory.parent / "clouds.yaml"
        self.rewrite = rewrite

    def why_not(self) -> str | None:
        """Why there can be no Apache, and which package brings it; None if there can: DevStack itself needs Apache."""
        return None

    # --- virtual hosts ---------------------------------------------------------------------------------------------

    def planned(self, catalogue: EndpointCatalogue) -> dict[str, VirtualHost]:
        """A virtual host for each of the cloud's services and the dashboard, by name; those that are there keep their ports."""
        present = self.remembered()
        ours = [port for host in present.values() for port in (host.port, host.plain_port) if port]

        def port_for(name: str, own: int) -> int:
            return present[name].port if name in present else self.apache.port_for(name, own, ours)

        horizon = present.get(HORIZON)
        plain_port = (horizon.plain_port if horizon else None) or self.apache.plain_port()
        return virtual_hosts.plan(catalogue.plain().values(), self.dashboard(), port_for, plain_port)

    def before(self) -> dict[str, Any]:
        """What must be known of Apache to put it back, as it was before the first virtual host."""
        before = self._noted(APACHE)
        if before is None:
            before = self.apache.before()
            self._note(APACHE, before)
        return before

    def serve(self, hosts: Mapping[str, VirtualHost], among: Mapping[str, VirtualHost]) -> None:
        """Make Apache serve these, which are `among` all planned ones. Raises StepFailed with Apache's words."""
        self.before()
        self.remember({**self.remembered(), **hosts})  # its ports, before anything listens there
        self.apache.serve({name: self.apache.content(host, among) for name, host in hosts.items()})
        self.await_certificate(hosts.values())

    def withdraw(self, names: Iterable[str], before: Mapping[str, Any]) -> bool:
        """Take these away; with the last of them everything that was done to Apache. False if none was there."""
        removed = self.apache.remove(names, before)
        left = self.apache.there()
        self.remember({name: host for name, host in self.remembered().items() if name in left})
        if not left:
            self._forget(APACHE)
        return removed

    def serving(self) -> list[VirtualHost]:
        """Those that are there, as they were set up."""
        there = self.apache.there()
        return [host for name, host in self.remembered().items() if name in there]

    def remembered(self) -> dict[str, VirtualHost]:
        """The virtual hosts that were set up, as they were then."""
        return {name: VirtualHost(**values) for name, values in (self._noted(FRONTS) or {}).items()}

    def remember(self, hosts: Mapping[str, VirtualHost]) -> None:
        """Keep what is set up."""
        if hosts:
            self._note(FRONTS, {name: asdict(host) for name, host in hosts.items()})
        else:
            self._forget(FRONTS)

    # --- the certificate -------------------------------------------------------------------------------------------

    def issue(self, *, expired: bool = False) -> None:
        """A new certificate where Apache reads it, and let a running Apache read it. Raises StepFailed.

        `expired`: one whose time is over since an hour, as the fault `expired-certificate` serves it.
        """
        if expired:
            self.authority.expire()
        else:
            self.authority.issue(self.apache.names)
        self.install()

    def install(self) -> None:
        """Put the lab's certificate where Apache reads it, and let a running Apache read it."""
        self.apache.install(self.directory)
        if hosts := self.serving():
            self.apache.reload()
            self.await_certificate(hosts)

    def await_certificate(self, hosts: Iterable[VirtualHost]) -> None:
        """Until all these show the lab's certificate: after a reload the old processes answer for a moment."""
        mine = ssl.PEM_cert_to_DER_cert(self.authority.server_certificate_file.read_text(encoding="ascii"))
        for host in hosts:

            def shown(host: VirtualHost = host) -> bool | NotYet:
                try:
                    right = certificate_of(host.host, host.port) == mine
                except NoTls as error:
                    return NotYet(str(error))
                return True if right else NotYet("another certificate")

            what = f"the new certificate of {host.name}'s virtual host"
            until(shown, what, seconds=RELOAD_SECONDS, every=0.1, error=StepFailed)

    # --- what the lab notes in its directory -------------------------------------------------------------------------

    def _note(self, what: str, content: Mapping[str, Any]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_precious(self.directory / f"{what}.json", dict(content))

    def _noted(self, what: str) -> dict[str, Any] | None:
        content: dict[str, Any] | None = read_precious(self.directory / f"{what}.json")
        return content

    def _forget(self, what: str) -> None:
        remove_precious(self.directory / f"{what}.json")
