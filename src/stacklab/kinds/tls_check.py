"""Looking at what is public from outside, by the commands that are shown: which they are, and how answers are read, is data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from stacklab.errors import MissingProgram
from stacklab.https.apache import filled
from stacklab.https.authority import is_ip
from stacklab.https.logins import BY_TLS
from stacklab.https.virtual_hosts import HORIZON, EndpointCatalogue
from stacklab.kinds import client
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import Params
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import PAPER, Command, Request, shell_lines

That = Literal["chain", "name", "dates", "plain", "catalogue", "login", "client", "refusal", "client-refusal"]
PUBLIC = {"interface": "public"}


class Address(BaseModel):
    """Something public: its name, and where it answers. `path`: below which it does; `public`: what its URLs begin with."""

    name: str = ""
    host: str = "HOST"
    port: str = "PORT"
    path: str = "/"
    public: str = ""

    @property
    def at(self) -> str:
        """For openssl and URLs."""
        return f"{self.host}:{self.port}"


class Answer(BaseModel):
    """One way to read what a command said; see tls_looks.yaml."""

    model_config = ConfigDict(extra="forbid")
    pattern: str
    shows: str
    expected: str | None = None


class Look(BaseModel):
    """One property that a command shows; see tls_looks.yaml."""

    model_config = ConfigDict(extra="forbid")
    title: str
    line: str
    login: str | None = None
    answers: list[Answer]

    def command(self, address: Address, directory: Path) -> str:
        """The line for one address. `directory`: of the lab's authority."""
        values = {
            "at": address.at, "host": address.host, "path": address.path, "public": address.public,
            "option": "-checkip" if is_ip(address.host) else "-checkhost", "directory": str(directory),
        }  # fmt: skip
        return filled(self.line, {name: shlex.quote(value) for name, value in values.items()})

    def read(self, address: Address, result: client.Result) -> tuple[str, str | None]:
        """What the command showed, and what it should have shown if that is something else."""
        text = f"{result.status}\n{result.output}{result.complaint}".replace("\r", "")
        values = {"host": address.host, "path": address.path, "public": address.public, "last": _last(result)}
        quoted = {name: re.escape(value) for name, value in values.items()}
        for answer in self.answers:
            if match := re.search(filled(answer.pattern, quoted), text, re.MULTILINE | re.IGNORECASE):
                expected = None if answer.expected is None else filled(answer.expected, values)
                return filled(match.expand(answer.shows), values), expected
        raise AssertionError(f"nothing reads: {text}")  # the last pattern of each takes anything

    def ask(self, context: Context, address: Address) -> tuple[str, str | None]:
        """Run the command, with the lab's logins; how its answer is read. Raises MissingProgram."""
        https = context.https()
        line = self.command(address, https.directory)
        result = client.run(shell_lines(line), {}, https.clouds_file, self.login or BY_TLS)
        if result.status == 127:
            raise MissingProgram(_last(result), advice="install it: the step is done with that program")
        return self.read(address, result)


def wrong(context: Context, asked: Iterable[tuple[str, Address]]) -> list[Difference]:
    """What is otherwise than it should be, of these looks (by name) at these addresses."""
    differences = []
    for name, address in asked:
        look = looks()[name]
        shown, expected = look.ask(context, address)
        if expected:
            differences.append(
                Difference(filled(look.title, {"host": address.host, "at": address.at}), expected, shown)
            )
    return differences


@cache
def looks() -> dict[str, Look]:
    """What tls_looks.yaml says, by name."""
    text = Path(__file__).with_name("tls_looks.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Look]).validate_python(yaml.safe_load(text))


def _last(result: client.Result) -> str:
    """What it said last. Of a long line the end counts most: that is where an error of Python's names its cause."""
    lines = (result.complaint + result.output).strip().splitlines() or [f"it ended with status {result.status}"]
    return lines[-1] if len(lines[-1]) <= 300 else f"{lines[-1][:80]} … {lines[-1][-220:]}"


# --- the kinds of steps ---------------------------------------------------------------------------------------------


P = TypeVar("P", bound=Params)


class Tls(Kind[P]):
    """What the kinds that are about TLS share: no API does them, and what they declare follows from the cloud."""

    menus = "(not in Horizon: a certificate is a file on the machine that serves)"

    def applicable(self, context: Context, p: P) -> str | None:
        return context.https().why_not()


class CheckParams(Params):
    """Which property is looked at."""

    that: That
    """The property: of the certificates (chain, name, dates), of plain HTTP, of the catalogue, or of a client's login."""


class TlsCheck(Tls[CheckParams]):
    """One property of the public endpoints. Nothing is left behind."""

    name = "tls-check"
    params = CheckParams
    settle_seconds = 30
    leaves = False
    tells = "{seen}"

    def title(self, p: CheckParams) -> str:
        return "no public endpoint in the catalogue is plain http" if p.that == "catalogue" else looks()[p.that].title

    expected = title

    def horizon(self, p: CheckParams) -> str:
        if p.that in ("chain", "name", "dates"):
            return (
                "in the browser: open Horizon by https, then the lock (or the warning) before the address ▸ Certificate"
            )
        return "(not in Horizon)"

    def commands(self, context: Context, p: CheckParams) -> list[Command]:
        if p.that == "catalogue":
            return [Command(("endpoint", "list", "--interface", "public"))]
        try:
            addresses, directory = _addresses(context, p.that), context.https().directory
        except Absent:
            addresses, directory = [Address(name="anything public")], PAPER
        return [shell_lines(*(looks()[p.that].command(address, directory) for address in addresses))]

    def requests(self, context: Context, p: CheckParams) -> list[Request]:
        return [Request("GET", "identity", ("endpoints",), query=PUBLIC)] if p.that == "catalogue" else []

    def find_all(self, context: Context, p: CheckParams) -> Iterable[Thing]:
        seen: dict[str, list[str]] = {}
        differences = []
        for name, at, shown, expected in _plain_urls(context) if p.that == "catalogue" else _looked(context, p.that):
            seen.setdefault(shown, []).append(name)
            if expected:
                differences.append(Difference(f"{name}{at}", expected, shown))
        lines = [f"{', '.join(sorted(names))}: {shown}" for shown, names in seen.items()]
        return [{"name": p.that, "seen": "; ".join(lines), "differences": differences}]

    def report(self, thing: Thing) -> str:
        return ""  # `shown` says it all


Seen = Iterable[tuple[str, str, str, str | None]]
"""For each of what is public: its name, where it is, what is shown of it, and what should be if that is something else."""


def _plain_urls(context: Context) -> Seen:
    catalogue = EndpointCatalogue.read(context.admin)
    for row in catalogue.of_interface("public"):
        expected = None if row["url"].startswith("https://") else "https"
        yield catalogue.called(row["service_id"]), "", row["url"], expected


def _looked(context: Context, that: str) -> Seen:
    """What each of the commands showed. Raises Absent where there is nothing to look at."""
    look, https = looks()[that], context.https()
    if look.login and look.login not in yaml.safe_load(https.clouds_file.read_text(encoding="utf-8"))["clouds"]:
        raise Absent(f"entry {look.login} of clouds.yaml")
    if not https.authority.certificate_file.exists():
        raise Absent("certificate authority of the lab")
    for address in _addresses(context, that):
        yield address.name, "" if look.login else f" ({address.at})", *look.ask(context, address)


def _addresses(context: Context, that: str) -> list[Address]:
    """Where the command of a look is run: once, for a login; else for whatever is public. Raises Absent for none."""
    look = looks()[that]
    return [Address(name=look.login)] if look.login else public_addresses(context, plain=that == "plain")


def public_addresses(context: Context, *, plain: bool) -> list[Address]:
    """Where the public https endpoints and the dashboard answer, the latter's `plain` port too. Raises Absent for none."""
    catalogue = EndpointCatalogue.read(context.admin)
    addresses: dict[str, Address] = {}
    for row in catalogue.of_interface("public"):
        parts = urlsplit(row["url"])
        address = Address(
            name=catalogue.called(row["service_id"]), host=str(parts.hostname), port=str(parts.port or 443)
        )
        if parts.scheme == "https":
            addresses.setdefault(address.at, address)
    everything = list(addresses.values())
    for host in context.https().serving():
        if host.name == HORIZON:
            everything.append(Address(name=HORIZON, host=host.host, port=str(host.port)))
            if plain and host.plain_port:  # on a shared port 80 only the dashboard's path is public
                path = f"{host.prefix.rstrip('/')}/"
                name = "horizon's plain address"
                everything.append(Address(name=name, host=host.host, port=str(host.plain_port), path=path))
    if not everything:
        raise Absent("public endpoint on https")
    return everything


KINDS: list[Kind[Any]] = [TlsCheck()]
