"""All conditions of a machine that DevStack made a cloud on: what `lab fixes` repairs, and what `lab break` breaks there.

A fault and a repair of the same thing look and repair with the same code. All act as root on the lab's machine only, and
through its cloud's API as administrator.
"""

from __future__ import annotations

from collections.abc import Iterable

from stacklab.conditions.address import WrongAddress
from stacklab.conditions.clock import SlowClock
from stacklab.conditions.condition import Condition, Fault
from stacklab.conditions.instances import Instances
from stacklab.conditions.loops import Loops
from stacklab.conditions.machine import Target
from stacklab.conditions.network import Bridge, Forwarding, Masquerade
from stacklab.conditions.password import ServicePassword
from stacklab.conditions.runner import all_well, repair
from stacklab.conditions.selinux import SelinuxAllows, SelinuxDenies
from stacklab.conditions.services import SERVICES, DistributionService, WebServer, WebServerDown
from stacklab.conditions.stackunits import ComputeDown, FailedUnits, NetworkAgent, StackUnits
from stacklab.conditions.store import StoreFull
from stacklab.deploy.deployment import Deployment
from stacklab.errors import UnknownName
from stacklab.events import Event, StageEnded, StageMoved
from stacklab.stages import Progress, Stage
from stacklab.suggest import closest

AFTER_STACKING = ("selinux", "apache", "memcached", "network-agent", "units")
"""What stack.sh leaves undone, or done for this boot only."""

AFTER_REBOOT = (
    *("selinux", "apache", "memcached", "database", "queue", "switch", "loops", "bridge", "forwarding", "masquerade"),
    *("stack-units", "front", "instances"),
)
"""What a reboot loses, in the order in which one needs the other. `stack-units` covers `network-agent` and `units`."""

USUAL_SECONDS = 20


class ConditionCatalogue:
    """What can be repaired on one machine, in the order in which it is brought back after a reboot.

    `permissive`: how SELinux shall be dealt with. Without a target it only knows what there is.
    """

    def __init__(self, target: Target | None = None, *, permissive: bool = True) -> None:
        on = target or Target()
        conditions: list[Condition] = [
            SelinuxAllows(on, permissive=permissive),
            *(DistributionService(on, id_) for id_ in SERVICES),
            *(Loops(on), Bridge(on), Forwarding(on), Masquerade(on), NetworkAgent(on), FailedUnits(on), StackUnits(on)),
            *(WebServer(on), Instances(on)),
        ]
        self._by_id = {condition.id: condition for condition in conditions}

    def all(self) -> list[Condition]:
        """Every one."""
        return list(self._by_id.values())

    def __getitem__(self, id_: str) -> Condition:
        """The one of this id. Raises UnknownName."""
        if id_ not in self._by_id:
            raise UnknownName(f"there is no fix '{id_}'", advice=closest(id_, self._by_id, "lab fixes list"))
        return self._by_id[id_]

    def these(self, ids: Iterable[str]) -> list[Condition]:
        """The ones of these ids, each once, in the order of need. Raises UnknownName."""
        chosen = {self[id_].id for id_ in ids}
        return [condition for id_, condition in self._by_id.items() if id_ in chosen]


def faults(target: Target) -> dict[str, Fault]:
    """What can be broken on purpose on such a machine, by id. Asks nobody."""
    kinds = (WebServerDown, SelinuxDenies, WrongAddress, StoreFull, ServicePassword, SlowClock, ComputeDown)
    return {kind.id: kind(target) for kind in kinds}


def stages(deployment: Deployment) -> list[Stage]:
    """The stage `fixes` of `lab up`: what stack.sh leaves undone, or done until the next reboot only."""
    catalogue = ConditionCatalogue(Target(lambda: deployment), permissive=deployment.permissive)
    conditions = catalogue.these(AFTER_STACKING)

    def already() -> str | None:
        well = all(finding.fine for finding in [condition.look() for condition in conditions])
        return "; ".join(condition.id for condition in conditions) + ": well" if well else None

    def run(progress: Progress) -> str:
        def emit(event: Event) -> None:
            if isinstance(event, StageMoved):
                progress(event.detail)
            elif isinstance(event, StageEnded) and event.outcome == "done":
                progress(f"{event.title}: {event.detail}")

        return all_well(repair(conditions, emit))

    return [Stage("fixes", "what stack.sh leaves undone", already, run, USUAL_SECONDS)]
