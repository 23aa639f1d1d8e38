"""Seeing for oneself that the public endpoints are what they should be: one property a step, each found out by doing."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from typing import Any, Literal
from urllib.parse import urlsplit

from stacklab.cloud import client
from stacklab.cloud.connection import Connection
from stacklab.errors import CloudRefused, CloudUnreachable
from stacklab.https.authority import covers, days_left, names_of, signed_by
from stacklab.https.logins import BY_TLS, WITHOUT_CA
from stacklab.https.peer import NoTls, ask, certificate_of
from stacklab.https.server import Catalogue
from stacklab.https.virtual_hosts import HORIZON
from stacklab.kinds.certificates import directory_of, told
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import Params
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import Command, Request

That = Literal["chain", "name", "dates", "plain", "catalogue", "login", "client", "refusal", "client-refusal"]

WORDS: dict[str, str] = {
    "chain": "every certificate is signed by the lab's authority",
    "name": "every certificate is for the address that its endpoint carries",
    "dates": "no certificate has expired",
    "plain": "plain HTTP is redirected or refused at every public address",
    "catalogue": "no public endpoint in the catalogue is plain http",
    "login": "openstacksdk logs in and lists by https alone, with the lab's authority",
    "client": "the openstack client logs in and lists by https, with the lab's authority",
    "refusal": "openstacksdk without the lab's authority refuses the certificate",
    "client-refusal": "the openstack client without the lab's authority refuses the certificate",
}
_LISTED = ("compute", "image")
"""What the logins list: two services behind fronts of their own."""


class CheckParams(Params):
    that: That


class TlsCheck(Kind[CheckParams]):
    """One property of the public endpoints. Nothing is left behind."""

    name = "tls-check"
    params = CheckParams
    leaves = False

    def title(self, p: CheckParams) -> str:
        return WORDS[p.that]

    def expected(self, p: CheckParams) -> str:
        return WORDS[p.that]

    def horizon(self, p: CheckParams) -> str:
        if p.that in ("chain", "name", "dates"):
            return (
                "in the browser: open Horizon by https, then the lock (or the warning) before the address ▸ Certificate"
            )
        return "(not in Horizon)"

    def applicable(self, context: Context, p: CheckParams) -> str | None:
        return context.https().why_not()

    def commands(self, context: Context, p: CheckParams) -> list[Command]:
        authority = f"{directory_of(context)}/ca.pem"
        at = _first(context)
        shown = {
            "chain": f'openssl s_client -connect {at} -CAfile "{authority}" -verify_return_error -brief </dev/null',
            "name": f"openssl s_client -connect {at} </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName",
            "dates": f"openssl s_client -connect {at} </dev/null 2>/dev/null | openssl x509 -noout -dates -checkend 0",
            "plain": f"curl -sS -i http://{at}/",
            "login": f"OS_CLOUD={BY_TLS} python3 -c 'import openstack; print(list(openstack.connect().compute.servers()))'",
            "client": f"openstack --os-cloud {BY_TLS} server list",
            "refusal": f"OS_CLOUD={WITHOUT_CA} python3 -c 'import openstack; openstack.connect().authorize()'   # must fail",
            "client-refusal": f"openstack --os-cloud {WITHOUT_CA} server list   # must fail: certificate verify failed",
        }
        if p.that == "catalogue":
            return [Command(("endpoint", "list", "--interface", "public"))]
        return [told(shown[p.that])]

    def requests(self, context: Context, p: CheckParams) -> list[Request]:
        if p.that == "catalogue":
            return [Request("GET", "identity", ("endpoints",), query={"interface": "public"})]
        return []

    def find_all(self, context: Context, p: CheckParams) -> Iterable[Thing]:
        return [self._look(context, p)]

    def compare(self, context: Context, p: CheckParams, thing: Thing) -> list[Difference]:
        found: list[Difference] = thing["differences"]
        return found

    def show_command(self, context: Context, p: CheckParams) -> Command:
        return self.commands(context, p)[0]

    def shown(self, thing: Thing) -> str:
        return "; ".join(thing["seen"])

    def settle_seconds(self, p: CheckParams) -> float:
        return 30

    def _look(self, context: Context, p: CheckParams) -> Thing:
        seen, differences = _LOOKS[p.that](context)
        return {"name": p.that, "seen": seen, "differences": differences}


Seen = tuple[list[str], list[Difference]]


def _addresses(context: Context) -> dict[str, tuple[str, int]]:
    """Where the public https endpoints and the dashboard answer: host and port by name. Raises Absent if there is none."""
    catalogue = Catalogue.read(context.admin)
    found: dict[str, tuple[str, int]] = {}
    for one in catalogue.of_interface("public"):
        parts = urlsplit(one["url"])
        place = (str(parts.hostname), parts.port or 443)
        if parts.scheme == "https" and place not in found.values():
            found[catalogue.called(one["service_id"])] = place
    front = next((host for host in context.https().serving() if host.name == HORIZON), None)
    if front:
        found[HORIZON] = (front.host, front.port)
    if not found:
        raise Absent("public endpoint on https")
    return found


def _of_certificates(judge: Callable[[Context, Any, str], tuple[str, Difference | None]]) -> Callable[[Context], Seen]:
    """Look at the certificate that each address shows."""

    def look(context: Context) -> Seen:
        seen: dict[str, list[str]] = {}
        differences = []
        for name, (host, port) in _addresses(context).items():
            try:
                certificate = certificate_of(host, port)
            except NoTls as error:
                differences.append(Difference(name, "a TLS server", str(error)))
                continue
            said, difference = judge(context, certificate, host)
            seen.setdefault(said, []).append(name)
            if difference:
                differences.append(Difference(f"{name} ({host}:{port})", difference.expected, difference.actual))
        return [f"{', '.join(sorted(names))}: {said}" for said, names in seen.items()], differences

    return look


def _chain(context: Context, certificate: Any, host: str) -> tuple[str, Difference | None]:
    authority = context.https().authority.certificate()
    if authority is None:
        raise Absent("certificate authority of the lab")
    issuer = certificate.issuer.rfc4514_string()
    good = signed_by(certificate, authority)
    wanted = f"signed by {authority.subject.rfc4514_string()}"
    return f"signed by {issuer}", None if good else Difference("", wanted, f"signed by another key, of {issuer}")


def _name(context: Context, certificate: Any, host: str) -> tuple[str, Difference | None]:
    names = names_of(certificate)
    listed = names.alternative or "nothing"
    return f"for {listed}", None if covers(certificate, host) else Difference("", f"for {host}", f"for {listed}")


def _dates(context: Context, certificate: Any, host: str) -> tuple[str, Difference | None]:
    ends = certificate.not_valid_after_utc
    said = f"until {ends:%Y-%m-%d %H:%M} UTC"
    now = datetime.datetime.now(datetime.UTC)
    if days_left(certificate) <= 0:
        return said, Difference("", "valid now", f"expired at {ends:%Y-%m-%d %H:%M} UTC")
    if certificate.not_valid_before_utc > now:
        return said, Difference("", "valid now", f"valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on")
    return said, None


def _plain(context: Context) -> Seen:
    seen, differences = [], []
    for name, (host, port, path) in _plain_addresses(context).items():
        try:
            answer = ask(host, port, path, tls=False)
        except NoTls:
            seen.append(f"{name}: refused")
            continue
        location = answer.headers.get("location", "")
        if answer.status in (301, 308) and location.startswith("https://"):
            seen.append(f"{name}: {answer.status} to {location}")
        elif answer.status == 400 and "https" in answer.body.lower():
            seen.append(f"{name}: refused (400)")  # Apache: "Instead use the HTTPS scheme to access this URL"
        else:
            differences.append(
                Difference(
                    f"plain HTTP to {host}:{port} ({name})", "a redirect to https, or a refusal", str(answer.status)
                )
            )
    return seen, differences


def _plain_addresses(context: Context) -> dict[str, tuple[str, int, str]]:
    """Host, port and path: on a shared port 80 only the dashboard's path is public."""
    found = {name: (host, port, "/") for name, (host, port) in _addresses(context).items()}
    front = context.https().remembered().get(HORIZON)
    if front and front.plain_port and HORIZON in found:
        found["horizon's plain address"] = (front.host, front.plain_port, f"{front.prefix.rstrip('/')}/")
    return found


def _catalogue(context: Context) -> Seen:
    catalogue = Catalogue.read(context.admin)
    seen, differences = [], []
    for one in catalogue.of_interface("public"):
        name, url = catalogue.called(one["service_id"]), one["url"]
        seen.append(f"{name} {url}")
        if not url.startswith("https://"):
            differences.append(Difference(f"public endpoint of {name}", "https", url))
    return seen, differences


def _entry(context: Context, name: str) -> Connection:
    """Somebody of the lab's clouds.yaml, logged in anew. Raises Absent without such an entry."""
    import yaml

    if name not in yaml.safe_load(context.https().clouds_file.read_text(encoding="utf-8"))["clouds"]:
        raise Absent(f"entry {name} of clouds.yaml")
    return Connection(context.https().clouds_file, name)


def _login(context: Context) -> Seen:
    person = _entry(context, BY_TLS)
    try:
        urls = [person.auth_url, *(_list(person, service) for service in _LISTED)]
    except (CloudRefused, CloudUnreachable) as error:
        return [], [Difference("a login by https", "a token and two lists", error.message)]
    plain = [url for url in urls if not url.startswith("https://")]
    return [f"asked {', '.join(urls)}"], [Difference("what it asked", "https", url) for url in plain]


def _list(person: Connection, service: str) -> str:
    person.get(service, {"compute": "servers", "image": "images"}[service])
    return person.endpoint(service)


def _refusal(context: Context) -> Seen:
    person = _entry(context, WITHOUT_CA)
    wanted = "a refusal of the certificate"
    try:
        person.get("identity", "projects")
    except (CloudRefused, CloudUnreachable) as error:
        return _refused("openstacksdk", error.message, wanted)
    return [], [Difference("a login without the lab's authority", wanted, "it logged in")]


def _client(context: Context) -> Seen:
    _entry(context, BY_TLS)
    done = client.run(Command(("server", "list", "-f", "value")), {}, context.https().clouds_file, BY_TLS)
    if done.status:
        return [], [Difference("openstack server list", "a list", _last(done.complaint))]
    return [f"openstack --os-cloud {BY_TLS} server list: {len(done.output.splitlines())} servers"], []


def _client_refusal(context: Context) -> Seen:
    _entry(context, WITHOUT_CA)
    done = client.run(Command(("server", "list", "-f", "value")), {}, context.https().clouds_file, WITHOUT_CA)
    wanted = "a refusal of the certificate"
    if done.status == 0:
        return [], [Difference("openstack server list without the lab's authority", wanted, "a list")]
    return _refused("the openstack client", done.complaint, wanted)


def _refused(who: str, complaint: str, wanted: str) -> Seen:
    """Of a failed attempt: it must have failed because nobody whom the client trusts signed the certificate."""
    if "certificate verify failed" in complaint.lower():
        said = complaint[complaint.lower().index("certificate verify failed") :].splitlines()[0]
        return [f"{who}: {said[:120].rstrip(')')}"], []
    return [], [Difference(f"{who} without the lab's authority", wanted, _last(complaint))]


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was said"])[-1][:300]


_LOOKS: dict[str, Callable[[Context], Seen]] = {
    "chain": _of_certificates(_chain),
    "name": _of_certificates(_name),
    "dates": _of_certificates(_dates),
    "plain": _plain,
    "catalogue": _catalogue,
    "login": _login,
    "client": _client,
    "refusal": _refusal,
    "client-refusal": _client_refusal,
}


def _first(context: Context) -> str:
    """An address to show how: Keystone's front, or a variable."""
    try:
        fronts = context.https().remembered()
    except Absent:
        return "$HOST:$PORT"
    front = fronts.get("keystone") or next(iter(fronts.values()), None)
    return f"{front.host}:{front.port}" if front else "$HOST:$PORT"


KINDS: list[Kind[Any]] = [TlsCheck()]
