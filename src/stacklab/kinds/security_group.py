"""Neutron: security groups and their rules."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import Params, shouted
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.named import NamedKind, NamedParams
from stacklab.kinds.narration import Command, Later, Request


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

    def allowed_by(self, rule: Thing) -> bool:
        """Whether this one existing rule lets in what we declare (it may let in more)."""
        if rule["direction"] != "ingress" or rule["ethertype"] != "IPv4" or rule["remote_group_id"]:
            return False
        if rule["protocol"] not in (None, self.protocol):
            return False
        low, high = rule["port_range_min"], rule["port_range_max"]
        if rule["protocol"] and low is not None and (self.port is None or not low <= self.port <= (high or low)):
            return False
        allowed = IPv4Network(rule["remote_ip_prefix"] or "0.0.0.0/0", strict=False)
        return IPv4Network(self.source).subnet_of(allowed)

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
        existing = thing["security_group_rules"]
        missing = [rule for rule in p.rules if not any(rule.allowed_by(existing_rule) for existing_rule in existing)]
        return [Difference("rule", f"lets in {rule.words()}", "no such rule") for rule in missing]

    def show_command(self, context: Context, p: SecurityGroupParams) -> Command:
        return Command(("security", "group", "rule", "list", p.name))


KINDS: list[Kind[Any]] = [SecurityGroup()]
