"""The machine's clock is two hours slow, and nothing corrects it: every token is out of date before it is given."""

from __future__ import annotations

from collections.abc import Iterator

from stacklab.conditions.condition import Action, Finding
from stacklab.conditions.machine import MachineFault
from stacklab.conditions.systemd import Unit, service
from stacklab.machines.clock import OFF_SECONDS, ahead, move, set_clock

SLOW_SECONDS = 7200.0
"""Longer than Keystone's tokens are good for (an hour): a client sees one that expired before it was issued."""


class SlowClock(MachineFault):
    """Compared with the clock of the machine that `lab` runs on. A container has its host's clock: never touched."""

    id = "clock"
    title = "the machine's clock is two hours slow"

    def lacks(self) -> str | None:
        done = self.probe("systemd-detect-virt", "--container")
        if done.ok:
            return f"{self.machine.name} is a container ({done.out.strip()}): its clock is its host's"
        return None

    def see(self) -> Finding:
        if why := self.lacks():
            return Finding("not_applicable", why)
        off = ahead(self.machine)
        units = self._units()
        there = [unit for unit in units if unit.there and unit.at_boot]
        idle = [] if any(unit.running for unit in units) else there
        difference = "agrees with ours" if abs(off) <= OFF_SECONDS else f"is {_spoken(off)} ours"
        kept = "; ".join(f"{unit.plain} is {unit.said}" for unit in there) or "it has no time service"
        wrong = abs(off) > OFF_SECONDS or bool(idle)
        return Finding("bad" if wrong else "good", f"the machine's clock {difference}; {kept}")

    def breaking(self) -> Iterator[Action]:
        running = [unit.name for unit in self._units() if unit.running]
        # A second time they do not run any more, and the clock is slow already.
        yield self.kept.keeping(stopped=list(dict.fromkeys([*self._stopped(), *running])))
        for name in running:
            yield self.command("systemctl", "stop", name)
        if ahead(self.machine) > -SLOW_SECONDS / 2:
            yield Action(f"date --set '-{SLOW_SECONDS:.0f} seconds'", lambda: move(self.machine, -SLOW_SECONDS))

    def repairing(self) -> Iterator[Action]:
        if abs(ahead(self.machine)) > OFF_SECONDS:
            yield Action("date --set (our time)", lambda: set_clock(self.machine))
        units, stopped = self._units(), self._stopped()
        # Two of them do not go together; the one that ran before comes first.
        there = sorted((unit for unit in units if unit.there), key=lambda unit: unit.name not in stopped)
        names = [unit.name for unit in there if unit.at_boot or unit.name in stopped]
        if names and not any(unit.running for unit in units):
            yield self.command("systemctl", "start", names[0])

    def _stopped(self) -> list[str]:
        return list((self.kept.read() or {}).get("stopped", []))

    def _units(self) -> list[Unit]:
        return self.units(*map(service, self.breakable.time))


def _spoken(off: float) -> str:
    return f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'}"
