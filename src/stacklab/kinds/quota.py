"""Quotas of Nova, Neutron and Cinder, and the refusal of a request that goes over one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from stacklab.errors import CloudRefused, StepFailed
from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import Name, Params, Ref, Refers
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.narration import Command, Request, Service
from stacklab.kinds.resources import QUOTAS
from stacklab.kinds.volume import Volume
from stacklab.waiting import NotYet, until

Limit = Annotated[int, Field(ge=-1, le=2**31 - 1)] | None


class QuotaParams(Params):
    """Limits by the names that the `openstack quota set` command has for them; -1 is no limit."""

    project: Annotated[Ref, Refers("project")]
    """The project that they hold for."""
    instances: Limit = None
    """Servers."""
    cores: Limit = None
    """Virtual processors of all servers."""
    ram: Limit = None  # MiB
    """Memory of all servers in MiB."""
    networks: Limit = None
    """Networks."""
    subnets: Limit = None
    """Subnets."""
    routers: Limit = None
    """Routers."""
    ports: Limit = None
    """Ports."""
    floating_ips: Limit = None
    """Floating IPs."""
    volumes: Limit = None
    """Volumes."""
    gigabytes: Limit = None
    """All volumes together in GiB."""
    snapshots: Limit = None
    """Snapshots of volumes."""


def _read(context: Context, service: Service, project: str, *more: str) -> dict[str, int]:
    """A service's limits for a project (with `more`: its defaults)."""
    quotas = QUOTAS[service]
    limits: dict[str, int] = context.admin.get(service, quotas.path, project, *more)[quotas.key]
    return limits


class Quota(Kind[QuotaParams]):
    """Quotas: how much of the cloud a project may use, kept by each service for itself."""

    name = "quota"
    params = QuotaParams
    menus = "Identity ▸ Projects ▸ (the project's menu) Modify Quotas: tabs Compute, Volume, Network"
    expects = "the project's {title}"

    def title(self, p: QuotaParams) -> str:
        return "quotas " + ", ".join(f"{key}={value}" for key, value in self._limits(p).items())

    def _limits(self, p: QuotaParams) -> dict[str, int]:
        limits = p.model_dump(exclude={"project"}, exclude_none=True)
        return {key: value for key, value in limits.items() if value is not None}

    def _owned(self, p: QuotaParams) -> dict[Service, dict[str, int]]:
        """The declared limits by service, by their names there."""
        limits = self._limits(p)
        owned = {
            service: {api: limits[name] for name, api in quotas.names.items() if name in limits}
            for service, quotas in QUOTAS.items()
        }
        return {service: theirs for service, theirs in owned.items() if theirs}

    def commands(self, context: Context, p: QuotaParams) -> list[Command]:
        words = tuple(
            word for key, value in self._limits(p).items() for word in (f"--{key.replace('_', '-')}", str(value))
        )
        return [Command(("quota", "set", *words, context.name_of(p.project)))]

    def requests(self, context: Context, p: QuotaParams) -> list[Request]:
        project = context.id_of(p.project, "project")
        return [
            Request("PUT", service, (QUOTAS[service].path, project), {QUOTAS[service].key: limits})
            for service, limits in self._owned(p).items()
        ]

    def find_all(self, context: Context, p: QuotaParams) -> Iterable[Thing]:
        project = context.thing(p.project, "project")["id"]
        actual: dict[str, int] = {}
        untouched = True
        for service, limits in self._owned(p).items():
            now = _read(context, service, project)
            usual = _read(context, service, project, QUOTAS[service].defaults)
            actual |= {key: now[key] for key in limits}
            untouched = untouched and all(now[key] == usual[key] for key in limits)
        declared = {key: value for limits in self._owned(p).values() for key, value in limits.items()}
        # Every project has quotas; while they are the cloud's defaults, nobody has done this step.
        if untouched and actual != declared:
            return []
        return [{"id": project, "name": "quotas", "limits": actual, "services": list(self._owned(p))}]

    def compare(self, context: Context, p: QuotaParams, thing: Thing) -> list[Difference]:
        return differing(
            [(key, limits[key], thing["limits"][key]) for limits in self._owned(p).values() for key in limits]
        )

    def undo_data(self, context: Context, p: QuotaParams, thing: Thing) -> Thing:
        return {"id": thing["id"], "services": thing["services"]}

    def remove(self, context: Context, thing: Thing) -> bool:
        deleted = [context.admin.delete(service, QUOTAS[service].path, thing["id"]) for service in thing["services"]]
        return any(deleted)

    def show_command(self, context: Context, p: QuotaParams) -> Command:
        return Command(("quota", "show", context.name_of(p.project)))

    def shown(self, thing: Thing) -> str:
        return ", ".join(f"{key}={value}" for key, value in thing["limits"].items())


class RefusalParams(Params):
    """A volume that must be refused, because it goes over the quota of what is named."""

    project: Annotated[Ref, Refers("project")]
    """The project whose quota it is."""
    over: Literal["gigabytes"]
    """The limit that the request goes over."""
    name: Name
    """The name of the volume that is not made."""
    size: Annotated[int, Field(ge=1, le=1 << 20)] = 1
    """How large it would be, in GiB."""


class Refusal(Kind[RefusalParams]):
    """A request over quota: the service refuses it, and nothing is left behind."""

    name = "refusal"
    params = RefusalParams
    words = "a request over the quota of {over}"
    menus = "Project ▸ Volumes ▸ Volumes ▸ Create Volume: the dialog shows the quota and will not let you go over it"
    expects = "{title} would be refused"
    leaves = False

    def commands(self, context: Context, p: RefusalParams) -> list[Command]:
        return [Command(("volume", "create", "--size", str(p.size), p.name))]

    def requests(self, context: Context, p: RefusalParams) -> list[Request]:
        return [Request("POST", "block-storage", ("volumes",), {"volume": {"name": p.name, "size": p.size}})]

    def judge(self, context: Context, p: RefusalParams, refusal: CloudRefused | None) -> None:
        """Cinder refuses with 413; anything else is not about the quota."""
        if refusal is None:
            for volume in Volume().by_name(context, p.name):
                self._take_back(context, volume["id"])
            raise StepFailed(f"{self.title(p)} was not refused", advice="look at the quota: openstack quota show")
        words = ("quota", "exceeds allowed")
        if refusal.status not in (None, 403, 409, 413) or not any(word in refusal.message.lower() for word in words):
            raise refusal
        context.say(f"refused, as it should be: {refusal.message}")

    def _take_back(self, context: Context, volume: str) -> None:
        """Remove what should not have been made; Cinder deletes nothing that it is still making."""
        path = ("volumes", volume)
        until(
            lambda: (
                context.admin.get("block-storage", *path)["volume"]["status"] != "creating"
                or NotYet("it is being made")
            ),
            "the volume that is to be deleted",
            seconds=120,
            every=0.5,
            error=StepFailed,
        )
        context.admin.delete("block-storage", *path)

    def find_all(self, context: Context, p: RefusalParams) -> Iterable[Thing]:
        """What the limit leaves, read from the services: a check must not try the request itself."""
        quotas, project = QUOTAS["block-storage"], context.thing(p.project, "project")["id"]
        used = context.admin.get("block-storage", quotas.path, project, usage="true")[quotas.key][p.over]
        return [{"limit": used["limit"], "used": used["in_use"] + used["reserved"], "asked": p.size}]

    def compare(self, context: Context, p: RefusalParams, thing: Thing) -> list[Difference]:
        over = 0 <= thing["limit"] < thing["used"] + thing["asked"]
        return [] if over else [Difference(p.over, "the request goes over the quota", self.shown(thing))]

    def shown(self, thing: Thing) -> str:
        limit = "no limit" if thing["limit"] < 0 else f"limit {thing['limit']}"
        return f"{limit}, {thing['used']} used, {thing['asked']} asked for"

    def show_command(self, context: Context, p: RefusalParams) -> Command:
        return Command(("quota", "show", "--usage", context.name_of(p.project)))


KINDS: list[Kind[Any]] = [Quota(), Refusal()]
