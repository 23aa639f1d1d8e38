"""A fault that consists of one wrong value where a service reads it: an entry of an INI file, or an external id."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stacklab.conditions.condition import Action, Fault
from stacklab.conditions.machine import WayBack
from stacklab.errors import CommandFailed
from stacklab.inifile import value_of, with_value
from stacklab.machines.base import Machine, probe


class Value(ABC):
    """Where a value stands. `secret`: not to be shown."""

    name: str
    secret: bool = False

    @abstractmethod
    def read(self) -> str | None:
        """The value; None if there is none. Raises CommandFailed."""

    @abstractmethod
    def write(self, value: str | None) -> None:
        """Set it; None: take it away. Raises CommandFailed."""

    def writing(self, value: str | None) -> Action:
        """`write`, as an action; its text does not show what is secret."""
        return Action(f"set {self.name}" + ("" if self.secret else f" to {value}"), lambda: self.write(value))


class IniValue(Value):
    """A value in a file of oslo.config's kind. The file's name never stands for half a file, also where we are cut off."""

    def __init__(self, machine: Machine, file: str, section: str, key: str, *, secret: bool = False) -> None:
        self.machine, self.file, self.section, self.key = machine, file, section, key
        self.name = f"{key} in [{section}] of {file}"
        self.secret = secret

    def text(self) -> str | None:
        """The whole file; None if there is none."""
        text = self.machine.read(self.file)
        return None if text is None else text.decode()

    def read(self) -> str | None:
        text = self.text()
        return None if text is None else value_of(text, self.section, self.key)

    def write(self, value: str | None) -> None:
        text = self.text()
        if text is None:
            raise CommandFailed(f"there is no {self.file} on {self.machine.name}")
        self.machine.replace(self.file, with_value(text, self.section, self.key, value))


@dataclass
class ExternalId(Value):
    """An external id of the Open vSwitch on the machine. (S: ovs-vsctl(8), ovn-controller(8))"""

    machine: Machine
    key: str

    def __post_init__(self) -> None:
        self.name = f"external-ids:{self.key} of Open vSwitch"

    def read(self) -> str | None:
        done = probe(self.machine, "ovs-vsctl", "--if-exists", "get", "open_vswitch", ".", f"external_ids:{self.key}")
        if not done.ok:
            raise CommandFailed(f"ovs-vsctl does not tell {self.name}", status=done.status, said=done.err)
        return done.out.strip().strip('"') or None

    def write(self, value: str | None) -> None:
        # In quotes: ovs-vsctl would read a colon or a comma as its own.
        setting = f'external_ids:{self.key}="{value}"'
        self.machine.run("ovs-vsctl", "--no-wait", "set", "open_vswitch", ".", setting, user="root")


class WrongValue(Fault):
    """The right value and the wrong one are kept together, so that after a crash the two cannot be taken for each other."""

    @property
    @abstractmethod
    def kept(self) -> WayBack:
        """What is kept for the way back."""

    @property
    @abstractmethod
    def value(self) -> Value:
        """Where the value stands. Raises CommandFailed."""

    @abstractmethod
    def wrong(self, right: str | None) -> str:
        """A wrong value in place of this one. Raises CommandFailed."""

    @abstractmethod
    def taking_effect(self) -> Iterable[Action]:
        """What makes the services see the value that stands there."""

    def right(self) -> str | None:
        """The right value as the lab itself knows it, for when nothing is kept."""
        return None

    def forget(self) -> None:
        self.kept.forget()

    def fits(self, wrong: str) -> bool:
        """Whether the learner has made the wrong value right in another way."""
        return False

    def afterwards(self, right: str) -> Iterable[Action]:
        """What else may stand in the way of the right value."""
        return ()

    def breaking(self) -> Iterator[Action]:
        now, kept = self.value.read(), self.kept.read()
        if kept and now == kept["wrong"]:  # broken already, or half-way
            yield from self.taking_effect()
            if not self.fits(kept["wrong"]):
                return
        wrong = self.wrong(now)
        yield self.kept.keeping(right=now, wrong=wrong)
        yield self.value.writing(wrong)
        yield from self.taking_effect()

    def repairing(self) -> Iterator[Action]:
        kept, now = self.kept.read(), self.value.read()
        mistaken = kept is not None and now == kept["wrong"] and not self.fits(kept["wrong"])
        if not mistaken and self.look().state == "good":
            return  # never broken, or repaired in another way
        right = kept["right"] if kept else self.right()
        if right is None:
            raise CommandFailed(f"nobody knows what {self.value.name} was before")
        if now != right:
            yield self.value.writing(right)
        yield from self.taking_effect()
        yield from self.afterwards(right)
