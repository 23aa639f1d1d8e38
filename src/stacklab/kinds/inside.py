"""Before public endpoints move: services that ask each other inside, and logins that know the lab's authority."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from stacklab.https.configuration import Setting
from stacklab.https.logins import BY_TLS, WITHOUT_CA
from stacklab.https.server import Catalogue
from stacklab.https.virtual_hosts import KEYSTONE
from stacklab.kinds.certificates import NoParams, told
from stacklab.kinds.kind import Absent, Difference, Kind, Scene, Thing
from stacklab.kinds.narration import Command, Request

SETTINGS = "service-settings"


class ServiceSettings(Kind[NoParams]):
    """The services' configuration: they reach each other inside, and believe the proxy that TLS was before it."""

    name = SETTINGS
    params = NoParams

    def title(self, p: NoParams) -> str:
        return "services that ask each other inside and know of the proxy"

    def horizon(self, p: NoParams) -> str:
        return "(not in Horizon: these are the services' configuration files)"

    def applicable(self, scene: Scene, p: NoParams) -> str | None:
        return scene.https().why_not()

    def commands(self, scene: Scene, p: NoParams) -> list[Command]:
        try:
            settings, additions = _settings(scene), scene.https().configuration.additions
        except Absent:
            return [told("# in each service's file: [oslo_middleware] enable_proxy_headers_parsing = true")]
        lines = [_line(one) for one in settings]
        files = [f"cat >'{path}' <<'END'\n{content.rstrip()}\nEND" for path, content in additions.items()]
        return [
            told(
                *lines, *files, *scene.https().configuration.restarting(unit for one in settings for unit in one.units)
            )
        ]

    def requests(self, scene: Scene, p: NoParams) -> list[Request]:
        return []

    def foresee(self, scene: Scene, p: NoParams) -> Thing:
        https, settings = scene.https(), _settings(scene)
        files = https.configuration.keep(one.file for one, _ in https.configuration.wrong(settings))
        units = sorted({unit for one in settings if one.file in files for unit in one.units})
        before: Thing = {"files": files, "units": units}
        https.begin(SETTINGS, before)
        return before

    def create(self, scene: Scene, p: NoParams) -> None:
        https = scene.https()
        https.configuration.change([one for one, _ in https.configuration.wrong(_settings(scene))])

    def candidates(self, scene: Scene, p: NoParams) -> Iterable[Thing]:
        https = scene.https()
        wrong = [*https.configuration.wrong(_settings(scene)), *_absent(scene)]
        return [] if wrong and not https.begun(SETTINGS) else [{"name": self.title(p)}]

    def compare(self, scene: Scene, p: NoParams, thing: Thing) -> list[Difference]:
        wrong = scene.https().configuration.wrong(_settings(scene))
        found = [
            Difference(f"{one.file} [{one.section}] {one.option}", one.value or "not set", value or "not set")
            for one, value in wrong
        ]
        return found + [Difference(path, "there", "missing") for path in _absent(scene)]

    def remove(self, scene: Scene, thing: Thing) -> bool:
        changed = scene.https().configuration.put_back(thing["files"], thing["units"])
        scene.https().end(SETTINGS)
        return changed

    def look(self, scene: Scene, p: NoParams) -> Command:
        return told("grep -HnE 'enable_proxy_headers_parsing|endpoint_type|catalog_info|^interface' /etc/*/*.conf")

    def expected(self, p: NoParams) -> str:
        return (
            "every service asks the others by their internal endpoints, and believes the proxy that TLS was before it"
        )


class HttpsLogins(Kind[NoParams]):
    """Entries of clouds.yaml that come by https, with the lab's authority and without it; the others look from inside."""

    name = "https-logins"
    params = NoParams

    def title(self, p: NoParams) -> str:
        return "logins by https in clouds.yaml"

    def horizon(self, p: NoParams) -> str:
        return "(not in Horizon: it is a file of the client's)"

    def applicable(self, scene: Scene, p: NoParams) -> str | None:
        return scene.https().why_not()

    def commands(self, scene: Scene, p: NoParams) -> list[Command]:
        try:
            entries = _entries(scene)
        except Absent:
            file, identity, authority = "clouds.yaml", "https://…/v3", "ca.pem"
        else:
            file, identity, authority = str(scene.https().clouds_file), _identity(scene), _authority(scene)
            del entries
        lines = [
            f"# in {file}, a copy of lab-admin that is called {BY_TLS}:",
            f"#     auth_url: {identity}",
            "#     interface: public",
            f"#     cacert: {authority}",
            f"# the same without cacert, called {WITHOUT_CA}; and in every other entry: interface: internal",
            "# without clouds.yaml:",
            f"export OS_AUTH_URL={identity} OS_CACERT={authority}",
        ]
        return [told(*lines)]

    def requests(self, scene: Scene, p: NoParams) -> list[Request]:
        return []

    def foresee(self, scene: Scene, p: NoParams) -> Thing:
        return {"file": str(scene.https().clouds_file), "entries": sorted(_entries(scene))}

    def create(self, scene: Scene, p: NoParams) -> None:
        scene.https().begin_logins(_identity(scene))
        scene.admin.forget()

    def candidates(self, scene: Scene, p: NoParams) -> Iterable[Thing]:
        entries = _entries(scene)
        return [{"name": ", ".join(sorted(entries)), "entries": entries}] if BY_TLS in entries else []

    def compare(self, scene: Scene, p: NoParams, thing: Thing) -> list[Difference]:
        identity, authority, entries = _identity(scene), _authority(scene), thing["entries"]
        by_tls, without = entries[BY_TLS], entries.get(WITHOUT_CA, {})
        pairs = [
            (f"{BY_TLS}: auth_url", identity, by_tls.get("auth", {}).get("auth_url")),
            (f"{BY_TLS}: cacert", authority, by_tls.get("cacert")),
            (f"{WITHOUT_CA}: auth_url", identity, without.get("auth", {}).get("auth_url")),
            (f"{WITHOUT_CA}: cacert", None, without.get("cacert")),
            *(
                (f"{name}: interface", "internal", entry.get("interface"))
                for name, entry in entries.items()
                if name not in (BY_TLS, WITHOUT_CA)
            ),
        ]
        return [
            Difference(field, str(expected or "not set"), str(actual or "not set"))
            for field, expected, actual in pairs
            if expected != actual
        ]

    def remove(self, scene: Scene, thing: Thing) -> bool:
        ended = scene.https().end_logins()
        scene.admin.forget()
        return ended

    def look(self, scene: Scene, p: NoParams) -> Command:
        return Command(("configuration", "show"))

    def shown(self, thing: Thing) -> str:
        return f"the entries {thing['name']}"


def _settings(scene: Scene) -> list[Setting]:
    return scene.https().configuration.settings(Catalogue.read(scene.admin).services)


def _absent(scene: Scene) -> list[str]:
    return scene.https().configuration.absent()


def _line(one: Setting) -> str:
    if one.value is None:
        return f"# {one.file}: in [{one.section}] without {one.option}"
    return f"# {one.file}: in [{one.section}] {one.option} = {one.value}"


def _entries(scene: Scene) -> dict[str, Any]:
    """The entries of the lab's clouds.yaml."""
    text = scene.https().clouds_file.read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)["clouds"]
    return found


def _identity(scene: Scene) -> str:
    """Keystone's public address to be, with its path."""
    catalogue = Catalogue.read(scene.admin)
    host = scene.https().planned(catalogue)[KEYSTONE]
    entry = _entries(scene)["lab-admin"]
    return host.public_url(str(entry["auth"]["auth_url"]))


def _authority(scene: Scene) -> str:
    return str(scene.https().authority.certificate_file)


KINDS: list[Kind[Any]] = [ServiceSettings(), HttpsLogins()]
