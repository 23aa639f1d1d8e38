"""Nova: a server that has done its work is deleted, and what was not on its own disk stays."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from stacklab.kinds.compute import VERSION, Server
from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import Params, Ref, Refers
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import Command, Request

SECONDS = 180
"""How long Nova may take to delete a server; a guest that is still booting lets go of a volume late."""


class ServerGoneParams(Params):
    """A server that is deleted, and what stays of it."""

    server: Annotated[Ref, Refers("server")]
    """The instance that is deleted."""
    keeps: Annotated[Ref, Refers("volume")]
    """The volume that outlives it."""


class ServerGone(Kind[ServerGoneParams]):
    """A server is deleted. Nova remembers it, and an administrator can list it; its volume is free for another one."""

    name = "server-gone"
    params = ServerGoneParams

    def title(self, p: ServerGoneParams) -> str:
        return "deletion of the instance"

    def horizon(self, p: ServerGoneParams) -> str:
        return "Project ▸ Compute ▸ Instances ▸ (the instance's menu) Delete Instance"

    def commands(self, context: Context, p: ServerGoneParams) -> list[Command]:
        return [
            Command(("server", "delete", "--wait", context.name_of(p.server))),
            Command(("volume", "show", context.name_of(p.keeps))),
        ]

    def requests(self, context: Context, p: ServerGoneParams) -> list[Request]:
        volume = context.id_of(p.keeps, "volume")
        return [
            Request("DELETE", "compute", ("servers", context.id_of(p.server, "server"))),
            Request("GET", "block-storage", ("volumes", volume), until=(("volume", "status"), "available")),
        ]

    def settle_seconds(self, p: ServerGoneParams) -> float:
        return SECONDS

    def find_all(self, context: Context, p: ServerGoneParams) -> Iterable[Thing]:
        volume, name = context.thing(p.keeps, "volume"), context.name_of(p.server)
        if Server().by_name(context, name):
            return []
        # Only one that is younger than the volume can have had it: an earlier replay's, which was undone, does not count.
        deleted = [one for one in _deleted(context, name) if _moment(one["created"]) >= _moment(volume["created_at"])]
        return [{"name": name, "ids": {one["id"] for one in deleted}, "volume": volume}] if deleted else []

    def compare(self, context: Context, p: ServerGoneParams, thing: Thing) -> list[Difference]:
        volume = thing["volume"]
        holding = {one.get("server_id") for one in volume.get("attachments", [])} & thing["ids"]
        if volume["status"] in ("available", "in-use") and not holding:
            return []
        return [Difference("volume", f"{volume['name']} is free for another instance", volume["status"])]

    def undo_data(self, context: Context, p: ServerGoneParams, thing: Thing) -> Thing:
        return {"name": thing["name"]}

    def remove(self, context: Context, thing: Thing) -> bool:
        return False  # there is nothing left of it

    def show_command(self, context: Context, p: ServerGoneParams) -> Command:
        return Command(("server", "list", "--deleted", "--all-projects", "--name", context.name_of(p.server)))

    def shown(self, thing: Thing) -> str:
        return f"{thing['name']} is deleted, {thing['volume']['name']} is {thing['volume']['status']}"

    def expected(self, p: ServerGoneParams) -> str:
        return "the instance was there and is deleted, and the volume is still there"


def _deleted(context: Context, name: str) -> list[Thing]:
    """Servers of this name in the acting project that Nova remembers as deleted; only an admin may ask."""
    query = {"all_tenants": "1", "project_id": context.project_id(), "deleted": "true"}
    found = context.admin.get("compute", "servers", "detail", version=VERSION, **query)["servers"]
    return [one for one in found if one["name"] == name]


def _moment(text: str) -> datetime:
    """Nova writes a Z after its times, Cinder does not; both mean UTC."""
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return found.replace(microsecond=0)  # Nova's are whole seconds


KINDS: list[Kind[Any]] = [ServerGone()]
