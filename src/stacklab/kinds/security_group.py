"""Neutron: security groups and their rules."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import Params, shouted
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.named import NamedKind, NamedParams
from stacklab.kinds.narration import Command, Later, Request

PROTOCOLS = {"1": "icmp", "6": "tcp", "17": "udp", "any": None, "None": None}
"""Protocols by number (IANA), as Neutron keeps them where a rule was made so."""


class Rule(Params):
    """What may come in."""

    protocol: Literal["tcp", "udp", "icmp"]
    """The protocol."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """The port; without it every one."""
    source: str = "0.0.0.0/0"
    """The network that it may come from."""

    @field_validator("source")
    @classmethod
    def _source(cls, value: str) -> str:
        try:
            return str(IPv4Network(value))
        except ValueError as error:
            raise ValueError(f"'{value}' is no IPv4 network like 10.0.0.0/24 (a rule's source is one)") from error

    def words(self) -> str:
        """`tcp 22 from 0.0.0.0/0`"""
        return f"{self.protocol}{f' {self.port}' if self.port else ''} from {self.source}"

    def body(self) -> dict[str, object]:
        """The rule as the API wants it, without its group."""
        ports: dict[str, object] = {"port_range_min": self.port, "port_range_max": self.port} if self.port else {}
        fields = {
            "direction": "ingress",
            "ethertype": "IPv4",
            "protocol": self.protocol,
            "remote_ip_prefix": self.source,
        }
        return fields | ports


@dataclass(frozen=True)
class Opening:
    """What one rule lets in, however it was written. `protocol`: None is every one; `ports`: None is all of them."""

    protocol: str | None
    ports: tuple[int, int] | None
    source: IPv4Network

    @classmethod
    def of(cls, rule: Thing) -> Opening | None:
        """Of an existing rule; None where it lets in nothing that comes over IPv4 from a network."""
        if rule["direction"] != "ingress" or rule["ethertype"] != "IPv4" or rule["remote_group_id"]:
            return None
        protocol = PROTOCOLS.get(str(rule["protocol"]), rule["protocol"])
        low, high = rule["port_range_min"], rule["port_range_max"]
        whole = low is None or (protocol in ("tcp", "udp") and (low, high) == (1, 65535))
        source = IPv4Network(rule["remote_ip_prefix"] or "0.0.0.0/0", strict=False)
        return cls(protocol, None if whole else (low, low if high is None else high), source)

    def covers(self, other: Opening) -> bool:
        """Whether this lets in all that the other does."""
        inside = self.ports is None or (
            other.ports is not None and self.ports[0] <= other.ports[0] and other.ports[1] <= self.ports[1]
        )
        return self.protocol in (None, other.protocol) and inside and other.source.subnet_of(self.source)

    def words(self) -> str:
        """`tcp 20-22 from 0.0.0.0/0`, `everything from 0.0.0.0/0`"""
        ports = "" if self.ports is None else f" {'-'.join(str(port) for port in dict.fromkeys(self.ports))}"
        return f"{self.protocol or 'everything'}{ports} from {self.source}"


class SecurityGroupParams(NamedParams):
    """A security group with its rules."""

    description: str = ""
    """What it is for, in words."""
    rules: list[Rule] = Field(min_length=1)
    """What may come in, each by itself."""


class SecurityGroup(NamedKind[SecurityGroupParams]):
    """A security group: what may come in to an instance. Everything else is dropped."""

    name = "security-group"
    params = SecurityGroupParams

    def horizon(self, p: SecurityGroupParams) -> str:
        rules = "; ".join(rule.words() for rule in p.rules)
        return f"Project ▸ Network ▸ Security Groups ▸ Create Security Group: {p.name}; then Add Rule: {rules}"

    def commands(self, context: Context, p: SecurityGroupParams) -> list[Command]:
        words = ("security", "group", "rule", "create", "--ingress")
        return [
            Command(("security", "group", "create", "--description", p.description, p.name)),
            *(
                Command(
                    (
                        *words,
                        *("--protocol", rule.protocol),
                        *(("--dst-port", str(rule.port)) if rule.port else ()),
                        *("--remote-ip", rule.source, p.name),
                    )
                )
                for rule in p.rules
            ),
        ]

    def requests(self, context: Context, p: SecurityGroupParams) -> list[Request]:
        group = Later(shouted(p.name, "id"))
        body = {"security_group": {"name": p.name, "description": p.description}}
        first = Request("POST", "network", ("security-groups",), body, saves={group.name: ("security_group", "id")})
        rules = [rule.body() | {"security_group_id": group} for rule in p.rules]
        return [
            first,
            *(Request("POST", "network", ("security-group-rules",), {"security_group_rule": rule}) for rule in rules),
        ]

    def compare(self, context: Context, p: SecurityGroupParams, thing: Thing) -> list[Difference]:
        existing = [opening for rule in thing["security_group_rules"] if (opening := Opening.of(rule))]
        differences = []
        for rule in p.rules:
            port = (rule.port, rule.port) if rule.port else None
            declared = Opening(rule.protocol, port, IPv4Network(rule.source))
            more = next(
                (opening.words() for opening in existing if opening != declared and opening.covers(declared)), None
            )
            if more or declared not in existing:
                lets_in = f"more than that: {more}" if more else "no such rule"
                differences.append(Difference("rule", f"lets in {rule.words()}", lets_in))
        return differences

    def show_command(self, context: Context, p: SecurityGroupParams) -> Command:
        return Command(("security", "group", "rule", "list", p.name))


KINDS: list[Kind[Any]] = [SecurityGroup()]
