"""Seeing for oneself that the public endpoints are what they should be: one property a step, by the commands that are shown."""

from __future__ import annotations

import os
import re
import shlex
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml

from stacklab.errors import MissingProgram
from stacklab.https.logins import BY_TLS, WITHOUT_CA
from stacklab.https.peer import REDIRECTS
from stacklab.https.server import EndpointCatalogue
from stacklab.https.virtual_hosts import HORIZON
from stacklab.kinds import client
from stacklab.kinds.certificates import directory_of, shell_lines
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import Params
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import Command, Request

That = Literal["chain", "name", "dates", "plain", "catalogue", "login", "client", "refusal", "client-refusal"]
SECONDS = 120
"""How long one command may take; the openstack client alone needs seconds to start."""

_SDK = (
    'import openstack; cloud = openstack.connect(); print(cloud.config.get_auth_args()["auth_url"], '
    '*(cloud.endpoint_for(name) for name in ("compute", "image"))); '
    'print(len(list(cloud.compute.servers())), "servers,", len(list(cloud.image.images())), "images")'
)


@dataclass(frozen=True)
class TlsAddress:
    """Something public: its name, and where it answers. `path`: below which it does, where others share the port."""

    name: str
    host: str
    port: str
    path: str = "/"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    output: str
    complaint: str

    @property
    def last(self) -> str:
        """What it said last. Of a long line the end counts most: that is where an error of Python's names its cause."""
        lines = (self.complaint + self.output).strip().splitlines() or [f"it ended with status {self.status}"]
        return lines[-1] if len(lines[-1]) <= 300 else f"{lines[-1][:80]} … {lines[-1][-220:]}"


Judged = tuple[str, str | None]
"""What a command showed, and what it should have shown if that is something else."""


@dataclass(frozen=True)
class Check:
    """`line`: the command for one address (it is run for each, or once, where it mentions none). `judge` reads what it did."""

    words: str
    line: str
    judge: Callable[[TlsAddress, Done], Judged]
    login: str = ""

    def command(self, context: Context, address: TlsAddress) -> str:
        """The line with the address, and the authority's file, in it."""
        if self.login:
            return self.line
        known = not address.host.startswith("$")  # else it is a variable, for showing how
        file = f"{directory_of(context)}/ca.pem"
        place, host = f"{address.host}:{address.port}", address.host
        return self.line.format(
            at=shlex.quote(place) if known else place,
            host=shlex.quote(host) if known else host,
            path=shlex.quote(address.path),
            option="-checkip" if _is_ip(host) else "-checkhost",
            authority=shlex.quote(file) if known else f'"{file}"',
        )


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


# --- how the commands' answers are read ----------------------------------------------------------------------------


def _chain(address: TlsAddress, done: Done) -> Judged:
    if done.status == 0 and "Verification: OK" in done.complaint + done.output:
        return "signed by the lab's authority", None
    wrong = re.search(r"verify error:num=\d+:(.*)", done.complaint + done.output)
    return (wrong[1] if wrong else _no_tls(done)), "a certificate that the lab's authority signed"


def _name(address: TlsAddress, done: Done) -> Judged:
    if "does match certificate" in done.output:
        return "for the address of its endpoint", None
    return (f"not for {address.host}" if "does NOT match" in done.output else _no_tls(done)), f"for {address.host}"


def _dates(address: TlsAddress, done: Done) -> Judged:
    dates = dict(re.findall(r"^(notBefore|notAfter)=(.*)$", done.output, re.MULTILINE))
    if len(dates) < 2:
        return _no_tls(done), "a certificate that is valid now"
    if "will not expire" not in done.output:
        return f"expired at {dates['notAfter']}", "valid now"
    if ssl.cert_time_to_seconds(dates["notBefore"]) > time.time():
        return f"valid from {dates['notBefore']} on", "valid now"
    return f"until {dates['notAfter']}", None


def _no_tls(done: Done) -> str:
    if "onnection refused" in done.complaint + done.output:
        return "nobody listens there"
    return f"no TLS ({done.last})"


def _plain(address: TlsAddress, done: Done) -> Judged:
    answer = re.match(r"HTTP/\S+ (\d+)", done.output)
    if done.status != 0 or answer is None:
        return "refused", None
    location = re.search(r"^location: (\S+)", done.output, re.MULTILINE | re.IGNORECASE)
    if int(answer[1]) in REDIRECTS and location and location[1].startswith("https://"):
        return f"{answer[1]} to {location[1]}", None
    if answer[1] == "400" and "https" in done.output.lower():
        return "refused (400)", None  # Apache: "Instead use the HTTPS scheme to access this URL"
    return f"HTTP {answer[1]}", "a redirect to https, or a refusal"


def _login(address: TlsAddress, done: Done) -> Judged:
    asked, _, lists = done.output.strip().partition("\n")
    if done.status != 0:
        return done.last, "a token and two lists"
    plain = [url for url in asked.split() if not url.startswith("https://")]
    return f"asked {asked}: {lists}", f"https, not {', '.join(plain)}" if plain else None


def _client(address: TlsAddress, done: Done) -> Judged:
    if done.status != 0:
        return done.last, "a list"
    return f"{len(done.output.splitlines())} servers", None


def _refused(address: TlsAddress, done: Done) -> Judged:
    """It must have failed because nobody whom the client trusts signed the certificate, and for no other reason."""
    wanted = "a refusal: certificate verify failed"
    if done.status == 0:
        return "it logged in", wanted
    refusal = re.search(r"certificate verify failed[^\n)]*", done.complaint + done.output, re.IGNORECASE)
    return (refusal[0][:120], None) if refusal else (done.last, wanted)


_SHOWS = "openssl s_client -connect {at} </dev/null 2>/dev/null | openssl x509 -noout"
CHECKS: dict[str, Check] = {
    "chain": Check(
        "every certificate is signed by the lab's authority",
        "openssl s_client -connect {at} -CAfile {authority} -verify_return_error -no_check_time -brief </dev/null",
        _chain,
    ),
    "name": Check(
        "every certificate is for the address that its endpoint carries", _SHOWS + " {option} {host} -subject", _name
    ),
    "dates": Check("no certificate has expired", _SHOWS + " -dates -checkend 0", _dates),
    "plain": Check(
        "plain HTTP is redirected or refused at every public address", "curl -sS -i http://{at}{path}", _plain
    ),
    "login": Check(
        "openstacksdk logs in and lists by https alone, with the lab's authority",
        f"OS_CLOUD={BY_TLS} python3 -c {shlex.quote(_SDK)}",
        _login,
        login=BY_TLS,
    ),
    "client": Check(
        "the openstack client logs in and lists by https, with the lab's authority",
        f"openstack --os-cloud {BY_TLS} server list -f value",
        _client,
        login=BY_TLS,
    ),
    "refusal": Check(
        "openstacksdk without the lab's authority refuses the certificate",
        f"OS_CLOUD={WITHOUT_CA} python3 -c 'import openstack; openstack.connect().authorize()'",
        _refused,
        login=WITHOUT_CA,
    ),
    "client-refusal": Check(
        "the openstack client without the lab's authority refuses the certificate",
        f"openstack --os-cloud {WITHOUT_CA} server list",
        _refused,
        login=WITHOUT_CA,
    ),
}
CATALOGUE = "no public endpoint in the catalogue is plain http"


class CheckParams(Params):
    """Which property is looked at."""

    that: That
    """The property: of the certificates (chain, name, dates), of plain HTTP, of the catalogue, or of a client's login."""


class TlsCheck(Kind[CheckParams]):
    """One property of the public endpoints. Nothing is left behind."""

    name = "tls-check"
    params = CheckParams
    leaves = False

    def title(self, p: CheckParams) -> str:
        return CATALOGUE if p.that == "catalogue" else CHECKS[p.that].words

    expected = title

    def horizon(self, p: CheckParams) -> str:
        if p.that in ("chain", "name", "dates"):
            return (
                "in the browser: open Horizon by https, then the lock (or the warning) before the address ▸ Certificate"
            )
        return "(not in Horizon)"

    def applicable(self, context: Context, p: CheckParams) -> str | None:
        return context.https().why_not()

    def commands(self, context: Context, p: CheckParams) -> list[Command]:
        if p.that == "catalogue":
            return [Command(("endpoint", "list", "--interface", "public"))]
        check = CHECKS[p.that]
        if check.login:
            return [shell_lines(check.line)]
        try:
            addresses = public_addresses(context, plain=p.that == "plain")
        except Absent:
            addresses = [TlsAddress("", "$HOST", "$PORT")]
        return [shell_lines("\n".join(check.command(context, address) for address in addresses))]

    def requests(self, context: Context, p: CheckParams) -> list[Request]:
        if p.that == "catalogue":
            return [Request("GET", "identity", ("endpoints",), query={"interface": "public"})]
        return []

    def find_all(self, context: Context, p: CheckParams) -> Iterable[Thing]:
        seen: dict[str, list[str]] = {}
        differences = []
        for address, (shown, expected) in _looked(context, p.that):
            seen.setdefault(shown, []).append(address.name)
            if expected:
                at = f"{address.name} ({address.host}:{address.port})" if address.host else address.name
                differences.append(Difference(at, expected, shown))
        lines = [f"{', '.join(sorted(names))}: {shown}" for shown, names in seen.items()]
        return [{"name": p.that, "seen": lines, "differences": differences}]

    def compare(self, context: Context, p: CheckParams, thing: Thing) -> list[Difference]:
        differences: list[Difference] = thing["differences"]
        return differences

    def report(self, thing: Thing) -> str:
        return ""  # `shown` says it all

    def show_command(self, context: Context, p: CheckParams) -> Command:
        return self.commands(context, p)[0]

    def shown(self, thing: Thing) -> str:
        return "; ".join(thing["seen"])

    def settle_seconds(self, p: CheckParams) -> float:
        return 30


def _looked(context: Context, that: str) -> list[tuple[TlsAddress, Judged]]:
    """What each of the commands showed. Raises Absent where there is nothing to look at."""
    if that == "catalogue":
        catalogue = EndpointCatalogue.read(context.admin)
        return [
            (
                TlsAddress(catalogue.called(endpoint["service_id"]), "", ""),
                (url, None if url.startswith("https://") else "https"),
            )
            for endpoint in catalogue.of_interface("public")
            if (url := str(endpoint["url"]))
        ]
    check, file = CHECKS[that], context.https().clouds_file
    if check.login:
        if check.login not in yaml.safe_load(file.read_text(encoding="utf-8"))["clouds"]:
            raise Absent(f"entry {check.login} of clouds.yaml")
        addresses = [TlsAddress(check.login, "", "")]
    else:
        if context.https().authority.certificate() is None:
            raise Absent("certificate authority of the lab")
        addresses = public_addresses(context, plain=that == "plain")
    return [(address, check.judge(address, _run(check.command(context, address), file))) for address in addresses]


def _run(line: str, clouds_file: Path) -> Done:
    """Run a line as a shell does, with the lab's logins and the clients that came with lab. Raises MissingProgram."""
    environment = client.environment(clouds_file, BY_TLS)
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
    try:
        done = subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, errors="replace", env=environment, timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Done(124, "", f"no answer within {SECONDS} s")
    if done.returncode == 127:
        program = line.split()[0]
        raise MissingProgram(f"{program} is not installed", advice=f"install it: the step is done with {program}")
    return Done(done.returncode, done.stdout, done.stderr)


def public_addresses(context: Context, *, plain: bool) -> list[TlsAddress]:
    """Where the public https endpoints and the dashboard answer, the latter's `plain` port too. Raises Absent for none."""
    catalogue = EndpointCatalogue.read(context.admin)
    addresses: dict[tuple[str, str], TlsAddress] = {}
    for endpoint in catalogue.of_interface("public"):
        parts = urlsplit(endpoint["url"])
        place = (str(parts.hostname), str(parts.port or 443))
        if parts.scheme == "https" and place not in addresses:
            addresses[place] = TlsAddress(catalogue.called(endpoint["service_id"]), *place)
    dashboard = next((host for host in context.https().serving() if host.name == HORIZON), None)
    everything = list(addresses.values())
    if dashboard:
        everything.append(TlsAddress(HORIZON, dashboard.host, str(dashboard.port)))
    if dashboard and plain and dashboard.plain_port:  # on a shared port 80 only the dashboard's path is public
        path = f"{dashboard.prefix.rstrip('/')}/"
        everything.append(TlsAddress("horizon's plain address", dashboard.host, str(dashboard.plain_port), path))
    if not everything:
        raise Absent("public endpoint on https")
    return everything


KINDS: list[Kind[Any]] = [TlsCheck()]
