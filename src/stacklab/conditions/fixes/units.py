"""DevStack's own services, the devstack@ units: started in order and watched for more than a minute."""

from __future__ import annotations

from collections.abc import Callable

from stacklab.conditions.finding import Finding
from stacklab.conditions.fixes import systemd
from stacklab.conditions.fixes.fix import Action, Fix, command
from stacklab.conditions.fixes.systemd import Unit, plain, stack_unit, stack_units
from stacklab.deploy.profile.model import Profile
from stacklab.machines.base import Machine
from stacklab.stages import Progress


class StackUnits(Fix):
    """`wrong`: which units of DevStack's this repair takes for broken. `only`: just this one of the profile's."""

    watches = True

    def __init__(
        self,
        id_: str,
        title: str,
        why: str,
        wrong: Callable[[Unit], bool],
        only: Callable[[Profile], str] | None = None,
    ) -> None:
        self.id, self.title, self.why = id_, title, why
        self.wrong = wrong
        self.only = only

    def look(self, machine: Machine, profile: Profile) -> Finding:
        found = self._units(machine, profile)
        if not found:
            what = stack_unit(self.only(profile)) if self.only else "devstack@ unit"
            return Finding("broken", f"there is no {what} on this machine: stack.sh (lab up) makes it")
        wrong = [unit for unit in found if self.wrong(unit)]
        if wrong:
            return Finding("broken", "\n".join(systemd.why_down(machine, unit) for unit in wrong))
        young = [unit for unit in found if unit.young]
        if young:
            said = ", ".join(f"{plain(unit.name)} ({unit.said})" for unit in young)
            return Finding(
                "unknown", f"too early to tell, up for less than {systemd.WATCH_SECONDS} s: {said}", early=True
            )
        return Finding("well", self._told(found))

    def plan(self, machine: Machine, profile: Profile) -> list[Action]:
        found = self._units(machine, profile)
        actions: list[Action] = []
        for unit in [unit for unit in found if self.wrong(unit)] or found:
            # Else a unit that failed often in a short time may not be started at all.
            actions.append(command("systemctl", "reset-failed", unit.name, may_fail=True))
            actions.append(command("systemctl", "restart", unit.name, seconds=systemd.RESTART_SECONDS, may_fail=True))
        return actions

    def verify(self, machine: Machine, profile: Profile, progress: Progress) -> Finding:
        found = self._units(machine, profile)
        # What this repair takes for well enough (a unit that was stopped, for `units`) is not watched either.
        names = [unit.name for unit in found if unit.running or unit.starting or self.wrong(unit)]
        bad = systemd.watch(machine, names, progress)
        if bad:
            return Finding("broken", "\n".join(bad.values()))
        return self.check(machine, profile)

    def _units(self, machine: Machine, profile: Profile) -> list[Unit]:
        if self.only:
            return [unit for unit in systemd.look(machine, [stack_unit(self.only(profile))]) if unit.there]
        return systemd.look(machine, stack_units(machine, profile.units.devstack))

    def _told(self, found: list[Unit]) -> str:
        if len(found) == 1:
            return f"{plain(found[0].name)} is {found[0].said}"
        up = [unit for unit in found if unit.running]
        least = min(up, key=lambda unit: unit.age, default=None)
        youngest = f", each for at least {least.age:.0f} s" if least else ""
        down = [plain(unit.name) for unit in found if not unit.running]
        return f"{len(up)} of {len(found)} units are up{youngest}" + (f"; stopped: {', '.join(down)}" if down else "")


def _down(unit: Unit) -> bool:
    return not unit.running and not unit.starting


NETWORK_AGENT = StackUnits(
    "network-agent",
    "the network agent stays up",
    "The agent programs Open vSwitch with the instances' networks. In the course it is failed after a reboot; "
    "started, it runs for less than a minute and fails again, since SELinux keeps Open vSwitch from opening the "
    "port over which the two talk (see the fix selinux). So it is not enough to see it started: it is watched "
    "for more than a minute.",
    _down,
    lambda profile: profile.units.network_agent,
)
FAILED_UNITS = StackUnits(
    "units",
    "no DevStack service has failed",
    "DevStack runs each OpenStack service as a systemd unit devstack@NAME. Most of them are not started again "
    "when they fail. Failed ones are restarted, then all are watched together for more than a minute; one that "
    "fails again is shown with the end of its journal, where the cause usually is.",
    lambda unit: unit.failed,
)
STACK_UNITS = StackUnits(
    "stack-units",
    "DevStack's services run",
    "After a reboot systemd starts the devstack@ units in no particular order, also before the database or the "
    "queue is ready, and most of them are not started again when they fail. Whatever is not up is started in the "
    "order in which stack.sh does it, and all are watched together for more than a minute.",
    _down,
)
