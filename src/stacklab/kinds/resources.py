"""The things that a cloud keeps: which service has them, what people and the client call them, where Horizon shows them."""

from __future__ import annotations

from dataclasses import dataclass

from stacklab.kinds.narration import Service


@dataclass(frozen=True)
class Resource:
    """One sort of thing. `path`: its collection, below the service's endpoint; `client`: the client's words for it.

    `menu`: the way to it in Horizon's menus, and `page`, where a step opens it, its address there. `key`: what an answer calls
    the list. `detail`: the list in full is a path below. `scoped`: each project has its own; `everywhere`: what asks for those
    of all. `columns`: what the client calls the thing's name (and id).
    """

    service: Service
    path: str
    client: str
    menu: str = ""
    word: str = ""
    page: str = ""
    key: str = ""
    detail: bool = False
    scoped: bool = False
    everywhere: tuple[str, ...] = ()
    columns: tuple[str, ...] = ("name", "id")

    @property
    def list_path(self) -> tuple[str, ...]:
        """Where the whole list is asked for."""
        return (self.path, "detail") if self.detail else (self.path,) if self.path else ()

    @property
    def list_key(self) -> str:
        """What the answer calls the list."""
        return self.key or self.path.replace("-", "_")

    @property
    def called(self) -> str:
        """What people call one of them."""
        return self.word or self.client

    def show(self) -> tuple[str, ...]:
        """The client's words for looking at one."""
        return (*self.client.split(), "show")

    def list(self) -> tuple[str, ...]:
        """The client's words for the list."""
        return (*self.client.split(), "list")


ALL = ("--all-projects",)
RESOURCES: dict[str, Resource] = {
    "service": Resource("identity", "services", "catalog", "Admin ▸ System ▸ System Information"),
    "endpoint": Resource("identity", "endpoints", "endpoint", "Project ▸ API Access (what the user's catalogue holds)"),
    "user": Resource("identity", "users", "user", "Identity ▸ Users"),
    "project": Resource("identity", "projects", "project", "Identity ▸ Projects"),
    "flavor": Resource("compute", "flavors", "flavor", "Admin ▸ Compute ▸ Flavors", detail=True),
    "image": Resource("image", "images", "image", "Project ▸ Compute ▸ Images"),
    "server": Resource(
        *("compute", "servers", "server", "Compute ▸ Instances", "instance", "/project/instances/"),
        detail=True,
        scoped=True,
        everywhere=ALL,
    ),
    "network": Resource(
        *("network", "networks", "network", "Network ▸ Networks", "", "/project/networks/"), scoped=True
    ),
    "volume": Resource(
        *("block-storage", "volumes", "volume", "Volumes ▸ Volumes", "", "/project/volumes/"),
        detail=True,
        scoped=True,
        everywhere=ALL,
    ),
    "key-pair": Resource("compute", "os-keypairs", "keypair", word="key pair", columns=("name",)),
    "security-group": Resource("network", "security-groups", "security group"),
    "subnet": Resource("network", "subnets", "subnet"),
    "router": Resource("network", "routers", "router"),
    "floating-ip": Resource(
        "network", "floatingips", "floating ip", word="floating IP", columns=("floating_ip_address", "id")
    ),
    "container": Resource(
        "object-store", "", "container", "Project ▸ Object Store ▸ Containers", columns=("container",)
    ),
    "object": Resource("object-store", "", "object", "Project ▸ Object Store ▸ Containers ▸ (the container)"),
}

PARTS: dict[Service, Resource] = {
    "compute": Resource("compute", "os-services", "compute service", key="services"),
    "network": Resource("network", "agents", "network agent"),
    "block-storage": Resource("block-storage", "os-services", "volume service", key="services"),
}
"""The services' own lists of their parts."""


@dataclass(frozen=True)
class QuotaSet:
    """A project's limits, as one service keeps them. `names`: what the client calls each, and the service."""

    path: str
    key: str
    defaults: str
    names: dict[str, str]


QUOTAS: dict[Service, QuotaSet] = {
    "compute": QuotaSet(
        "os-quota-sets", "quota_set", "defaults", {name: name for name in ("instances", "cores", "ram")}
    ),
    # Neutron has singulars, and one word for a floating IP.
    "network": QuotaSet(
        *("quotas", "quota", "default"),
        {
            name: name.replace("_", "").removesuffix("s")
            for name in ("networks", "subnets", "routers", "ports", "floating_ips")
        },
    ),
    "block-storage": QuotaSet(
        *("os-quota-sets", "quota_set", "defaults"), {name: name for name in ("volumes", "gigabytes", "snapshots")}
    ),
}
