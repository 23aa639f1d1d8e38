"""The machine's clock is two hours slow, and nothing corrects it: every token is out of date before it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stacklab.conditions.faults.fault import MachineFault
from stacklab.conditions.finding import Finding
from stacklab.conditions.fixes import systemd
from stacklab.conditions.fixes.fix import Action, command, probe
from stacklab.conditions.fixes.systemd import Unit, plain, service
from stacklab.machines.base import Machine
from stacklab.machines.clock import ahead, move, set_clock

SLOW_SECONDS = 7200.0
"""Longer than Keystone's tokens are good for (an hour): a client sees one that expired before it was issued."""

OFF_SECONDS = 30.0
"""What still counts as right: a look at a busy machine can be off by some seconds itself."""


class Clock(MachineFault):
    """Compared with the clock of the machine that `lab` runs on. A container has its host's clock: never touched."""

    id = "clock"
    title = "the machine's clock is two hours slow"

    def lacks(self) -> str | None:
        done = probe(self.machine, "systemd-detect-virt", "--container")
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
        said = "agrees with ours" if abs(off) <= OFF_SECONDS else f"is {_spoken(off)} ours"
        kept = "; ".join(f"{plain(unit.name)} is {unit.said}" for unit in there) or "it has no time service"
        wrong = abs(off) > OFF_SECONDS or bool(idle)
        return Finding("broken" if wrong else "well", f"the machine's clock {said}; {kept}")

    def breaking(self) -> Sequence[Action]:
        running = [unit.name for unit in self._units() if unit.running]
        kept = self.kept.read()
        # A second time they do not run any more, and the clock is slow already.
        names = dict.fromkeys([*(kept["stopped"].split() if kept else []), *running])
        late = ahead(self.machine) < -SLOW_SECONDS / 2
        return [
            self.kept.keeping(stopped=" ".join(names)),
            *(command("systemctl", "stop", name) for name in running),
            *([] if late else [_Move(-SLOW_SECONDS)]),
        ]

    def mending(self) -> Sequence[Action]:
        kept = self.kept.read()
        stopped = kept["stopped"].split() if kept else []
        units = self._units()
        there = [unit for unit in units if unit.there]
        # Two of them do not go together; the one that ran before comes first.
        names = [unit.name for unit in sorted(there, key=lambda unit: unit.name not in stopped)
                 if unit.at_boot or unit.name in stopped]  # fmt: skip
        asleep = [] if any(unit.running for unit in units) else names[:1]
        return [
            *([_Set()] if abs(ahead(self.machine)) > OFF_SECONDS else []),
            *(command("systemctl", "start", name) for name in asleep),
        ]

    def _units(self) -> list[Unit]:
        return systemd.look(self.machine, [service(name) for name in self.breakable.time])


@dataclass(frozen=True)
class _Move:
    seconds: float

    @property
    def text(self) -> str:
        return f"date --set '{self.seconds:+.0f} seconds'"

    def run(self, machine: Machine) -> None:
        move(machine, self.seconds)


class _Set:
    text = "date --set (our time)"

    def run(self, machine: Machine) -> None:
        set_clock(machine)


def _spoken(off: float) -> str:
    return f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'}"
