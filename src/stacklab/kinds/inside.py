"""Before public endpoints move: services that ask each other inside, and logins that know the lab's authority."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from stacklab.https.configuration import Setting
from stacklab.https.logins import BY_TLS, WITHOUT_CA
from stacklab.https.server import Catalogue
from stacklab.https.virtual_hosts import KEYSTONE
from stacklab.kinds.certificates import told
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import NoParams
from stacklab.kinds.kind import Difference, Kind
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

    def applicable(self, context: Context, p: NoParams) -> str | None:
        return context.https().why_not()

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        try:
            settings, additions = _settings(context), context.https().configuration.additions
        except Absent:
            return [told("# in each service's file: [oslo_middleware] enable_proxy_headers_parsing = true")]
        lines = [_line(one) for one in settings]
        files = [f"cat >'{path}' <<'END'\n{content.rstrip()}\nEND" for path, content in additions.items()]
        return [
            told(
                *lines,
                *files,
                *context.https().configuration.restarting(unit for one in settings for unit in one.units),
            )
        ]

    def requests(self, context: Context, p: NoParams) -> list[Request]:
        return []

    def snapshot(self, context: Context, p: NoParams) -> Thing:
        https, settings = context.https(), _settings(context)
        files = https.configuration.keep(one.file for one, _ in https.configuration.wrong(settings))
        units = sorted({unit for one in settings if one.file in files for unit in one.units})
        before: Thing = {"files": files, "units": units}
        https.begin(SETTINGS, before)
        return before

    def run(self, context: Context, p: NoParams) -> None:
        https = context.https()
        https.configuration.change([one for one, _ in https.configuration.wrong(_settings(context))])

    def find_all(self, context: Context, p: NoParams) -> Iterable[Thing]:
        https = context.https()
        wrong = [*https.configuration.wrong(_settings(context)), *_absent(context)]
        return [] if wrong and not https.begun(SETTINGS) else [{"name": self.title(p)}]

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        wrong = context.https().configuration.wrong(_settings(context))
        found = [
            Difference(f"{one.file} [{one.section}] {one.option}", one.value or "not set", value or "not set")
            for one, value in wrong
        ]
        return found + [Difference(path, "there", "missing") for path in _absent(context)]

    def remove(self, context: Context, thing: Thing) -> bool:
        changed = context.https().configuration.put_back(thing["files"], thing["units"])
        context.https().end(SETTINGS)
        return changed

    def show_command(self, context: Context, p: NoParams) -> Command:
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

    def applicable(self, context: Context, p: NoParams) -> str | None:
        return context.https().why_not()

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        try:
            entries = _entries(context)
        except Absent:
            file, identity, authority = "clouds.yaml", "https://…/v3", "ca.pem"
        else:
            file, identity, authority = str(context.https().clouds_file), _identity(context), _authority(context)
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

    def requests(self, context: Context, p: NoParams) -> list[Request]:
        return []

    def snapshot(self, context: Context, p: NoParams) -> Thing:
        return {"file": str(context.https().clouds_file), "entries": sorted(_entries(context))}

    def run(self, context: Context, p: NoParams) -> None:
        context.https().begin_logins(_identity(context))
        context.admin.forget()

    def find_all(self, context: Context, p: NoParams) -> Iterable[Thing]:
        entries = _entries(context)
        return [{"name": ", ".join(sorted(entries)), "entries": entries}] if BY_TLS in entries else []

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        identity, authority, entries = _identity(context), _authority(context), thing["entries"]
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

    def remove(self, context: Context, thing: Thing) -> bool:
        ended = context.https().end_logins()
        context.admin.forget()
        return ended

    def show_command(self, context: Context, p: NoParams) -> Command:
        return Command(("configuration", "show"))

    def shown(self, thing: Thing) -> str:
        return f"the entries {thing['name']}"


def _settings(context: Context) -> list[Setting]:
    return context.https().configuration.settings(Catalogue.read(context.admin).services)


def _absent(context: Context) -> list[str]:
    return context.https().configuration.absent()


def _line(one: Setting) -> str:
    if one.value is None:
        return f"# {one.file}: in [{one.section}] without {one.option}"
    return f"# {one.file}: in [{one.section}] {one.option} = {one.value}"


def _entries(context: Context) -> dict[str, Any]:
    """The entries of the lab's clouds.yaml."""
    text = context.https().clouds_file.read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)["clouds"]
    return found


def _identity(context: Context) -> str:
    """Keystone's public address to be, with its path."""
    catalogue = Catalogue.read(context.admin)
    host = context.https().planned(catalogue)[KEYSTONE]
    entry = _entries(context)["lab-admin"]
    return host.public_url(str(entry["auth"]["auth_url"]))


def _authority(context: Context) -> str:
    return str(context.https().authority.certificate_file)


KINDS: list[Kind[Any]] = [ServiceSettings(), HttpsLogins()]
