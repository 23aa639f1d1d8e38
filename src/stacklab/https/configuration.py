"""What the services' own configuration must say once public endpoints are behind TLS: changed, and put back byte for byte."""

from __future__ import annotations

import hashlib
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from stacklab.errors import StepFailed
from stacklab.https.apache import Apache, facts, filled
from stacklab.inifile import value_of, with_value

Service = Mapping[str, Any]
"""As Keystone's API shows it: id, type, name, enabled."""
VOLUME_TYPES = ("block-storage", "volumev3", "volumev2", "volume")


@dataclass(frozen=True)
class Setting:
    """What one option of a service's configuration must be (None: not set), and the units that read it."""

    file: str
    section: str
    option: str
    value: str | None
    units: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file} [{self.section}] {self.option}"


class ServiceConfiguration(ABC):
    """The configuration files of one cloud's services, on the machine of its Apache. `units`: the services that there are."""

    additions: Mapping[str, str] = {}
    """Files that only this adds: content by path."""

    _facts: ClassVar[str]
    """Its settings in facts.yaml."""

    def __init__(self, apache: Apache, units: Iterable[str], directory: str = "/etc") -> None:
        self.apache = apache
        self.machine = apache.machine
        self._units = {*units}
        self._directory = directory

    def settings(self, services: Iterable[Service]) -> list[Setting]:
        """What it must say, given the services of the catalogue. Units that the cloud does not have are left out."""
        names = {str(service["type"]): str(service["name"]) for service in services}
        volume = next((kind for kind in VOLUME_TYPES if kind in names), "volumev3")
        values = {"type": volume, "volume": f"{volume}:{names.get(volume, '')}", "conf": self._directory}
        return [
            Setting(
                filled(fact["file"], values), fact["section"], fact["option"],
                None if fact["value"] is None else filled(fact["value"], values),
                tuple(unit for unit in fact["units"] if unit in self._units),
            )
            for fact in facts()["settings"][self._facts]
        ]  # fmt: skip

    @abstractmethod
    def restart(self, units: Iterable[str]) -> None:
        """Restart services and wait until they answer."""

    @abstractmethod
    def restarting(self, units: Iterable[str]) -> list[str]:
        """The commands that restart services."""

    def wrong(self, services: Iterable[Service]) -> list[tuple[Setting, str | None]]:
        """Those that are otherwise, with the value that is there. Files that are not there are no matter."""
        settings = self.settings(services)
        texts = {file: self._text(file) for file in {setting.file for setting in settings}}
        pairs = [
            (setting, value_of(text, setting.section, setting.option))
            for setting in settings
            if (text := texts[setting.file]) is not None
        ]
        return [(setting, value) for setting, value in pairs if (value or "").lower() != (setting.value or "").lower()]

    def absent(self) -> list[str]:
        """The additions that are not there, or are otherwise."""
        return [path for path, content in self.additions.items() if self._text(path) != content]

    def keep(self, files: Iterable[str]) -> dict[str, str]:
        """Keep these files, which are there, as they are; their SHA-256 by path. What is kept already stays."""
        digests = {}
        for file in sorted(set(files)):
            original = self.machine.read(self._original(file))
            if original is None:
                original = self.machine.read(file) or b""
                self.machine.put(self._original(file), original, mode=0o600)
            digests[file] = hashlib.sha256(original).hexdigest()
        return digests

    def change(self, settings: Iterable[Setting]) -> None:
        """Set these options, add what is to be added, and restart the services that read them."""
        texts: dict[str, str] = {}
        units: dict[str, None] = {}
        for setting in settings:
            text = texts.get(setting.file) or self._text(setting.file) or ""
            texts[setting.file] = with_value(text, setting.section, setting.option, setting.value)
            units |= dict.fromkeys(setting.units)
        for file, text in texts.items():
            self.machine.replace(file, text)
        for file, content in self.additions.items():
            self.machine.put(file, content)
        self.restart(units)

    def put_back(self, digests: Mapping[str, str], units: Iterable[str]) -> bool:
        """The files as they were kept; False if nothing was changed. Raises StepFailed if an original is lost."""
        changed = False
        for file, digest in digests.items():
            original, now = self.machine.read(self._original(file)), self.machine.read(file)
            if original is not None and now is not None and now != original:
                self.machine.replace(file, original)
                changed = True
            elif original is None and now is not None and hashlib.sha256(now).hexdigest() != digest:
                raise StepFailed(f"{file} is not as it was, and what was kept of it is gone", advice="lab reset")
        for file in (*self.additions, *map(self._original, digests)):
            if self.machine.read(file) is not None:
                self.machine.run("rm", "-f", file, user=self.apache.account)
                changed = True
        self.apache.tidy()
        if changed:
            self.restart(units)
        return changed

    def _original(self, file: str) -> str:
        """Where the original of a file of the machine's is kept, on that machine."""
        return f"{self.apache.originals}/{file.strip('/').replace('/', '--')}"

    def _text(self, path: str) -> str | None:
        content = self.machine.read(path)
        return None if content is None else content.decode(errors="replace")


class DevStackConfiguration(ServiceConfiguration):
    """Of a deployment whose services are systemd's."""

    _facts = "devstack"

    @cached_property
    def additions(self) -> Mapping[str, str]:  # type: ignore[override]
        """Horizon reads every file of that directory."""
        horizon = facts()["horizon"]
        there = self.machine.run("test", "-d", horizon["directory"], user="root", check=False).ok
        return {f"{horizon['directory']}/{horizon['file']}": horizon["content"]} if there else {}

    def restart(self, units: Iterable[str]) -> None:
        if names := self._of_systemd(units):
            self.machine.run("systemctl", "restart", *names, user="root", seconds=400)
        self.apache.reload()  # Horizon runs in it

    def restarting(self, units: Iterable[str]) -> list[str]:
        restart = shlex.join(["sudo", "systemctl", "restart", *self._of_systemd(units)])
        return [restart, f"sudo systemctl reload {self.apache.unit}"]

    def _of_systemd(self, units: Iterable[str]) -> list[str]:
        return [f"devstack@{unit}" for unit in dict.fromkeys(units)]
