"""Seeing for oneself that the public endpoints are what they should be: one property a step, by the commands that are shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml

from stacklab.https.virtual_hosts import HORIZON, EndpointCatalogue
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import Params
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import PAPER, Command, Request, shell_lines
from stacklab.kinds.tls_look import Address, looks

That = Literal["chain", "name", "dates", "plain", "catalogue", "login", "client", "refusal", "client-refusal"]
PUBLIC = {"interface": "public"}


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
        return "no public endpoint in the catalogue is plain http" if p.that == "catalogue" else looks()[p.that].title

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
        return [{"name": p.that, "seen": lines, "differences": differences}]

    def compare(self, context: Context, p: CheckParams, thing: Thing) -> list[Difference]:
        differences: list[Difference] = thing["differences"]
        return differences

    def report(self, thing: Thing) -> str:
        return ""  # `shown` says it all

    def shown(self, thing: Thing) -> str:
        return "; ".join(thing["seen"])

    def settle_seconds(self, p: CheckParams) -> float:
        return 30


Seen = Iterable[tuple[str, str, str, str | None]]
"""For each of what is public: its name, where it is, what is shown of it, and what should be if that is something else."""


def _plain_urls(context: Context) -> Seen:
    catalogue = EndpointCatalogue.read(context.admin)
    for row in catalogue.of_interface("public"):
        yield (
            catalogue.called(row["service_id"]),
            "",
            row["url"],
            None if row["url"].startswith("https://") else "https",
        )


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
