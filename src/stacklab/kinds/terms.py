"""The words of Amazon's cloud beside OpenStack's, on the same running objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, model_validator

from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import Name, Params, Ref, Refers, StepRef
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import Command, Request
from stacklab.kinds.objects import without_swift
from stacklab.kinds.resources import RESOURCES

_WORDS = (
    *(
        "image",
        "flavor",
        "key-pair",
        "security-group",
        "network",
        "subnet",
        "router",
        "server",
        "floating-ip",
        "volume",
    ),
    "container",
)
"""The kinds of things that a row may be about."""

_BY_NAME = ("key-pair", "container")
"""These have no id: they are known by their names."""


class Row(Params):
    """A word of Amazon's, and the thing that shows what it means."""

    ec2: Name
    """Amazon's word."""
    kind: Name = Field(alias="is")
    """The kind of OpenStack's thing."""
    thing: Annotated[Ref, Refers(*_WORDS)]
    """The one of the learner's that shows it."""

    @model_validator(mode="after")
    def _known(self) -> Row:
        if self.kind not in _WORDS:
            raise ValueError(f"'is' has to be one of {', '.join(_WORDS)}")
        return self


class TermsParams(Params):
    """A table of both vocabularies."""

    rows: list[Row] = Field(min_length=1)
    """Its rows."""


class Terms(Kind[TermsParams]):
    """A table of both vocabularies; every row stands for a thing that is really there."""

    name = "terms"
    params = TermsParams
    words = "Amazon's words beside OpenStack's"
    menus = "Project ▸ Compute, Volumes, Network, Object Store: one page for each row"
    expects = "every word has a thing of yours that it means"
    leaves = False

    def _rows(self, context: Context, p: TermsParams) -> list[Row]:
        """Without those of a service that this cloud does not have. Offline nobody knows, so all are shown."""
        try:
            swift = all(row.kind != "container" for row in p.rows) or without_swift(context) is None
        except Absent:
            swift = True
        return [row for row in p.rows if row.kind != "container" or swift]

    def commands(self, context: Context, p: TermsParams) -> list[Command]:
        commands = []
        for row in self._rows(context, p):
            thing = context.name_of(row.thing) if row.kind != "floating-ip" else context.id_of(row.thing, row.kind)
            resource = RESOURCES[row.kind]
            columns = tuple(part for column in resource.columns for part in ("-c", column))
            commands.append(Command((*resource.show(), *columns, "-f", "value", thing)))
        return commands

    def requests(self, context: Context, p: TermsParams) -> list[Request]:
        requests = []
        for row in self._rows(context, p):
            by_name = row.kind in _BY_NAME
            last = context.name_of(row.thing) if by_name else context.id_of(row.thing, row.kind)
            resource = RESOURCES[row.kind]
            query = {"format": "json"} if row.kind == "container" else {}
            requests.append(
                Request("GET", resource.service, (*((resource.path,) if resource.path else ()), last), query=query)
            )
        return requests

    def _seen(self, context: Context, p: TermsParams) -> list[dict[str, str]]:
        """Each row with its object's name and id; with `missing` where it has none."""
        things = []
        for row in self._rows(context, p):
            seen = {
                "ec2": row.ec2,
                "openstack": RESOURCES[row.kind].called,
                "name": context.name_of(row.thing),
                "id": "",
            }
            try:
                thing = context.thing(row.thing, row.kind)
                seen |= {"name": str(thing.get("name", seen["name"])), "id": str(thing.get("id") or "")}
            except Absent as absent:
                step = row.thing.step if isinstance(row.thing, StepRef) else None
                seen["missing"] = f"{absent.what}" + (f" (step {step})" if step else "")
            things.append(seen)
        return things

    def report(self, thing: Thing) -> str:
        return table(thing["rows"])

    def find_all(self, context: Context, p: TermsParams) -> Iterable[Thing]:
        return [{"name": "terms", "rows": self._seen(context, p)}]

    def compare(self, context: Context, p: TermsParams, thing: Thing) -> list[Difference]:
        return [
            Difference(f"{row['ec2']} = {row['openstack']}", row["name"], f"none: {row['missing']}")
            for row in thing["rows"]
            if "missing" in row
        ]

    def shown(self, thing: Thing) -> str:
        return f"{len(thing['rows'])} words, each with a thing of yours"

    def show_command(self, context: Context, p: TermsParams) -> Command:
        return Command(("server", "list", "--long"))


def table(rows: list[dict[str, str]]) -> str:
    """The rows under their headings, in columns."""
    head = {"ec2": "AT AMAZON", "openstack": "IN OPENSTACK", "name": "HERE", "id": "ID"}
    widths = {key: max(len(row[key]) for row in [head, *rows]) for key in head}
    return "\n".join("  ".join(row[key].ljust(widths[key]) for key in head).rstrip() for row in [head, *rows])


KINDS: list[Kind[Any]] = [Terms()]
