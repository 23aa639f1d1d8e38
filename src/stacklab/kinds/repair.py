"""The repair of something that was broken on purpose: graded by how it is now, whoever repaired it and however."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stacklab.errors import ServiceFailed, UnknownName
from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import Id, Params
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import Command


class RepairParams(Params):
    """What was broken."""

    fault: Id
    """The home's name for what `lab break` breaks."""


class Repair(Kind[RepairParams]):
    """A repair. Nothing is left to undo: what is well is as it was made."""

    name = "repair"
    params = RepairParams
    leaves = False
    words = "repair of the fault '{fault}'"
    menus = "(where depends on the cause; the trail leads there: lab hint, once it is broken)"
    expects = "what the fault '{fault}' breaks is well"
    tells = "{evidence}"

    def commands(self, context: Context, p: RepairParams) -> list[Command]:
        return [Command(("fix", p.fault), program="lab")]

    def run(self, context: Context, p: RepairParams) -> None:
        fault = context.fault(p.fault)
        if fault.look().fine:
            context.say("nothing is wrong with it")
            return
        fault.clear(context.say)

    def find_all(self, context: Context, p: RepairParams) -> Iterable[Thing]:
        finding = context.fault(p.fault).look()
        if finding.state == "unknown":
            raise ServiceFailed(finding.evidence, advice="lab status shows what runs")
        return [{"name": p.fault, "state": finding.state, "evidence": finding.evidence}]

    def compare(self, context: Context, p: RepairParams, thing: Thing) -> list[Difference]:
        if thing["state"] == "bad":
            return [Difference(p.fault, "it is well", thing["evidence"])]
        return []

    def show_command(self, context: Context, p: RepairParams) -> Command:
        return Command(("faults", "--tell"), program="lab")

    def applicable(self, context: Context, p: RepairParams) -> str | None:
        try:
            return context.fault(p.fault).why_not()
        except UnknownName as error:
            return error.message


KINDS: list[Kind[Any]] = [Repair()]
