"""The TLS server of one lab's cloud, as steps see it; each home has its own (`own`, `guest`)."""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stacklab.errors import StepFailed
from stacklab.files import read_json, write_json
from stacklab.https import fronts as planning
from stacklab.https import logins
from stacklab.https.authority import RENEW_DAYS, Authority, Names, days_left, fingerprint, names_of
from stacklab.https.facts import template
from stacklab.https.fronts import HORIZON, KEYSTONE, Front
from stacklab.https.options import get_option, set_option
from stacklab.https.peer import NoTls, certificate_of
from stacklab.machines.base import Machine


class Asks(Protocol):
    """Somebody who may look into Keystone; see `stacklab.kinds.kind.Connection`."""

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
    def copying(self) -> list[str]:
        """The commands that bring the lab's certificate to where Apache reads it."""

    @abstractmethod
    def installed(self) -> bool:
        """Whether Apache's files are those that the lab keeps."""

    @abstractmethod
    def uninstall(self) -> None:
        """Take it away from there."""

    @abstractmethod
    def before(self) -> dict[str, Any]:
        """What must be known of Apache, to be put back later, before the first front is made. JSON without secrets."""

    @abstractmethod
    def apply(self, contents: Mapping[str, str]) -> None:
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

    @abstractmethod
    def restarting(self, units: Iterable[str]) -> list[str]:
        """The commands that restart services."""

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

    def groundwork(self) -> dict[str, str]:
        """Files that the first front needs beside its own, by path; empty where Apache has its own configuration."""
        return {}

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

    def renew_if_due(self) -> bool:
        """Issue a new server certificate where the lab's own is about to expire; whether it did. Apache is not told."""
        mine = self.authority.server_certificate()
        if mine is None or days_left(mine) > RENEW_DAYS or self.authority.trouble():
            return False
        self.authority.keep(*self.authority.issue(names_of(mine)))
        return True

    # --- settings --------------------------------------------------------------------------------------------------

    @abstractmethod
    def additions(self) -> dict[str, str]:
        """Files that only this adds to the services' configuration: content by path."""

    def original_path(self, file: str) -> str:
        """Where the original of a file of the machine's is kept, on that machine."""
        return f"{self.originals}/{file.strip('/').replace('/', '--')}"

    @property
    @abstractmethod
    def originals(self) -> str:
        """The directory on the machine for originals; nobody else reads it."""

    def keep_originals(self, files: Iterable[str]) -> dict[str, str]:
        """Keep these files as they are; their SHA-256 by path. One that is kept already stays as it was kept."""
        found = {}
        for file in sorted(set(files)):
            kept = self.machine.read(self.original_path(file))
            if kept is None:
                kept = self.machine.read(file)
                if kept is None:
                    continue
                self.machine.put(self.original_path(file), kept, mode=0o600)
            found[file] = hashlib.sha256(kept).hexdigest()
        return found

    def change_settings(self, wrong: Iterable[Setting]) -> None:
        """Set these options, add what is to be added, and restart the services that read them."""
        texts: dict[str, str] = {}
        units: dict[str, None] = {}
        for one in wrong:
            text = texts.get(one.file) or self.read_text(one.file) or ""
            texts[one.file] = set_option(text, one.section, one.option, one.value)
            units |= dict.fromkeys(one.units)
        for file, text in texts.items():
            self._overwrite(file, text.encode())
        for file, content in self.additions().items():
            self.machine.put(file, content)
        self.restart(units)

    def undo_settings(self, kept: Mapping[str, str], units: Iterable[str]) -> bool:
        """The files as they were, byte for byte; False if nothing was changed. Raises StepFailed if an original is lost."""
        changed = False
        for file, digest in kept.items():
            original, now = self.machine.read(self.original_path(file)), self.machine.read(file)
            if original is not None and now is not None and now != original:
                self._overwrite(file, original)
                changed = True
            elif original is None and now is not None and hashlib.sha256(now).hexdigest() != digest:
                raise StepFailed(f"{file} is not as it was, and what was kept of it is gone", advice="lab reset")
        gone = [*self.additions(), *(self.original_path(file) for file in kept)]
        deleted = [self._delete(file) for file in gone]
        changed = changed or any(deleted)
        self.machine.run("rmdir", "--ignore-fail-on-non-empty", self.originals, user=self.account, check=False)
        if changed:
            self.restart(units)
        return changed

    def _overwrite(self, file: str, content: bytes) -> None:
        """In place: whose file it is, and who may read it, stays."""
        self.machine.run("sh", "-c", 'cat >"$1"', "sh", file, user=self.account, given=content)

    def _delete(self, file: str) -> bool:
        there = self.machine.read(file) is not None
        if there:
            self.machine.run("rm", "-f", file, user=self.account)
        return there

    account: str | None = None
    """As whom files of the machine are changed."""

    # --- what was begun --------------------------------------------------------------------------------------------

    def begun(self, what: str) -> bool:
        """Whether a change of this name has been begun and not taken back."""
        return (self.directory / f"{what}.json").exists()

    def begin(self, what: str, before: Mapping[str, Any]) -> None:
        """Keep how it was before a change, in the lab's directory."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(self.directory / f"{what}.json", dict(before), mode=0o600)

    def noted(self, what: str) -> dict[str, Any]:
        """What was kept of it; empty if nothing was."""
        return dict(read_json(self.directory / f"{what}.json") or {})

    def end(self, what: str) -> None:
        """The change is taken back."""
        (self.directory / f"{what}.json").unlink(missing_ok=True)

    # --- logins ----------------------------------------------------------------------------------------------------

    def begin_logins(self, identity: str) -> None:
        """clouds.yaml gets its entries for https. `identity`: Keystone's public address."""
        logins.begin(self.directory, self.clouds_file, identity, self.authority.certificate_file)
        self._rewrite()

    def end_logins(self) -> bool:
        """clouds.yaml as it was; False if there is nothing of ours."""
        return logins.end(self.directory, self.clouds_file, self._rewrite)

    def await_certificate(self, fronts: Iterable[Front], seconds: float = 30) -> None:
        """Until all these fronts show the lab's certificate: after a reload the old processes answer for a moment."""
        mine = self.authority.server_certificate()
        deadline = time.monotonic() + seconds
        for front in fronts:
            while mine is not None:
                try:
                    if fingerprint(certificate_of(front.host, front.port)) == fingerprint(mine):
                        break
                    trouble = "another certificate"
                except NoTls as error:
                    trouble = str(error)
                if time.monotonic() > deadline:
                    raise StepFailed(f"the TLS front of {front.name} does not show the new certificate: {trouble}")
                time.sleep(0.1)

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
