"""The projects that OpenStack is made of: whether this cloud runs one, and whether it answers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from stacklab.cloud.horizon import login_page
from stacklab.errors import CloudRefused, CloudUnreachable, LabError
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import Id, Name, Params
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import Command, Request

Type = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]

# docs.openstack.org/keystone "catalog overview", and what DevStack's plugins register: an endpoint ends in a version, a project
# or an account, all of which come after the address where a service tells its versions.
_BELOW = re.compile(r"/(v\d[.\d]*|AUTH_[^/]*|[^/]*[$%]\([^/]*)(/.*)?$")


class ComponentParams(Params):
    """A project of OpenStack, by its names."""

    name: Name
    """What people call it: Keystone."""
    types: list[Type] = []
    """What catalogues call it, the usual one first; none: it has no API, and its login page is looked at (Horizon)."""
    required: bool = False
    """A cloud without it is broken, not just small."""
    switch: Id | None = None
    """Its name for `lab up --with`, if it can be asked for."""


class Component(Kind[ComponentParams]):
    """One project of OpenStack, as this cloud runs it or not."""

    name = "component"
    params = ComponentParams
    leaves = False
    words = "{name}"
    tells = "{asked} answers: {answer[0]}"

    def horizon(self, p: ComponentParams) -> str:
        if not p.types:
            return "what you look at is Horizon"
        return (
            "Project ▸ API Access lists the services of your catalogue; Admin ▸ System ▸ System Information all of them"
        )

    def commands(self, context: Context, p: ComponentParams) -> list[Command]:
        if not p.types:
            return [Command(("status",), program="lab")]
        services, _ = _known(context, p)
        return [Command(("catalog", "show", services[0]["type"] if services else p.types[0]))]

    def requests(self, context: Context, p: ComponentParams) -> list[Request]:
        if not p.types:
            return []
        services, asked = _known(context, p)
        query = {"type": services[0]["type"] if services else p.types[0]}
        versions = [Request("GET", "identity", (), at=asked, token=False)] if asked else []
        return [Request("GET", "identity", ("services",), query=query), *versions]

    def find_all(self, context: Context, p: ComponentParams) -> Iterable[Thing]:
        if not p.types:
            return [{"name": p.name, "asked": context.dashboard(), "answer": horizon_answers(context)}]
        services, asked = _of_catalogue(context, p)
        answer = _versions(context, asked) if asked else ("nothing", False)
        return [{"name": p.name, "services": services, "asked": asked, "answer": answer}]

    def compare(self, context: Context, p: ComponentParams, thing: Thing) -> list[Difference]:
        if p.types and not thing["services"]:
            return [Difference("catalogue", f"a service of type {_or(p.types)}", "none")]
        if not thing["asked"]:
            meant = "an enabled service with a public endpoint"
            return [Difference("catalogue", meant, "it is registered, without one")]
        words, right = thing["answer"]
        expected = f"{thing['asked']} answers with {'its versions' if p.types else 'a login form'}"
        return [] if right else [Difference("answer", expected, words)]

    def report(self, thing: Thing) -> str:
        return ""  # `shown` says it all

    def applicable(self, context: Context, p: ComponentParams) -> str | None:
        if p.required:
            return None
        if not p.types:
            return None if context.dashboard() else "this cloud has no dashboard"
        return lacking(context, p.name, p.types, p.switch)

    def expected(self, p: ComponentParams) -> str:
        return f"{p.name} is in the catalogue and answers" if p.types else f"{p.name} shows its login page"


def _of_catalogue(context: Context, p: ComponentParams) -> tuple[list[Thing], str]:
    """Its services in Keystone's catalogue, enabled or not; where the first public endpoint tells its versions."""
    services = registered(context, p.types)
    enabled = {service["id"] for service in services if service.get("enabled", True)}
    endpoints = context.admin.get("identity", "endpoints", interface="public")["endpoints"]
    urls = [row["url"] for row in endpoints if row["enabled"] and row["service_id"] in enabled]
    return services, version_address(urls[0]) if urls else ""


def _known(context: Context, p: ComponentParams) -> tuple[list[Thing], str]:
    """The same for showing how: nothing, on paper or where Keystone does not tell."""
    try:
        return _of_catalogue(context, p)
    except (Absent, LabError):
        return [], ""


def registered(context: Context, types: Iterable[str]) -> list[Thing]:
    """The services of these types in Keystone's catalogue, enabled or not."""
    services = context.admin.get("identity", "services")["services"]
    return [service for service in services if service["type"] in set(types)]


def version_address(url: str) -> str:
    """Where a service tells, to anybody, which versions of its API it speaks: above the version and project in its endpoint.

    Swift has no version document; it tells its version, and what it can do, at /info.
    """
    base = _BELOW.sub("", url.rstrip("/"))
    return f"{base}/info" if "/AUTH_" in url else f"{base}/"


def _versions(context: Context, url: str) -> tuple[str, bool]:
    """What the service at this address says of its versions, and whether that is an answer of such a service."""
    try:
        answer = context.admin.fetch("GET", url, headers={"Accept": "application/json"})
        document = answer.json()
    except (CloudRefused, CloudUnreachable) as error:
        return error.message, False
    except ValueError:
        return "something that is not JSON", False
    if not isinstance(document, dict):
        return "a document without versions", False
    if isinstance(document.get("swift"), dict):
        return f"Swift {document['swift'].get('version')}", True
    rows = document.get("versions", document.get("version"))
    rows = rows.get("values", [rows]) if isinstance(rows, dict) else rows
    ids = [str(row["id"]) for row in rows or [] if isinstance(row, dict) and "id" in row]
    ids.sort(key=lambda version: [int(digits) for digits in re.findall(r"\d+", version)])
    if not ids:
        return "a document without versions", False
    return (f"version {ids[0]}" if len(ids) == 1 else f"versions {ids[0]} to {ids[-1]}"), True


def horizon_answers(context: Context) -> tuple[str, bool]:
    """What Horizon's login page says, and whether it is one. Raises Absent where the cloud has no dashboard."""
    dashboard = context.dashboard()
    if not dashboard:
        raise Absent("a dashboard")
    verify = context.admin.verify  # not below: a Keystone that does not answer is no fault of Horizon's
    try:
        shown, words = login_page(dashboard, verify)
    except CloudUnreachable as error:
        return error.message, False
    return words, shown


def lacking(context: Context, title: str, types: Iterable[str], switch: str | None) -> str | None:
    """Why steps about a service make no sense on a cloud whose catalogue has nothing of these types, or None."""
    types = list(types)
    if registered(context, types):
        return None
    why = f"this cloud does not run {title}: its catalogue has nothing of type {_or(types)}"
    if switch is None:
        return why
    from stacklab.deploy.localconf.enable import how_to_switch_on

    return f"{why}; {how_to_switch_on(switch, profile=context.site().profile, session=context.session_name)}"


def _or(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


KINDS: list[Kind[Any]] = [Component()]
