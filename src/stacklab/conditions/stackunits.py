"""DevStack's own services, the devstack@ units: started in order, watched for more than a minute; nova-compute, broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stacklab.conditions import systemd
from stacklab.conditions.condition import Action, Finding
from stacklab.conditions.machine import MachineFault, MachineRepair
from stacklab.conditions.systemd import Unit, stack_unit, stack_units, why_down
from stacklab.errors import CommandFailed
from stacklab.stages import Progress


class StackUnits(MachineRepair):
    """All of DevStack's units; those that are down are wrong."""

    id = "stack-units"
    watches = True

    def wrong(self, unit: Unit) -> bool:
        """Whether this repair takes the unit for broken."""
        return not unit.running and not unit.starting

    def stack_units(self) -> list[Unit]:
        """The units that this is about, as far as the machine has them."""
        return self.units(*stack_units(self.machine, self.profile.units.devstack))

    def see(self) -> Finding:
        units = self.stack_units()
        if not units:
            return Finding("bad", "there is no such devstack@ unit on this machine: stack.sh (lab up) makes it")
        wrong = [unit for unit in units if self.wrong(unit)]
        if wrong:
            return Finding("bad", "\n".join(why_down(self.machine, unit) for unit in wrong))
        seconds = self.profile.units.watch_seconds
        young = [unit for unit in units if unit.young(seconds)]
        if young:
            names = ", ".join(f"{unit.plain} ({unit.said})" for unit in young)
            less = f"too early to tell, up for less than {seconds} s"
            return Finding("unknown", f"{less}: {names}", early=True)
        return Finding("good", _told(units))

    def repairing(self) -> list[Action]:
        units = self.stack_units()
        return self.restarting(*[unit.name for unit in [unit for unit in units if self.wrong(unit)] or units])

    def prove(self, progress: Progress) -> Finding:
        units = self.stack_units()
        # What this repair takes for well enough (a unit that was stopped, for `units`) is not watched either.
        names = [unit.name for unit in units if unit.running or unit.starting or self.wrong(unit)]
        bad = systemd.watch(self.machine, names, self.profile.units.watch_seconds, progress)
        return Finding("bad", self.masked("\n".join(bad.values()))) if bad else self.look()


class FailedUnits(StackUnits):
    id = "units"

    def wrong(self, unit: Unit) -> bool:
        return unit.failed


class NetworkAgent(StackUnits):
    id = "network-agent"

    def stack_units(self) -> list[Unit]:
        return [unit for unit in self.units(stack_unit(self.profile.units.network_agent)) if unit.there]


def _told(units: list[Unit]) -> str:
    if len(units) == 1:
        return f"{units[0].plain} is {units[0].said}"
    up = [unit for unit in units if unit.running]
    least = min(up, key=lambda unit: unit.age, default=None)
    youngest = f", each for at least {least.age:.0f} s" if least else ""
    down = [unit.plain for unit in units if not unit.running]
    return f"{len(up)} of {len(units)} units are up{youngest}" + (f"; stopped: {', '.join(down)}" if down else "")


NOVA_COMPUTE = "nova-compute"
LONG_AGO = (
    "UPDATE services SET last_seen_up = UTC_TIMESTAMP() - INTERVAL 1 DAY "
    "WHERE `binary` = 'nova-compute' AND deleted = 0"
)
"""As if it had been stopped since yesterday; it writes the time anew as soon as it runs.

(S: nova/servicegroup/drivers/db.py; DevStack's service_down_time is 12 minutes since its report_interval is 2.)
"""


def compute_services(services: list[dict[str, Any]]) -> Finding:
    """What Nova's list of services says of nova-compute: it must be up, and enabled."""
    own = [service for service in services if service["binary"] == NOVA_COMPUTE]
    evidence = "; ".join(
        f"{NOVA_COMPUTE} on {service['host']} is {service['state']} and {service['status']}"
        + (", forced down" if service.get("forced_down") else "")
        for service in own
    )
    well = own and all((service["state"], service["status"]) == ("up", "enabled") for service in own)
    return Finding("good" if well else "bad", evidence or f"Nova knows no {NOVA_COMPUTE}")


class ComputeDown(MachineFault):
    """nova-compute stopped."""

    id = NOVA_COMPUTE
    title = "the hypervisor's agent, nova-compute, does not run"

    def _unit(self) -> Unit:
        return self.units(stack_unit(self.breakable.compute))[0]

    def _services(self) -> list[dict[str, Any]]:
        answer = self.target.cloud().get("compute", "os-services", binary=NOVA_COMPUTE)
        return [service for service in answer["services"] if service["binary"] == NOVA_COMPUTE]

    def lacks(self) -> str | None:
        return self.lacks_unit(self.breakable.compute)

    def see(self) -> Finding:
        unit = self._unit()
        if not unit.running:
            return Finding("bad", why_down(self.machine, unit))
        listed = compute_services(self._services())
        return Finding(listed.state, f"{unit.plain} is {unit.said}; Nova's list of services: {listed.evidence}")

    def see_symptoms(self) -> Finding:
        """Nova notices when nobody has heard of it for service_down_time; until then the scheduler goes on choosing it."""
        finding = self.see()
        if finding.state == "bad" and any(service["state"] == "up" for service in self._services()):
            return Finding("unknown", f"{finding.evidence.splitlines()[0]}; Nova has not noticed yet", early=True)
        return finding

    def breaking(self) -> Iterator[Action]:
        yield self.command("systemctl", "stop", self._unit().name, seconds=systemd.RESTART_SECONDS)
        if database := self.breakable.heartbeats:
            # It may answer to no one any more, or ask for a password: then Nova notices later.
            yield self.command("mysql", database, "--execute", LONG_AGO, may_fail=True)

    def repairing(self) -> Iterator[Action]:
        unit = self._unit()
        if not unit.there:
            raise CommandFailed(f"the machine has no unit {unit.name}")
        if unit.load == "masked":
            yield self.command("systemctl", "unmask", unit.name)
        if not unit.running:
            yield from self.restarting(unit.name)
        for service in self._services():
            if service["status"] != "enabled":
                yield self._enabling(service["host"])

    def _enabling(self, host: str) -> Action:
        body = {"host": host, "binary": NOVA_COMPUTE}
        return Action(
            f"openstack compute service set --enable {host} {NOVA_COMPUTE}",
            lambda: self.target.cloud().put("compute", "os-services", "enable", body=body),
        )
