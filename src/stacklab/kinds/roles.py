"""Node roles: the services of the running cloud, sorted under the nodes that a larger cloud would have for them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from ruamel.yaml import YAML

from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import Params
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import Command, Request
from stacklab.kinds.resources import PARTS

Role = Literal["controller", "network", "compute", "storage"]
Asked = Literal["compute", "network", "block-storage"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Role(_Strict):
    title: str
    what: str
    asks: list[Asked] = []
    must: list[str] = []


class _Sorted(_Strict):
    roles: list[Role]
    what: str


class Sorting(_Strict):
    """roles.yaml: the roles; services by the names that homes use; parts by the names that the services' lists use."""

    roles: dict[Role, _Role]
    services: dict[str, _Sorted]
    parts: dict[str, list[Role]]


@cache
def sorting() -> Sorting:
    """What belongs where. Raises ValidationError if the file is wrong (a defect of ours)."""
    text = (Path(__file__).parent / "roles.yaml").read_text(encoding="utf-8")
    return Sorting.model_validate(YAML(typ="safe").load(text))


class NodeRoleParams(Params):
    """A role that a node of a larger cloud has."""

    role: Role
    """Which."""


class NodeRole(Kind[NodeRoleParams]):
    """What belongs to one role: services as the home sees them, and the parts that the services list themselves."""

    name = "node-role"
    params = NodeRoleParams
    words = "the {role} role"
    menus = "Admin ▸ System ▸ System Information: Compute Services, Block Storage Services, Network Agents"
    expects = "every service of the {role} role runs"
    leaves = False

    def commands(self, context: Context, p: NodeRoleParams) -> list[Command]:
        return [Command(PARTS[asked].list()) for asked in self._asks(p)]

    def requests(self, context: Context, p: NodeRoleParams) -> list[Request]:
        return [Request("GET", PARTS[asked].service, PARTS[asked].list_path) for asked in self._asks(p)]

    def _asks(self, p: NodeRoleParams) -> list[Asked]:
        """The controller's parts are in two lists; the other roles have one each."""
        return sorting().roles[p.role].asks or ["compute", "block-storage"]

    def report(self, thing: Thing) -> str:
        role = sorting().roles[thing["name"]]
        services = [
            f"  {service['name']:<30} {service['state']:<8} {sorting().services[service['name']].what}"
            for service in thing["services"]
        ]
        parts = [
            f"  {part['binary']:<30} {'up' if part['up'] else 'down':<8} (as its own list says)"
            for part in thing["parts"] or []
        ]
        return "\n".join([f"{role.title}: {role.what}", *services, *parts])

    def find_all(self, context: Context, p: NodeRoleParams) -> Iterable[Thing]:
        known = sorting().services
        services = [
            {"name": service.name, "state": service.state, "reason": service.reason}
            for service in context.services()
            if service.name in known and p.role in known[service.name].roles
        ]
        well = all(service["state"] == "running" for service in services)
        # A service that does not run would make the question fail; that it does not run is the better answer.
        parts = self._parts(context, p) if well else None
        return [{"name": p.role, "services": services, "parts": parts}]

    def _parts(self, context: Context, p: NodeRoleParams) -> list[Thing]:
        rows = []
        for asked in self._asks(p):
            lists = PARTS[asked]
            for row in context.admin.get(lists.service, *lists.list_path)[lists.list_key]:
                if p.role in sorting().parts.get(row["binary"], []):
                    up = bool(row["alive"]) if "alive" in row else row["state"] == "up"
                    rows.append({"binary": row["binary"], "host": row.get("host", ""), "up": up})
        return rows

    def compare(self, context: Context, p: NodeRoleParams, thing: Thing) -> list[Difference]:
        if not thing["services"]:
            return [Difference("services", f"something that belongs to the {p.role} role", "nothing")]
        down = [
            Difference(
                service["name"],
                "running",
                f"{service['state']} ({service['reason']})" if service["reason"] else service["state"],
            )
            for service in thing["services"]
            if service["state"] != "running"
        ]
        if thing["parts"] is None:
            return down
        parts = thing["parts"]
        down += [Difference(f"{part['binary']} on {part['host']}", "up", "down") for part in parts if not part["up"]]
        there = {part["binary"] for part in parts}
        must = [name for name in sorting().roles[p.role].must if name not in there]
        return down + [Difference(name, "in its service's own list", "not there") for name in must]

    def shown(self, thing: Thing) -> str:
        names = ", ".join(service["name"] for service in thing["services"])
        parts = ", ".join(sorted({part["binary"] for part in thing["parts"] or []}))
        return f"running: {names}" + (f"; up by their own list: {parts}" if parts else "")

    def show_command(self, context: Context, p: NodeRoleParams) -> Command:
        return Command(("status",), program="lab")


KINDS: list[Kind[Any]] = [NodeRole()]
