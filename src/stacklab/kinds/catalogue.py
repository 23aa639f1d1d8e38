"""The endpoints of Keystone's catalogue: an internal one for each service, and the public ones moved to https.

The catalogue is changed by Keystone's API alone: it checks what it is given, tells its caches, and every endpoint keeps its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stacklab.errors import CloudRefused
from stacklab.https.virtual_hosts import EndpointCatalogue, virtual_host_of
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import NoParams
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import Command, Later, Request


class _Endpoints(Kind[NoParams]):
    params = NoParams
    changes = True

    def horizon(self, p: NoParams) -> str:
        return "(Horizon shows endpoints, under Project ▸ API Access, and changes none)"

    def applicable(self, context: Context, p: NoParams) -> str | None:
        return context.https().why_not()

    def show_command(self, context: Context, p: NoParams) -> Command:
        interface = self.name.removesuffix("-endpoints")
        return Command(("endpoint", "list", "--interface", interface))


class InternalEndpoints(_Endpoints):
    """An internal endpoint for every service: where the services reach each other, whatever becomes of the public ones."""

    name = "internal-endpoints"

    def title(self, p: NoParams) -> str:
        return "internal endpoint of every service"

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        if not _connected(context):
            return [
                Command(("endpoint", "create", "--region", Later("REGION"), Later("SERVICE"), "internal", Later("URL")))
            ]
        return [
            Command(("endpoint", "create", *region(endpoint), endpoint["service_id"], "internal", endpoint["url"]))
            for endpoint in _missing(context)
        ] or [Command(("endpoint", "list", "--interface", "internal"))]

    def requests(self, context: Context, p: NoParams) -> list[Request]:
        made: list[dict[str, Any]] = [
            {"service_id": Later("SERVICE_ID"), "region_id": Later("REGION"), "url": Later("URL")}
        ]
        return [
            Request("POST", "identity", ("endpoints",), {"endpoint": {**endpoint, "interface": "internal"}})
            for endpoint in (_missing(context) if _connected(context) else made)
        ] or [Request("GET", "identity", ("endpoints",), query={"interface": "internal"})]

    def snapshot(self, context: Context, p: NoParams) -> Thing:
        catalogue = EndpointCatalogue.read(context.admin)
        return {"there": [endpoint["id"] for endpoint in catalogue.endpoints], "made": _missing(context)}

    def find_all(self, context: Context, p: NoParams) -> Iterable[Thing]:
        catalogue = EndpointCatalogue.read(context.admin)
        urls = {
            catalogue.called(endpoint["service_id"]): endpoint["url"] for endpoint in catalogue.of_interface("internal")
        }
        return [{"name": self.title(p), "urls": urls}]

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        catalogue = EndpointCatalogue.read(context.admin)
        return [
            Difference(catalogue.called(endpoint["service_id"]), "an internal endpoint", "none")
            for endpoint in _missing(context)
        ]

    def remove(self, context: Context, thing: Thing) -> bool:
        """Only what came after `there` was noted, and is what was meant to be made, was made by the step."""
        removed = False
        meant = {(endpoint["service_id"], endpoint["url"]) for endpoint in thing["made"]}
        for endpoint in EndpointCatalogue.read(context.admin).endpoints:
            new = endpoint["id"] not in thing["there"] and endpoint["interface"] == "internal"
            if new and (endpoint["service_id"], endpoint["url"]) in meant:
                removed = context.admin.delete("identity", "endpoints", endpoint["id"]) or removed
        return removed

    def shown(self, thing: Thing) -> str:
        return _listed(thing["urls"])


class PublicEndpoints(_Endpoints):
    """The public endpoints point at the TLS fronts; ids, regions and all other endpoints stay."""

    name = "public-endpoints"

    def title(self, p: NoParams) -> str:
        return "public endpoints on https"

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        if not _connected(context):
            return [Command(("endpoint", "set", "--url", Later("URL"), Later("ENDPOINT_ID")))]
        return [Command(("endpoint", "set", "--url", url, identity)) for identity, _, url in _moves(context)] or [
            Command(("endpoint", "list", "--interface", "public"))
        ]

    def requests(self, context: Context, p: NoParams) -> list[Request]:
        if not _connected(context):
            return [
                Request("PATCH", "identity", ("endpoints", Later("ENDPOINT_ID")), {"endpoint": {"url": Later("URL")}})
            ]
        return [
            Request("PATCH", "identity", ("endpoints", identity), {"endpoint": {"url": url}})
            for identity, _, url in _moves(context)
        ] or [Request("GET", "identity", ("endpoints",), query={"interface": "public"})]

    def more(self, context: Context, p: NoParams) -> list[str]:
        """The way through the database, as the course's learner went it: told, never run."""
        updates = [
            f"    UPDATE endpoint SET url = {_sql(url)} WHERE id = {_sql(identity)};"  # noqa: S608 - shown, never run
            for identity, _, url in (_moves(context)[:2] if _connected(context) else [])
        ]
        return [
            "For comparison, what changing Keystone's database by hand would be (lab never does it):",
            "    SELECT id, interface, url FROM endpoint WHERE interface = 'public';",
            *updates,
            "    … and so on, then a restart of Keystone, whose caches know nothing of it. Nobody checks what is written, and",
            "    a WHERE that is too wide changes the internal endpoints as well. The API does it with one request each.",
        ]

    def snapshot(self, context: Context, p: NoParams) -> Thing:
        catalogue = EndpointCatalogue.read(context.admin)
        twins = {
            (endpoint["service_id"], endpoint["url"]): endpoint["id"] for endpoint in catalogue.of_interface("internal")
        }
        moved = {identity for identity, _, _ in _moves(context)}
        endpoints = [
            {
                **{key: endpoint.get(key) for key in ("id", "url", "interface", "region_id", "service_id")},
                "twin": twins.get((endpoint["service_id"], endpoint["url"])),
            }
            for endpoint in catalogue.endpoints
            if endpoint["id"] in moved
        ]
        return {"endpoints": endpoints}

    def find_all(self, context: Context, p: NoParams) -> Iterable[Thing]:
        catalogue = EndpointCatalogue.read(context.admin)
        urls = {_name(catalogue, endpoint): endpoint["url"] for endpoint in catalogue.of_interface("public")}
        return [{"name": self.title(p), "urls": urls}]

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        expected = {name: url for _, name, url in _moves(context)}
        wrong = [Difference(name, url, thing["urls"][name]) for name, url in expected.items() if name in thing["urls"]]
        plain = {name: url for name, url in thing["urls"].items() if url.startswith("http://") and name not in expected}
        return wrong + [Difference(name, "https", url) for name, url in plain.items()]

    def remove(self, context: Context, thing: Thing) -> bool:
        changed = False
        now = {endpoint["id"]: endpoint for endpoint in EndpointCatalogue.read(context.admin).endpoints}
        for endpoint in thing["endpoints"]:
            url = endpoint["url"]
            if (
                endpoint["twin"] in now
            ):  # the service may answer on another port by now, and its internal endpoint knows
                url = now[endpoint["twin"]]["url"]
            if endpoint["id"] in now and now[endpoint["id"]]["url"] != url:
                context.admin.patch("identity", "endpoints", endpoint["id"], body={"endpoint": {"url": url}})
                changed = True
        context.admin.forget()  # its token's catalogue is that of before
        return changed

    def shown(self, thing: Thing) -> str:
        return _listed(thing["urls"])


def region(endpoint: Mapping[str, Any]) -> tuple[str, ...]:
    """The client's option for an endpoint's region, if it has one."""
    return ("--region", endpoint["region_id"]) if endpoint.get("region_id") else ()


def _missing(context: Context) -> list[dict[str, Any]]:
    """What an internal endpoint must be made of, for each enabled service (and region) that has only a public one."""
    catalogue = EndpointCatalogue.read(context.admin)
    have = {(endpoint["service_id"], endpoint.get("region_id")) for endpoint in catalogue.of_interface("internal")}
    plain = catalogue.plain()
    missing = {}
    for endpoint in catalogue.of_interface("public"):
        place = (endpoint["service_id"], endpoint.get("region_id"))
        if place in have or endpoint["service_id"] not in plain:
            continue
        url = endpoint["url"] if endpoint["url"].startswith("http://") else plain[endpoint["service_id"]][1]
        missing[place] = {"service_id": place[0], "region_id": place[1], "url": url}
    return list(missing.values())


def _moves(context: Context) -> list[tuple[str, str, str]]:
    """For each public endpoint that is not where its front is: its id, its service's name, its URL to be."""
    catalogue = EndpointCatalogue.read(context.admin)
    fronts, plain = context.https().planned(catalogue), catalogue.plain()
    moves = []
    for endpoint in catalogue.of_interface("public"):
        if endpoint["service_id"] not in plain:
            continue
        inside = endpoint["url"] if endpoint["url"].startswith("http://") else plain[endpoint["service_id"]][1]
        front = virtual_host_of(fronts, inside)
        if front and front.public_url(inside) != endpoint["url"]:
            moves.append((str(endpoint["id"]), _name(catalogue, endpoint), front.public_url(inside)))
    return moves


def _name(catalogue: EndpointCatalogue, endpoint: Mapping[str, Any]) -> str:
    """What to call an endpoint: by its service, and by its region where the service has several."""
    service = endpoint["service_id"]
    several = sum(other["service_id"] == service for other in catalogue.of_interface(endpoint["interface"])) > 1
    return catalogue.called(service) + (f" in {endpoint.get('region_id')}" if several else "")


def _connected(context: Context) -> bool:
    """Whether there is a cloud to look at."""
    try:
        return bool(context.admin.name)
    except (Absent, CloudRefused):
        return False


def _listed(urls: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {url}" for name, url in sorted(urls.items()))


def _sql(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


KINDS: list[Kind[Any]] = [InternalEndpoints(), PublicEndpoints()]
