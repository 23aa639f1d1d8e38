"""A fault that consists of one wrong value, where a service reads it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from stacklab.conditions.faults.fault import MachineFault
from stacklab.conditions.faults.settings import Place
from stacklab.conditions.fixes import systemd
from stacklab.conditions.fixes.fix import Action, command
from stacklab.errors import CommandFailed


class WrongValue(MachineFault):
    """The right value and the wrong one are kept together, so that after a crash the two cannot be taken for each other."""

    @abstractmethod
    def place(self) -> Place:
        """Where the value stands. Raises CommandFailed."""

    @abstractmethod
    def wrong(self, right: str) -> str:
        """A wrong value in place of this one. Raises CommandFailed."""

    @abstractmethod
    def taking_effect(self) -> Sequence[Action]:
        """What makes the services see the value that stands there."""

    @abstractmethod
    def right(self) -> str | None:
        """The right value as the lab itself knows it, for when nothing is kept."""

    def accepted(self, wrong: str) -> bool:
        """Whether the learner has made the wrong value right in another way."""
        return False

    def afterwards(self, right: str) -> Sequence[Action]:
        """What else may stand in the way of the right value."""
        return ()

    def breaking(self) -> Sequence[Action]:
        now = self.place().read(self.machine)
        if now is None:
            raise CommandFailed(f"there is no {self.place().name} on {self.machine.name}")
        kept = self.kept.read()
        if kept and now == kept["wrong"]:  # broken already, or half-way
            return self.taking_effect()
        wrong = self.wrong(now)
        return [self.kept.keeping(right=now, wrong=wrong), self.place().writing(wrong), *self.taking_effect()]

    def mending(self) -> Sequence[Action]:
        kept, now = self.kept.read(), self.place().read(self.machine)
        mistaken = kept is not None and now == kept["wrong"] and not self.accepted(kept["wrong"])
        if not mistaken and self.look().state == "well":
            return ()  # never broken, or mended in another way
        right = kept["right"] if kept else self.right()
        if right is None:
            raise CommandFailed(f"nobody knows what {self.place().name} was before")
        return [
            *([self.place().writing(right)] if now != right else []),
            *self.taking_effect(),
            *self.afterwards(right),
        ]


def restarting(*names: str) -> list[Action]:
    """Restart units, also those that failed too often to be started."""
    actions: list[Action] = []
    for name in names:
        actions.append(command("systemctl", "reset-failed", name, may_fail=True))
        actions.append(command("systemctl", "restart", name, seconds=systemd.RESTART_SECONDS, may_fail=True))
    return actions
