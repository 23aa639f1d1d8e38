"""Looking: listings that a learner compares, with what they must show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from pydantic import model_validator

from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import Name, Params, Ref, Refers
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import Command, Request, Word
from stacklab.kinds.objects import names_in, without_swift
from stacklab.kinds.resources import RESOURCES, Resource

Listing = Literal[
    "services",
    "endpoints",
    "users",
    "projects",
    "flavors",
    "images",
    "servers",
    "networks",
    "volumes",
    "containers",
    "objects",
]


class LookParams(Params):
    """A listing, and what must be in it."""

    at: Listing
    """What is listed."""
    of: Annotated[Ref, Refers("project")] | None = None
    """The project whose things (or users) are listed."""
    within: Annotated[Ref, Refers("container")] | None = None
    """The container whose objects are listed."""
    everywhere: bool = False
    """Those of all projects, as only an admin may."""
    shows: list[
        Name
        | Annotated[
            Ref,
            Refers("server", "network", "volume", "image", "user", "project", "container", "object", "large-object"),
        ]
    ] = []
    """What must be listed."""

    @model_validator(mode="after")
    def _objects_lie_in_a_container(self) -> LookParams:
        if (self.at == "objects") != (self.within is not None):
            raise ValueError("objects are listed within a container, and nothing else is: give both, or neither")
        return self


def _listed(p: LookParams) -> Resource:
    return RESOURCES[p.at.removesuffix("s")]


class Look(Kind[LookParams]):
    """A look at a listing; nothing is made, but what it must show is checked."""

    name = "look"
    params = LookParams
    expects = "the {at} can be listed, and show what they should"
    leaves = False

    def title(self, p: LookParams) -> str:
        return f"look at the {p.at}" + (" of all projects" if p.everywhere else "")

    def horizon(self, p: LookParams) -> str:
        listed = _listed(p)
        return f"{'Admin' if p.everywhere else 'Project'} ▸ {listed.menu}" if listed.scoped else listed.menu

    def commands(self, context: Context, p: LookParams) -> list[Command]:
        listed = _listed(p)
        everywhere = listed.everywhere if p.everywhere else ()
        of = ("--project", context.name_of(p.of)) if p.of else ()
        within = (context.name_of(p.within),) if p.within else ()
        return [Command((*listed.list(), *everywhere, *of, *within))]

    def requests(self, context: Context, p: LookParams) -> list[Request]:
        listed = _listed(p)
        if p.at == "users" and p.of:
            query: dict[str, Word] = {"scope.project.id": context.id_of(p.of, "project"), "include_names": "true"}
            return [Request("GET", "identity", ("role_assignments",), query=query)]
        if listed.service == "object-store":
            path = (context.name_of(p.within),) if p.within else ()
            return [Request("GET", "object-store", path, query={"format": "json"})]
        query = {"all_tenants": "1"} if p.everywhere and listed.everywhere else {}
        if p.of:
            query["project_id"] = context.id_of(p.of, "project")
        return [Request("GET", listed.service, listed.list_path, query=query)]

    def _rows(self, context: Context, p: LookParams) -> set[str]:
        """The names that the listing shows, read as the admin but with the scope of the one who looks."""
        if reader := _READERS.get(p.at):
            return reader(context, p)
        listed = _listed(p)
        query = {"all_tenants": "1"} if listed.everywhere else {}
        if listed.scoped and not p.everywhere:
            query |= {"project_id": context.thing(p.of, "project")["id"] if p.of else context.project_id()}
        rows = context.admin.listed(listed.service, *listed.list_path, key=listed.list_key, **query)
        return {row["name"] for row in rows}

    def find_all(self, context: Context, p: LookParams) -> Iterable[Thing]:
        return [{"name": p.at, "rows": self._rows(context, p)}]

    def compare(self, context: Context, p: LookParams, thing: Thing) -> list[Difference]:
        names = [context.name_of(ref) for ref in p.shows]
        shown = ", ".join(sorted(thing["rows"])) or "nothing"
        return [Difference(p.at, f"{name} is listed", shown) for name in names if name not in thing["rows"]]

    def shown(self, thing: Thing) -> str:
        return ", ".join(sorted(thing["rows"])) or "nothing"

    def show_command(self, context: Context, p: LookParams) -> Command:
        return self.commands(context, p)[0]

    def applicable(self, context: Context, p: LookParams) -> str | None:
        return without_swift(context) if _listed(p).service == "object-store" else None


def _users(context: Context, p: LookParams) -> set[str]:
    if p.of is None:
        return {user["name"] for user in context.admin.get("identity", "users")["users"]}
    query = {"scope.project.id": context.thing(p.of, "project")["id"], "include_names": "true"}
    assignments = context.admin.get("identity", "role_assignments", **query)["role_assignments"]
    return {assignment["user"]["name"] for assignment in assignments if "user" in assignment}


def _endpoints(context: Context, p: LookParams) -> set[str]:
    """Names of the enabled services that have a public endpoint."""
    services = {
        service["id"]: service["name"]
        for service in context.admin.get("identity", "services")["services"]
        if service["enabled"]
    }
    endpoints = context.admin.get("identity", "endpoints", interface="public")["endpoints"]
    return {
        services[endpoint["service_id"]]
        for endpoint in endpoints
        if endpoint["enabled"] and endpoint["service_id"] in services
    }


def _services(context: Context, p: LookParams) -> set[str]:
    return {service["name"] for service in context.admin.get("identity", "services")["services"] if service["enabled"]}


def _containers(context: Context, p: LookParams) -> set[str]:
    """Those of the account of the one who looks: nobody else may."""
    answer = context.user.fetch("GET", context.user.endpoint("object-store"), query={"format": "json"})
    return {row["name"] for row in answer.json()} if answer.content else set()


def _objects(context: Context, p: LookParams) -> set[str]:
    box = context.name_of(p.within) if p.within else ""
    names = names_in(context, box)
    if names is None:
        raise Absent(f"container {box}")
    return names


_READERS: dict[str, Callable[[Context, LookParams], set[str]]] = {
    "users": _users,
    "endpoints": _endpoints,
    "services": _services,
    "containers": _containers,
    "objects": _objects,
}


KINDS: list[Kind[Any]] = [Look()]
