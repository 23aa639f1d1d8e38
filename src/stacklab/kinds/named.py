"""What a service's API makes and knows by a name: how it is found, shown and removed follows from the table of resources."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, TypeVar

from stacklab.errors import StepFailed
from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import Name, Params
from stacklab.kinds.kind import Kind
from stacklab.kinds.narration import Command
from stacklab.kinds.resources import RESOURCES
from stacklab.waiting import NotYet, until


class NamedParams(Params):
    """Something with a name."""

    name: Name
    """Its name."""


P = TypeVar("P", bound=NamedParams)


class NamedKind(Kind[P]):
    """One of the table's resources; the kind's name is its key there."""

    version: ClassVar[str | None] = None
    """The microversion of the API that it is listed with."""

    gone_within: ClassVar[float] = 0
    """Seconds that the service may take to delete it after it has said that it would; 0: it is gone at once."""

    def title(self, p: P) -> str:
        return f"{RESOURCES[self.name].called} {p.name}"

    def query(self, context: Context, name: str) -> dict[str, str]:
        """What narrows a listing down to those that could be meant."""
        everywhere = {"all_tenants": "1"} if RESOURCES[self.name].everywhere else {}
        return {**everywhere, "name": name, "project_id": context.project_id()}

    def listed(self, context: Context, name: str, query: dict[str, str]) -> list[Thing]:
        """Everything of this name that a listing with this query has."""
        resource = RESOURCES[self.name]
        things = context.admin.listed(
            resource.service, *resource.list_path, key=resource.list_key, version=self.version, **query
        )
        return [thing for thing in things if thing["name"] == name]

    def by_name(self, context: Context, name: str) -> list[Thing]:
        """Those of this name that could be meant."""
        return self.listed(context, name, self.query(context, name))

    def find_all(self, context: Context, p: P) -> Iterable[Thing]:
        return self.by_name(context, p.name)

    def named(self, context: Context, name: str) -> Thing | None:
        return next(iter(self.by_name(context, name)), None)

    def remove(self, context: Context, thing: Thing) -> bool:
        resource = RESOURCES[self.name]
        path = (resource.path, thing["id"])
        removed = context.admin.delete(resource.service, *path)
        if removed and self.gone_within:
            until(
                lambda: context.admin.gone(resource.service, *path) or NotYet("it is still there"),
                f"the end of {resource.called} {thing['name']}",
                seconds=self.gone_within,
                every=0.5,
                error=StepFailed,
            )
        return removed

    def show_command(self, context: Context, p: P) -> Command:
        return Command((*RESOURCES[self.name].show(), p.name))
