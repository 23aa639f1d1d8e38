"""The TLS server of one lab's cloud, as steps see it; each home has its own (`own`, `guest`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stacklab.files import read_json, write_json
from stacklab.https import fronts as planning
from stacklab.https import logins
from stacklab.https.authority import Authority, Names
from stacklab.https.facts import template
from stacklab.https.fronts import HORIZON, KEYSTONE, Front
from stacklab.https.options import get_option
from stacklab.machines.base import Machine


class Asks(Protocol):
    """Somebody who may look into Keystone; see `stacklab.kinds.kind.Person`."""

    def get(self, service: str, *path: str) -> Any:
        """The JSON answer of a GET."""


@dataclass(frozen=True)
class Setting:
    """What one option of a service's configuration must be (None: not set), and the units that read it."""

    file: str
    section: str
    option: str
    value: str | None
    units: tuple[str, ...]


@dataclass(frozen=True)
class Catalogue:
    """What Keystone has at this moment: services and endpoints, as its API shows them."""

    services: list[dict[str, Any]]
    endpoints: list[dict[str, Any]]

    @classmethod
    def read(cls, admin: Asks) -> Catalogue:
        """Raises CloudRefused, CloudUnreachable."""
        services = admin.get("identity", "services")["services"]
        known = {one["id"] for one in services}
        endpoints = [one for one in admin.get("identity", "endpoints")["endpoints"] if one["service_id"] in known]
        return cls(services, sorted(endpoints, key=lambda one: (one["service_id"], one["interface"], one["id"])))

    def plain(self) -> dict[str, tuple[str, str]]:
        """See `fronts.plain_urls`."""
        return planning.plain_urls(self.services, self.endpoints)

    def called(self, service_id: str) -> str:
        """What the catalogue calls a service."""
        one = next(one for one in self.services if one["id"] == service_id)
        return str(one.get("name") or one["type"])

    def of_interface(self, interface: str) -> list[dict[str, Any]]:
        """The enabled endpoints of enabled services."""
        on = {one["id"] for one in self.services if one.get("enabled", True)}
        return [
            one
            for one in self.endpoints
            if one["interface"] == interface and one.get("enabled", True) and one["service_id"] in on
        ]


class Https(ABC):
    """TLS before one lab's cloud. All methods raise MachineUnreachable and its kin where the cloud is on another machine.

    `directory`: on this machine, the lab's own for this (0700). `machine`: where Apache runs. `rewrite`: makes the home
    write its clouds.yaml.
    """

    plain_port: int
    """Where plain HTTP to Horizon is redirected from."""

    def __init__(self, directory: Path, lab: str, machine: Machine, rewrite: Callable[[], None]) -> None:
        self.directory = directory
        self.machine = machine
        self.clouds_file = directory.parent / "clouds.yaml"
        self._rewrite = rewrite
        self.authority = Authority(directory, f"lab {lab}: certificate authority")

    # --- what a home knows -----------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def dashboard(self) -> str:
        """Horizon's plain address."""

    @abstractmethod
    def why_not(self) -> str | None:
        """Why there can be no Apache here, and which package brings it; None if there can."""

    @abstractmethod
    def names(self) -> Names:
        """What the server certificate must be for."""

    @abstractmethod
    def port_for(self, name: str, own: int) -> int:
        """The TLS port of a front; `own`: where the service itself listens."""

    @property
    @abstractmethod
    def certificate_path(self) -> str:
        """Where Apache reads the certificate."""

    @property
    @abstractmethod
    def key_path(self) -> str:
        """Where Apache reads its key."""

    @abstractmethod
    def site_path(self, name: str) -> str:
        """The file of a front."""

    @abstractmethod
    def lines(self, names: Iterable[str]) -> list[str]:
        """The commands that make Apache use the fronts' files."""

    @abstractmethod
    def install(self) -> None:
        """Put the lab's certificate where Apache reads it, and let a running Apache read it."""

    @abstractmethod
    def uninstall(self) -> None:
        """Take it away from there."""

    @abstractmethod
    def before(self) -> dict[str, Any]:
        """What must be known of Apache, to be put back later, before the first front is made. JSON without secrets."""

    @abstractmethod
    def apply(self, contents: Mapping[str, str], kept: Mapping[str, Any]) -> None:
        """Write these sites (content by name) and make Apache serve them. Raises StepFailed with Apache's words."""

    @abstractmethod
    def withdraw(self, names: Iterable[str], kept: Mapping[str, Any]) -> bool:
        """Take the sites away; with the last of them everything that was done to Apache. False if none was there."""

    @abstractmethod
    def there(self) -> set[str]:
        """The names of the fronts whose files are there."""

    @abstractmethod
    def settings(self, catalogue: Catalogue) -> list[Setting]:
        """What the services' configuration must say."""

    @abstractmethod
    def restart(self, units: Iterable[str]) -> None:
        """Restart services and wait until they answer."""

    # --- what follows from that ------------------------------------------------------------------------------------

    def fronts(self, catalogue: Catalogue) -> dict[str, Front]:
        """One for each of the cloud's services and the dashboard, by name; those that are set up keep their ports."""
        return planning.plan(catalogue.plain().values(), self.dashboard, self.port_for, self.plain_port)

    def content(self, front: Front, fronts: Mapping[str, Front]) -> str:
        """The file of a front."""
        keystone = fronts.get(KEYSTONE)
        identity = (keystone.plain, keystone.public) if keystone and front.name != HORIZON else None
        return str(
            template("front.conf.j2").render(
                front=front,
                identity=identity,
                certificate=self.certificate_path,
                key=self.key_path,
                **self.listening(front),
            )
        )

    @abstractmethod
    def listening(self, front: Front) -> dict[str, Any]:
        """`address` of the virtual host, `listen` where it needs a line of its own, `own_plain_port`, `plain_listen`."""

    def read_text(self, path: str) -> str | None:
        """A file of the machine's."""
        content = self.machine.read(path)
        return None if content is None else content.decode(errors="replace")

    def wrong_settings(self, settings: Iterable[Setting]) -> list[tuple[Setting, str | None]]:
        """Those that are otherwise, with the value that is there. Files that are not there are no matter."""
        texts: dict[str, str | None] = {}
        wrong = []
        for one in settings:
            if one.file not in texts:
                texts[one.file] = self.read_text(one.file)
            text = texts[one.file]
            if text is None:
                continue
            value = get_option(text, one.section, one.option)
            if (value or "").lower() != (one.value or "").lower():
                wrong.append((one, value))
        return wrong

    # --- logins ----------------------------------------------------------------------------------------------------

    def begin_logins(self, identity: str) -> None:
        """clouds.yaml gets its entries for https. `identity`: Keystone's public address."""
        logins.begin(self.directory, self.clouds_file, identity, self.authority.certificate_file)
        self._rewrite()

    def end_logins(self) -> bool:
        """clouds.yaml as it was; False if there is nothing of ours."""
        return logins.end(self.directory, self.clouds_file, self._rewrite)

    # --- ports -----------------------------------------------------------------------------------------------------

    @property
    def _remembered(self) -> Path:
        return self.directory / "fronts.json"

    def remembered(self) -> dict[str, Front]:
        """The fronts that were set up, as they were then."""
        return {name: Front(**values) for name, values in (read_json(self._remembered) or {}).items()}

    def remember(self, fronts: Mapping[str, Front]) -> None:
        """Keep what is set up: its ports, before anything listens there."""
        if fronts:
            write_json(self._remembered, {name: front.to_json() for name, front in fronts.items()})
        else:
            self._remembered.unlink(missing_ok=True)
