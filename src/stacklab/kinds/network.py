"""Neutron: networks, subnets, routers, floating IPs."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import Params, Ref, Refers, shouted
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.named import NamedKind, NamedParams
from stacklab.kinds.narration import Command, Later, Request


def listed(context: Context, collection: str, key: str | None = None, **query: str) -> list[Thing]:
    rows: list[Thing] = context.admin.listed("network", collection, key=key or collection.replace("-", "_"), **query)
    return rows


class NetworkParams(NamedParams):
    """A network of the project's own."""


class Network(NamedKind[NetworkParams]):
    """A network of the project's own: a layer-2 segment that nobody else sees."""

    name = "network"
    params = NetworkParams
    menus = "Project ▸ Network ▸ Networks ▸ Create Network: Network Name {name}"

    def commands(self, context: Context, p: NetworkParams) -> list[Command]:
        return [Command(("network", "create", p.name))]

    def requests(self, context: Context, p: NetworkParams) -> list[Request]:
        return [Request("POST", "network", ("networks",), {"network": {"name": p.name, "admin_state_up": True}})]

    def compare(self, context: Context, p: NetworkParams, thing: Thing) -> list[Difference]:
        return differing([("admin_state_up", True, thing["admin_state_up"]), ("shared", False, thing["shared"])])

    def named(self, context: Context, name: str) -> Thing | None:
        things = self.by_name(context, name) or self.listed(context, name, {"name": name, "router:external": "true"})
        return next(iter(things), None)


class SubnetParams(NamedParams):
    """The addresses of a network."""

    network: Annotated[Ref, Refers("network")]
    """The network that it belongs to."""
    cidr: str
    """The addresses: 10.0.0.0/24."""
    gateway: str | None = None
    """The router's address in it; without it the first one."""
    dns: list[str] = []
    """Addresses of name servers, told by DHCP."""

    @field_validator("cidr")
    @classmethod
    def _cidr(cls, value: str) -> str:
        try:
            return str(IPv4Network(value))
        except ValueError as error:
            raise ValueError(f"'{value}' is no IPv4 network like 10.0.0.0/24: {error}") from error

    @field_validator("gateway", "dns")
    @classmethod
    def _addresses(cls, value: str | list[str] | None) -> str | list[str] | None:
        for text in [value] if isinstance(value, str) else value or []:
            try:
                IPv4Address(text)
            except ValueError as error:
                raise ValueError(f"'{text}' is no IPv4 address like 10.0.0.1") from error
        return value

    @model_validator(mode="after")
    def _gateway_is_inside(self) -> SubnetParams:
        if self.gateway and IPv4Address(self.gateway) not in IPv4Network(self.cidr):
            raise ValueError(f"the gateway {self.gateway} is not in {self.cidr}")
        return self


class Subnet(NamedKind[SubnetParams]):
    """A subnet: the addresses of a network, handed out by DHCP."""

    name = "subnet"
    params = SubnetParams
    menus = "Project ▸ Network ▸ Networks ▸ (the network's menu) Create Subnet: Name {name}, Network Address {cidr}"

    def title(self, p: SubnetParams) -> str:
        return f"subnet {p.name} ({p.cidr})"

    def commands(self, context: Context, p: SubnetParams) -> list[Command]:
        gateway = ("--gateway", p.gateway) if p.gateway else ()
        dns = tuple(word for server in p.dns for word in ("--dns-nameserver", server))
        network = context.name_of(p.network)
        return [Command(("subnet", "create", "--network", network, "--subnet-range", p.cidr, *gateway, *dns, p.name))]

    def requests(self, context: Context, p: SubnetParams) -> list[Request]:
        network = context.id_of(p.network, "network")
        subnet: dict[str, object] = {"name": p.name, "network_id": network, "ip_version": 4, "cidr": p.cidr}
        if p.gateway:
            subnet["gateway_ip"] = p.gateway
        if p.dns:
            subnet["dns_nameservers"] = p.dns
        return [Request("POST", "network", ("subnets",), {"subnet": subnet})]

    def find_all(self, context: Context, p: SubnetParams) -> Iterable[Thing]:
        context.thing(p.network, "network")
        return self.by_name(context, p.name)

    def compare(self, context: Context, p: SubnetParams, thing: Thing) -> list[Difference]:
        own = context.name_of(p.network)
        network = own if thing["network_id"] == context.thing(p.network, "network")["id"] else "another network"
        first = str(IPv4Network(p.cidr).network_address + 1)
        return differing(
            [
                ("network", own, network),
                ("cidr", p.cidr, thing["cidr"]),
                ("gateway", p.gateway or first, thing["gateway_ip"] or "none"),
                ("dhcp", True, thing["enable_dhcp"]),
                ("dns", p.dns or None, thing["dns_nameservers"]),
            ]
        )


class RouterParams(NamedParams):
    """A router, and what it connects."""

    external: Annotated[Ref, Refers("network")]
    """The external network that it leads to."""
    subnets: list[Annotated[Ref, Refers("subnet")]] = Field(min_length=1)
    """The subnets that it has an interface in."""


class Router(NamedKind[RouterParams]):
    """A router between the project's subnets and the external network."""

    name = "router"
    params = RouterParams

    def horizon(self, p: RouterParams) -> str:
        return (
            f"Project ▸ Network ▸ Routers ▸ Create Router: Router Name {p.name}, External Network; "
            "then the router ▸ Interfaces ▸ Add Interface"
        )

    def commands(self, context: Context, p: RouterParams) -> list[Command]:
        outside = context.name_of(p.external)
        return [
            Command(("router", "create", p.name)),
            Command(("router", "set", "--external-gateway", outside, p.name)),
            *(Command(("router", "add", "subnet", p.name, context.name_of(subnet))) for subnet in p.subnets),
        ]

    def requests(self, context: Context, p: RouterParams) -> list[Request]:
        router = Later(shouted(p.name, "id"))
        gateway = {"network_id": context.id_of(p.external, "network")}
        body = {"router": {"name": p.name, "admin_state_up": True, "external_gateway_info": gateway}}
        return [
            Request("POST", "network", ("routers",), body, saves={router.name: ("router", "id")}),
            *(
                Request(
                    "PUT",
                    "network",
                    ("routers", router, "add_router_interface"),
                    {"subnet_id": context.id_of(subnet, "subnet")},
                )
                for subnet in p.subnets
            ),
        ]

    def find_all(self, context: Context, p: RouterParams) -> Iterable[Thing]:
        for ref in (p.external, *p.subnets):
            context.thing(ref, "network" if ref == p.external else "subnet")
        routers = self.by_name(context, p.name)
        for router in routers:
            router["subnets"] = sorted(_router_subnets(context, router["id"]))
        return routers

    def compare(self, context: Context, p: RouterParams, thing: Thing) -> list[Difference]:
        gateway = (thing["external_gateway_info"] or {}).get("network_id")
        differences = differing([("admin_state_up", True, thing["admin_state_up"])])
        if gateway != context.thing(p.external, "network")["id"]:
            actual = "another network" if gateway else "none"
            differences.append(Difference("external gateway", context.name_of(p.external), actual))
        bare = [subnet for subnet in p.subnets if context.thing(subnet, "subnet")["id"] not in thing["subnets"]]
        differences += [Difference("interface", f"on {context.name_of(subnet)}", "none there") for subnet in bare]
        return differences

    def undo_data(self, context: Context, p: RouterParams, thing: Thing) -> Thing:
        return {"id": thing["id"], "name": thing["name"], "subnets": thing["subnets"]}

    def remove(self, context: Context, thing: Thing) -> bool:
        attached = _router_subnets(context, thing["id"])
        for subnet in attached & set(thing["subnets"]):
            path = ("routers", thing["id"], "remove_router_interface")
            context.admin.put("network", *path, body={"subnet_id": subnet})
        return context.admin.delete("network", "routers", thing["id"])


def _router_subnets(context: Context, router_id: str) -> set[str]:
    """Subnets that the router has an interface on (whatever implements routers calls its ports by another owner)."""
    ports = listed(context, "ports", device_id=router_id)
    inside = [
        port for port in ports if port["device_owner"].startswith("network:") and "interface" in port["device_owner"]
    ]
    return {address["subnet_id"] for port in inside for address in port["fixed_ips"]}


class FloatingIpParams(Params):
    """An address of the external network for an instance."""

    server: Annotated[Ref, Refers("server")]
    """The instance that it leads to."""
    network: Annotated[Ref, Refers("network")]
    """The external network that it is taken from."""


class FloatingIp(Kind[FloatingIpParams]):
    """A floating IP: an address of the external network that is translated to the instance's own."""

    name = "floating-ip"
    params = FloatingIpParams
    words = "floating IP"
    menus = "Project ▸ Compute ▸ Instances ▸ (the instance's menu) Associate Floating IP ▸ + Allocate IP ▸ Associate"
    expects = "the server has an active floating IP"

    def commands(self, context: Context, p: FloatingIpParams) -> list[Command]:
        port = Later("PORT_ID")
        return [
            Command(("port", "list", "--server", context.name_of(p.server)), saves=port.name, column="ID"),
            Command(("floating", "ip", "create", "--port", port, context.name_of(p.network))),
        ]

    def requests(self, context: Context, p: FloatingIpParams) -> list[Request]:
        port = Later("PORT_ID")
        body = {"floating_network_id": context.id_of(p.network, "network"), "port_id": port}
        return [
            Request(
                "GET",
                "network",
                ("ports",),
                query={"device_id": context.id_of(p.server, "server")},
                saves={port.name: ("ports", 0, "id")},
            ),
            Request(
                "POST",
                "network",
                ("floatingips",),
                {"floatingip": body},
                saves={shouted(context.step.id, "id"): ("floatingip", "id")},
            ),
        ]

    def find_all(self, context: Context, p: FloatingIpParams) -> Iterable[Thing]:
        server = context.thing(p.server, "server")
        ports = {port["id"] for port in listed(context, "ports", device_id=server["id"])}
        rows = listed(context, "floatingips", project_id=context.project_id())
        return [address | {"name": address["floating_ip_address"]} for address in rows if address["port_id"] in ports]

    def compare(self, context: Context, p: FloatingIpParams, thing: Thing) -> list[Difference]:
        outside = context.name_of(p.network)
        right = thing["floating_network_id"] == context.thing(p.network, "network")["id"]
        network = outside if right else "another network"
        return differing([("network", outside, network), ("status", "ACTIVE", thing["status"])])

    def remove(self, context: Context, thing: Thing) -> bool:
        return context.admin.delete("network", "floatingips", thing["id"])

    def show_command(self, context: Context, p: FloatingIpParams) -> Command:
        return Command(("floating", "ip", "list", "--long"))


KINDS: list[Kind[Any]] = [Network(), Subnet(), Router(), FloatingIp()]
