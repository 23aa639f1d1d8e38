"""Before public endpoints move: a certificate authority, services that ask each other inside, and logins that know it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from stacklab.https.authority import (
    AUTHORITY_DAYS,
    SERVER_DAYS,
    Names,
    days_left,
    fingerprint,
    names_of,
    signed_by,
)
from stacklab.https.configuration import Setting
from stacklab.https.logins import BY_TLS, WITHOUT_CA
from stacklab.https.server import EndpointCatalogue
from stacklab.https.virtual_hosts import KEYSTONE
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import NoParams
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.narration import Command, Request

NOWHERE = "(not in Horizon: a certificate is a file on the machine that serves)"


class _OnMachine(Kind[NoParams]):
    """What the kinds of this module share: no API does them, and they follow from the cloud."""

    params = NoParams

    def horizon(self, p: NoParams) -> str:
        return NOWHERE

    def requests(self, context: Context, p: NoParams) -> list[Request]:
        return []

    def applicable(self, context: Context, p: NoParams) -> str | None:
        return context.https().why_not()


class CertificateAuthority(_OnMachine):
    """A certificate authority of the lab's own."""

    name = "certificate-authority"

    def title(self, p: NoParams) -> str:
        return "certificate authority of the lab"

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        subject = shlex.quote(f"/CN={_title(context)}")
        lines = [
            f'cd "{directory_of(context)}"; umask 077',
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ca.key",
            f"openssl req -x509 -new -key ca.key -sha256 -days {AUTHORITY_DAYS} -subj {subject} -out ca.pem \\",
            "  -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign'",
            "chmod 644 ca.pem",
        ]
        return [shell_lines(*lines)]

    def run(self, context: Context, p: NoParams) -> None:
        context.https().authority.make()

    def find_all(self, context: Context, p: NoParams) -> Iterable[Thing]:
        authority = context.https().authority
        certificate = authority.certificate()
        if certificate is None:
            # A key alone is what an interrupted run left: the certificate is written after it.
            return [{"name": "its key alone", "alone": True}] if authority.key_file.exists() else []
        return [{"name": authority.title, "file": str(authority.certificate_file), "id": fingerprint(certificate)}]

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        return [Difference(*one) for one in context.https().authority.trouble()]

    def remove(self, context: Context, thing: Thing) -> bool:
        return context.https().authority.remove()

    def show_command(self, context: Context, p: NoParams) -> Command:
        return _shown_by_openssl(context, "ca.pem")

    def shown(self, thing: Thing) -> str:
        return f"{thing['name']}: {thing.get('file', '')}"


class ServerCertificate(_OnMachine):
    """The certificate that the cloud's TLS servers show, for the names and addresses that its endpoints carry."""

    name = "server-certificate"

    def title(self, p: NoParams) -> str:
        return "server certificate"

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        try:
            https = context.https()
            names, copying = https.apache.names, https.apache.copying()
        except Absent:
            names, copying = Names(("$NAME",), ("$ADDRESS",)), []
        lines = [
            f'cd "{directory_of(context)}"; umask 077',
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out server.key",
            f'openssl req -new -key server.key -subj "/CN={names.first}" -out server.csr',
            f"printf '%s\\n' \"subjectAltName={names.alternative}\" basicConstraints=critical,CA:FALSE \\",
            "  keyUsage=critical,digitalSignature extendedKeyUsage=serverAuth subjectKeyIdentifier=hash \\",
            "  authorityKeyIdentifier=keyid >server.ext",
            "openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial \\",
            f"  -sha256 -days {SERVER_DAYS} -extfile server.ext -out server.pem",
            "rm server.csr server.ext ca.srl; chmod 644 server.pem",
            *copying,
        ]
        return [shell_lines(*lines)]

    def run(self, context: Context, p: NoParams) -> None:
        https = context.https()
        if https.authority.certificate() is None:
            raise Absent("certificate authority of the lab")
        https.authority.keep(*https.authority.issue(https.apache.names))
        https.install()

    def find_all(self, context: Context, p: NoParams) -> Iterable[Thing]:
        https = context.https()
        certificate = https.authority.server_certificate()
        if certificate is None:
            return [{"name": "its key alone"}] if https.authority.server_key_file.exists() else []
        names = names_of(certificate)
        return [
            {
                "id": fingerprint(certificate),
                "name": ", ".join([*names.hosts, *names.addresses]),
                "days": int(days_left(certificate)),
            }
        ]

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        https = context.https()
        certificate, authority = https.authority.server_certificate(), https.authority.certificate()
        if certificate is None:
            return [Difference("certificate", str(https.authority.server_certificate_file), "no such file")]
        wanted, has = https.apache.names, names_of(certificate)
        missing = (*({*wanted.hosts} - {*has.hosts}), *({*wanted.addresses} - {*has.addresses}))
        by_us = authority is not None and signed_by(certificate, authority)
        return differing(
            [
                ("signed by", "the lab's authority", "the lab's authority" if by_us else "another one"),
                ("names that it lacks", "none", ", ".join(missing) or "none"),
                ("its key", "beside it", "beside it" if https.authority.server_key_fits() else "none, or another one"),
                ("where Apache reads it", "the same", "the same" if https.installed() else "none, or another one"),
            ]
        )

    def remove(self, context: Context, thing: Thing) -> bool:
        https = context.https()
        https.apache.uninstall()
        return https.authority.remove_server()

    def show_command(self, context: Context, p: NoParams) -> Command:
        return _shown_by_openssl(context, "server.pem")

    def shown(self, thing: Thing) -> str:
        return f"for {thing['name']}, valid for {thing.get('days')} more days"


@dataclass(frozen=True)
class ShellLines(Command):
    """Lines for a shell, where they say they belong. lab does the same in its own way, whichever way was asked for."""

    lines: str = ""

    def text(self, cloud: str = "") -> str:
        """The lines."""
        return self.lines


def shell_lines(*lines: str) -> ShellLines:
    """See ShellLines."""
    return ShellLines((), program="sh", lines="\n".join(lines))


def directory_of(context: Context) -> str:
    """Where the lab keeps its certificates; a variable on paper."""
    try:
        return str(context.https().directory)
    except Absent:
        return "$LAB_HTTPS"


def _title(context: Context) -> str:
    try:
        return context.https().authority.title
    except Absent:
        return "certificate authority of the lab"


def _shown_by_openssl(context: Context, name: str) -> ShellLines:
    return shell_lines(f'openssl x509 -noout -subject -issuer -dates -text -in "{directory_of(context)}/{name}"')


SETTINGS = "service-settings"


class ServiceSettings(_OnMachine):
    """The services' configuration: they reach each other inside, and believe the proxy that TLS was before it."""

    name = SETTINGS

    def title(self, p: NoParams) -> str:
        return "services that ask each other inside and know of the proxy"

    def horizon(self, p: NoParams) -> str:
        return "(not in Horizon: these are the services' configuration files)"

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        try:
            settings, additions = _settings(context), context.https().configuration.additions
        except Absent:
            return [shell_lines("# in each service's file: [oslo_middleware] enable_proxy_headers_parsing = true")]
        lines = [_line(one) for one in settings]
        files = [f"cat >'{path}' <<'END'\n{content.rstrip()}\nEND" for path, content in additions.items()]
        return [
            shell_lines(
                *lines,
                *files,
                *context.https().configuration.restarting(unit for one in settings for unit in one.units),
            )
        ]

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
        return shell_lines(
            "grep -HnE 'enable_proxy_headers_parsing|endpoint_type|catalog_info|^interface' /etc/*/*.conf"
        )

    def expected(self, p: NoParams) -> str:
        return (
            "every service asks the others by their internal endpoints, and believes the proxy that TLS was before it"
        )


class HttpsLogins(_OnMachine):
    """Entries of clouds.yaml that come by https, with the lab's authority and without it; the others look from inside."""

    name = "https-logins"

    def title(self, p: NoParams) -> str:
        return "logins by https in clouds.yaml"

    def horizon(self, p: NoParams) -> str:
        return "(not in Horizon: it is a file of the client's)"

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        try:
            file, identity, authority = str(context.https().clouds_file), _identity(context), _authority(context)
        except Absent:
            file, identity, authority = "clouds.yaml", "https://…/v3", "ca.pem"
        lines = [
            f"# in {file}, a copy of lab-admin that is called {BY_TLS}:",
            f"#     auth_url: {identity}",
            "#     interface: public",
            f"#     cacert: {authority}",
            f"# the same without cacert, called {WITHOUT_CA}; and in every other entry: interface: internal",
            "# without clouds.yaml:",
            f"export OS_AUTH_URL={identity} OS_CACERT={authority}",
        ]
        return [shell_lines(*lines)]

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
    return context.https().configuration.settings(EndpointCatalogue.read(context.admin).services)


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
    catalogue = EndpointCatalogue.read(context.admin)
    host = context.https().planned(catalogue)[KEYSTONE]
    entry = _entries(context)["lab-admin"]
    return host.public_url(str(entry["auth"]["auth_url"]))


def _authority(context: Context) -> str:
    return str(context.https().authority.certificate_file)


KINDS: list[Kind[Any]] = [CertificateAuthority(), ServerCertificate(), ServiceSettings(), HttpsLogins()]
