"""Services that do not run: Apache, as after the reboot, and nova-compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stacklab.conditions.faults.fault import MachineFault, Repair
from stacklab.conditions.faults.wrong import restarting
from stacklab.conditions.finding import Finding
from stacklab.conditions.fixes import systemd
from stacklab.conditions.fixes.fix import Action, command
from stacklab.conditions.fixes.instances import Cloud
from stacklab.conditions.fixes.services import APACHE, Front
from stacklab.conditions.fixes.systemd import plain, service, stack_unit, why_down
from stacklab.machines.base import Machine

FRONT = Front()
NOVA_COMPUTE = "nova-compute"
LONG_AGO = (
    "UPDATE services SET last_seen_up = UTC_TIMESTAMP() - INTERVAL 1 DAY "
    "WHERE `binary` = 'nova-compute' AND deleted = 0"
)
"""As if it had been stopped since yesterday; it writes the time anew as soon as it runs.

(S: nova/servicegroup/drivers/db.py; DevStack's service_down_time is 12 minutes since its report_interval is 2.)
"""


class Web(MachineFault):
    """Apache stopped and not enabled: the fixes `apache` and `front` backwards."""

    id = "httpd"
    title = "Apache does not run, as after a reboot of the machine"

    def see(self) -> Finding:
        found = APACHE.look(self.machine, self.profile)
        if found.state != "well":
            return found
        pages = FRONT.look(self.machine, self.profile)
        return Finding(pages.state, f"{found.evidence}; {pages.evidence}")

    def breaking(self) -> Sequence[Action]:
        unit = service(self.profile.units.apache)
        return [
            command("systemctl", "disable", unit),
            command("systemctl", "stop", unit, seconds=systemd.RESTART_SECONDS),
        ]

    def mending(self) -> Sequence[Action]:
        return [Repair(fix, self.profile) for fix in (APACHE, FRONT)]


class Compute(MachineFault):
    """nova-compute stopped."""

    id = "nova-compute"
    title = "the hypervisor's agent, nova-compute, does not run"

    @property
    def unit(self) -> str:
        """Its unit."""
        return stack_unit(self.breakable.compute)

    def lacks(self) -> str | None:
        (unit,) = systemd.look(self.machine, [self.unit])
        return None if unit.there else f"the machine has no unit {self.unit}"

    def see(self) -> Finding:
        (unit,) = systemd.look(self.machine, [self.unit])
        if not unit.running:
            return Finding("broken", why_down(self.machine, unit))
        said = f"{plain(unit.name)} is {unit.said}"
        services = self._services()
        wrong = [one.said for one in services if not one.well]
        if wrong or not services:
            return Finding("broken", f"{said}, but Nova's list of services says: {'; '.join(wrong) or 'there is none'}")
        return Finding("well", f"{said}, and Nova's list of services has it up and enabled")

    def shows(self) -> Finding:
        """Nova notices when nobody has heard of it for service_down_time; until then the scheduler goes on choosing it."""
        found = self.see()
        if found.state == "broken" and any(one.state == "up" for one in self._services()):
            return Finding("unknown", f"{found.evidence.splitlines()[0]}; Nova has not noticed yet", early=True)
        return found

    def breaking(self) -> Sequence[Action]:
        stop = command("systemctl", "stop", self.unit, seconds=systemd.RESTART_SECONDS)
        database = self.breakable.heartbeats
        # It may answer to no one any more, or ask for a password: then Nova notices later.
        return [stop, *([command("mysql", database, "--execute", LONG_AGO, may_fail=True)] if database else [])]

    def mending(self) -> Sequence[Action]:
        (unit,) = systemd.look(self.machine, [self.unit])
        actions: list[Action] = []
        if unit.load == "masked":
            actions.append(command("systemctl", "unmask", self.unit))
        if not unit.running:
            actions += restarting(self.unit)
        return [*actions, *(_Enable(self.ground.cloud, one) for one in self._services() if one.status != "enabled")]

    def _services(self) -> list[_Service]:
        found = self.ground.cloud().get("compute", "os-services", binary=NOVA_COMPUTE)["services"]
        return [_Service(one["host"], one["state"], one["status"]) for one in found if one["binary"] == NOVA_COMPUTE]


@dataclass(frozen=True)
class _Service:
    """nova-compute as Nova lists it. `state`: up or down; `status`: enabled or disabled."""

    host: str
    state: str
    status: str

    @property
    def well(self) -> bool:
        return (self.state, self.status) == ("up", "enabled")

    @property
    def said(self) -> str:
        return f"{NOVA_COMPUTE} on {self.host} is {self.state} and {self.status}"


@dataclass(frozen=True)
class _Enable:
    cloud: Cloud
    service: _Service

    @property
    def text(self) -> str:
        return f"openstack compute service set --enable {self.service.host} {NOVA_COMPUTE}"

    def run(self, machine: Machine) -> None:
        self.cloud().put("compute", "os-services", "enable", body={"host": self.service.host, "binary": NOVA_COMPUTE})
