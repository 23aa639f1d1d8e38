"""A TLS server (Apache) before a service: its file, and what really answers there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from stacklab.cloud.horizon import is_login_page
from stacklab.https.peer import REDIRECTS, NoTls, ask
from stacklab.https.server import EndpointCatalogue
from stacklab.https.virtual_hosts import HORIZON, KEYSTONE, SWIFT, VirtualHost
from stacklab.kinds.certificates import shell_lines
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import Params
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import Command, Request

APART = (HORIZON, KEYSTONE, SWIFT)
OTHERS = "others"


class FrontParams(Params):
    """What gets TLS in front of it."""

    service: Literal["horizon", "keystone", "swift", "others"]
    """The service; `others`: every one of the catalogue that is none of the three."""


class TlsFront(Kind[FrontParams]):
    """Apache ends TLS before a service and passes plain HTTP on to it."""

    name = "tls-front"
    params = FrontParams

    def title(self, p: FrontParams) -> str:
        return "TLS in front of the other services" if p.service == OTHERS else f"TLS in front of {p.service}"

    def horizon(self, p: FrontParams) -> str:
        return "(not in Horizon: Apache's configuration is files)"

    def applicable(self, context: Context, p: FrontParams) -> str | None:
        if why := context.https().why_not():
            return why
        if not self._chosen(context, p):
            return f"the catalogue of this cloud has no {p.service}"
        return None

    def commands(self, context: Context, p: FrontParams) -> list[Command]:
        if not _has_https(context):  # on paper nobody knows which Apache, which addresses
            return [
                shell_lines(
                    "# the files, and the commands that switch them on, are shown once there is a cloud: lab up https-endpoints"
                )
            ]
        https, hosts = context.https(), self._all(context)
        chosen = self._chosen(context, p)
        contents = {https.apache.site_path(name): https.content(host, hosts) for name, host in chosen.items()}
        files = {**https.apache.groundwork(), **contents}
        directories = sorted({path.rpartition("/")[0] for path in files})
        return [
            shell_lines(
                *(f"mkdir -p '{directory}'" for directory in directories),
                *(f"cat >'{path}' <<'END'\n{content.rstrip()}\nEND" for path, content in files.items()),
            ),
            shell_lines(*https.apache.lines(chosen)),
        ]

    def requests(self, context: Context, p: FrontParams) -> list[Request]:
        return []

    def run(self, context: Context, p: FrontParams) -> None:
        https, hosts = context.https(), self._all(context)
        if https.authority.server_certificate() is None:
            raise Absent("server certificate")
        https.serve(self._chosen(context, p), hosts)

    def snapshot(self, context: Context, p: FrontParams) -> Thing:
        return {"fronts": sorted(self._chosen(context, p)), "apache": context.https().before()}

    def find_all(self, context: Context, p: FrontParams) -> Iterable[Thing]:
        chosen = self._chosen(context, p)
        troubles = {name: trouble(host) for name, host in chosen.items()}
        silent = all(found and found[0].field.startswith("TLS") for found in troubles.values())
        if silent and not context.https().apache.there() & set(chosen):
            return []
        return [{"name": self.title(p), "at": [one.public for one in chosen.values()], "troubles": troubles}]

    def compare(self, context: Context, p: FrontParams, thing: Thing) -> list[Difference]:
        return [difference for found in thing["troubles"].values() for difference in found]

    def remove(self, context: Context, thing: Thing) -> bool:
        return context.https().withdraw(thing["fronts"], thing["apache"])

    def show_command(self, context: Context, p: FrontParams) -> Command:
        known = list(context.https().remembered().values()) if _has_https(context) else []
        wanted = [one for one in known if (one.name == p.service or (p.service == OTHERS and one.name not in APART))]
        lines = [f"curl -k -sS -i {one.public}{one.ask}" for one in wanted]
        return shell_lines(*(lines or [f"curl -k -sS -i ${p.service.upper()}_HTTPS"]))

    def expected(self, p: FrontParams) -> str:
        return f"{self.title(p)}: it answers, and no link in its answer leads back to plain HTTP"

    def shown(self, thing: Thing) -> str:
        return f"answers at {', '.join(thing['at'])}"

    def settle_seconds(self, p: FrontParams) -> float:
        return 60

    def _all(self, context: Context) -> dict[str, VirtualHost]:
        return context.https().planned(EndpointCatalogue.read(context.admin))

    def _chosen(self, context: Context, p: FrontParams) -> dict[str, VirtualHost]:
        hosts = self._all(context)
        if p.service == OTHERS:
            return {name: host for name, host in hosts.items() if name not in APART}
        return {p.service: hosts[p.service]} if p.service in hosts else {}


def _has_https(context: Context) -> bool:
    try:
        context.https()
    except Absent:
        return False
    return True


def trouble(host: VirtualHost) -> list[Difference]:
    """What is wrong with a virtual host, from outside; the first difference's field begins with TLS if nobody speaks it."""
    try:
        answer = ask(host.host, host.port, host.ask, tls=True)
    except NoTls as error:
        return [Difference(f"TLS at {host.public}", "an answer", str(error))]
    found = []
    if answer.status >= 500 or answer.status == 404:
        found.append(Difference(f"{host.public}{host.ask}", "an answer of the service's", f"HTTP {answer.status}"))
    if host.name == HORIZON and not is_login_page(answer.status, answer.body):
        found.append(
            Difference(f"{host.public}{host.ask}", "the login page", f"HTTP {answer.status} without a login form")
        )
    plain = f"http://{host.host}"
    told = [answer.body, *answer.headers.values()]
    leading_back = next((text[text.index(plain) :][:60].split('"')[0] for text in told if plain in text), None)
    if leading_back:
        found.append(Difference(f"links from {host.public}", "https", leading_back))
    return found + (_redirect(host) if host.plain_port else [])


def _redirect(host: VirtualHost) -> list[Difference]:
    path = f"{host.prefix.rstrip('/')}/"
    wanted = f"a redirect to {host.public}{path}"
    try:
        answer = ask(host.host, int(host.plain_port or 0), path, tls=False)
    except NoTls as error:
        return [Difference(f"plain HTTP at {host.redirecting}", wanted, str(error))]
    location = answer.headers.get("location", "")
    if answer.status not in REDIRECTS or not location.startswith(f"{host.public}/"):
        return [Difference(f"plain HTTP at {host.redirecting}", wanted, f"{answer.status} {location}".strip())]
    return []


KINDS: list[Kind[Any]] = [TlsFront()]
