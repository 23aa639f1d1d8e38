"""What moves public endpoints behind TLS: an authority, a certificate, services that ask each other inside, Apache, logins."""

from __future__ import annotations

import shlex
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import yaml

from stacklab.https import logins
from stacklab.https.authority import Authority
from stacklab.https.logins import BY_TLS, WITHOUT_CA
from stacklab.https.server import Https
from stacklab.https.virtual_hosts import HORIZON, KEYSTONE, SWIFT, EndpointCatalogue, VirtualHost
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import NoParams, Params
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.narration import PAPER, Command, Script, shell_lines
from stacklab.kinds.tls_check import Address, Tls, wrong


def _https(context: Context) -> Https | None:
    """TLS in front of the lab's cloud; None on paper."""
    try:
        return context.https()
    except Absent:
        return None


def _authority(context: Context) -> Authority:
    https = _https(context)
    return https.authority if https else Authority(PAPER, "certificate authority of the lab")


class Certificate(Tls[NoParams]):
    """A key of the lab's own and its certificate, made and looked at by openssl."""

    params = NoParams
    tells = "{files}"
    file: ClassVar[str]
    """What both files are called, but for their ends."""

    @abstractmethod
    def asked(self, context: Context) -> list[tuple[str, Address]]:
        """What is looked at."""

    def find_all(self, context: Context, p: NoParams) -> Iterable[Thing]:
        """A draft, or a key alone, is what an interrupted run left: the certificate is written last."""
        directory = context.https().directory
        files = [*directory.glob("new.*"), directory / f"{self.file}.key", directory / f"{self.file}.pem"]
        there = [str(file) for file in files if file.exists()]
        return [{"name": self.words, "files": ", ".join(there)}] if there else []

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        return wrong(context, self.asked(context))

    def show_command(self, context: Context, p: NoParams) -> Command:
        file = _authority(context).directory / f"{self.file}.pem"
        return shell_lines(f"openssl x509 -noout -text -in {shlex.quote(str(file))}")


class CertificateAuthority(Certificate):
    """A certificate authority of the lab's own."""

    name = "certificate-authority"
    words = "certificate authority of the lab"
    file = "ca"

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        return [shell_lines(_authority(context).commands())]

    def run(self, context: Context, p: NoParams) -> None:
        context.https().authority.make()

    def asked(self, context: Context) -> list[tuple[str, Address]]:
        return [(look, Address()) for look in ("constraints", "authority-signature", "authority-key", "authority-mode")]

    def remove(self, context: Context, thing: Thing) -> bool:
        return context.https().authority.remove()


class ServerCertificate(Certificate):
    """The certificate that the cloud's TLS servers show, for the addresses that its endpoints carry."""

    name = "server-certificate"
    words = "server certificate"
    file = "server"

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        https = _https(context)
        names = https.apache.names if https else ["192.0.2.10"]
        return [shell_lines(_authority(context).server_commands(names), *(https.apache.copying() if https else []))]

    def run(self, context: Context, p: NoParams) -> None:
        if not context.https().authority.certificate_file.exists():
            raise Absent("certificate authority of the lab")
        context.https().issue()

    def asked(self, context: Context) -> list[tuple[str, Address]]:
        names = [("alternative-name", Address(host=name)) for name in context.https().apache.names]
        return [("signature", Address()), *names, ("key", Address())]

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        differences = super().compare(context, p, thing)
        if context.https().apache.outdated(context.https().directory):
            differences.append(Difference("where Apache reads it", "the same", "none, or another one"))
        return differences

    def remove(self, context: Context, thing: Thing) -> bool:
        https = context.https()
        removed = https.authority.remove_server()
        https.apache.uninstall()
        return removed


class ServiceSettings(Tls[NoParams]):
    """The services' configuration: they reach each other inside, and believe the proxy that TLS was before it."""

    name = "service-settings"
    params = NoParams
    changes = True
    words = "services that ask each other inside and know of the proxy"
    expects = "every service asks the others by their internal endpoints, and believes the proxy that TLS was before it"
    menus = "(not in Horizon: these are the services' configuration files)"

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        https = _https(context)
        if https is None:
            return [shell_lines("# in each service's file: [oslo_middleware] enable_proxy_headers_parsing = true")]
        settings, configuration = https.configuration.settings(_services(context)), https.configuration
        lines = [f"# {setting} = {setting.value}" if setting.value else f"# without {setting}" for setting in settings]
        files = [f"cat >'{path}' <<'END'\n{text.rstrip()}\nEND" for path, text in configuration.additions.items()]
        return [
            shell_lines(*lines, *files, *configuration.restarting(unit for each in settings for unit in each.units))
        ]

    def snapshot(self, context: Context, p: NoParams) -> Thing:
        configuration = context.https().configuration
        wrong = [setting for setting, _ in configuration.wrong(_services(context))]
        files = configuration.keep(setting.file for setting in wrong)
        return {"files": files, "units": sorted({unit for setting in wrong for unit in setting.units})}

    def run(self, context: Context, p: NoParams) -> None:
        configuration = context.https().configuration
        configuration.change(setting for setting, _ in configuration.wrong(_services(context)))

    def find_all(self, context: Context, p: NoParams) -> Iterable[Thing]:
        return [{"name": self.words}]

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        configuration = context.https().configuration
        wrong = configuration.wrong(_services(context))
        different = [
            Difference(str(setting), setting.value or "not set", value or "not set") for setting, value in wrong
        ]
        return different + [Difference(path, "there", "missing") for path in configuration.absent()]

    def remove(self, context: Context, thing: Thing) -> bool:
        return context.https().configuration.put_back(thing["files"], thing["units"])

    def show_command(self, context: Context, p: NoParams) -> Command:
        return shell_lines(
            "grep -HnE 'enable_proxy_headers_parsing|endpoint_type|catalog_info|^interface' /etc/*/*.conf"
        )


def _services(context: Context) -> list[dict[str, Any]]:
    return EndpointCatalogue.read(context.admin).services


class FrontParams(Params):
    """What gets TLS in front of it."""

    service: Literal["horizon", "keystone", "swift", "others"]
    """The service; `others`: every one of the catalogue that is none of the three."""


class TlsFront(Tls[FrontParams]):
    """Apache ends TLS before a service and passes plain HTTP on to it."""

    name = "tls-front"
    params = FrontParams
    menus = "(not in Horizon: Apache's configuration is files)"
    expects = "{title}: it answers, and no link in its answer leads back to plain HTTP"
    tells = "answers at {name}"

    def title(self, p: FrontParams) -> str:
        return f"TLS in front of {'the other services' if p.service == 'others' else p.service}"

    def applicable(self, context: Context, p: FrontParams) -> str | None:
        if why := context.https().why_not():
            return why
        return None if _planned(context, p)[0] else f"the catalogue of this cloud has no {p.service}"

    def commands(self, context: Context, p: FrontParams) -> list[Command]:
        https = _https(context)
        if https is None:  # on paper nobody knows which Apache, which addresses
            why = "# the files, and the commands that switch them on, are shown once there is a cloud: lab up https-endpoints"
            return [shell_lines(why)]
        apache, (chosen, everything) = https.apache, _planned(context, p)
        contents = {name: apache.content(host, everything) for name, host in chosen.items()}
        root, machine = apache.account == "root", apache.machine.name
        return [Script((), program="sh", script=apache.script(contents), machine=machine, root=root)]

    def run(self, context: Context, p: FrontParams) -> None:
        if not context.https().authority.server_certificate_file.exists():
            raise Absent("server certificate")
        context.https().serve(*_planned(context, p))

    def snapshot(self, context: Context, p: FrontParams) -> Thing:
        return {"fronts": sorted(_planned(context, p)[0]), "apache": context.https().before()}

    def find_all(self, context: Context, p: FrontParams) -> Iterable[Thing]:
        chosen, _ = _planned(context, p)
        answers = {host.public: self._wrong(context, host) for host in chosen.values()}
        if all(answers.values()) and not context.https().apache.there() & set(chosen):
            return []
        differences = [difference for wrong in answers.values() for difference in wrong]
        return [{"name": ", ".join(answers), "differences": differences}]

    def _wrong(self, context: Context, host: VirtualHost) -> list[Difference]:
        """What is wrong with a virtual host, from outside."""
        address = Address(name=host.name, host=host.host, port=str(host.port), path=host.ask, public=host.public)
        asked = [("front", address)]
        if host.name == HORIZON:
            asked.append(("dashboard", address))
        if host.plain_port:
            plain = {"port": str(host.plain_port), "path": f"{host.prefix.rstrip('/')}/"}
            asked.append(("redirect", address.model_copy(update=plain)))
        return wrong(context, asked)

    def remove(self, context: Context, thing: Thing) -> bool:
        return context.https().withdraw(thing["fronts"], thing["apache"])

    def show_command(self, context: Context, p: FrontParams) -> Command:
        https = _https(context)
        hosts = _chosen(https.remembered(), p) if https else {}
        addresses = [host.public + host.ask for host in hosts.values()] or ["https://HOST:PORT/"]
        return shell_lines(*(f"curl -k -sS -i {address}" for address in addresses))


Hosts = dict[str, VirtualHost]


def _planned(context: Context, p: FrontParams) -> tuple[Hosts, Hosts]:
    """The virtual hosts that a step is about, and all that are planned."""
    hosts = context.https().planned(EndpointCatalogue.read(context.admin))
    return _chosen(hosts, p), hosts


def _chosen(hosts: Hosts, p: FrontParams) -> Hosts:
    """Those of the hosts that a step is about."""
    apart = (HORIZON, KEYSTONE, SWIFT)
    return {name: host for name, host in hosts.items() if (name if name in apart else "others") == p.service}


class HttpsLogins(Tls[NoParams]):
    """Entries of clouds.yaml that come by https, with the lab's authority and without it; the others look from inside."""

    name = "https-logins"
    params = NoParams
    words = "logins by https in clouds.yaml"
    tells = "the entries {name}"
    menus = "(not in Horizon: it is a file of the client's)"

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        https = _https(context)
        file, identity = (https.clouds_file, _identity(context)) if https else ("clouds.yaml", "https://HOST:PORT/v3")
        authority = _authority(context).certificate_file
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
        return {"name": self.words}

    def run(self, context: Context, p: NoParams) -> None:
        https = context.https()
        logins.begin(https.directory, _identity(context), https.authority.certificate_file)
        https.rewrite()
        context.admin.forget()

    def find_all(self, context: Context, p: NoParams) -> Iterable[Thing]:
        entries = _entries(context)
        return [{"name": ", ".join(sorted(entries)), "entries": entries}] if BY_TLS in entries else []

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        identity, authority, entries = _identity(context), _authority(context).certificate_file, dict(thing["entries"])
        by_tls, without = entries.pop(BY_TLS), entries.pop(WITHOUT_CA, {})
        return differing(
            [
                (f"{BY_TLS}: auth_url", identity, by_tls.get("auth", {}).get("auth_url")),
                (f"{BY_TLS}: cacert", str(authority), by_tls.get("cacert")),
                (f"{WITHOUT_CA}: auth_url", identity, without.get("auth", {}).get("auth_url")),
                (f"{WITHOUT_CA}: cacert", "not set", without.get("cacert", "not set")),
                *((f"{name}: interface", "internal", entry.get("interface")) for name, entry in entries.items()),
            ]
        )

    def remove(self, context: Context, thing: Thing) -> bool:
        ended = logins.end(context.https().directory)
        context.https().rewrite()
        context.admin.forget()
        return ended

    def show_command(self, context: Context, p: NoParams) -> Command:
        return Command(("configuration", "show"))


def _entries(context: Context) -> dict[str, Any]:
    """The entries of the lab's clouds.yaml."""
    entries: dict[str, Any] = yaml.safe_load(context.https().clouds_file.read_text(encoding="utf-8"))["clouds"]
    return entries


def _identity(context: Context) -> str:
    """Keystone's public address to be, with its path."""
    host = context.https().planned(EndpointCatalogue.read(context.admin))[KEYSTONE]
    return host.public_url(str(_entries(context)["lab-admin"]["auth"]["auth_url"]))


KINDS: list[Kind[Any]] = [CertificateAuthority(), ServerCertificate(), ServiceSettings(), HttpsLogins(), TlsFront()]
