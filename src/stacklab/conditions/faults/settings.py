"""Where a running cloud keeps one value: an entry of an INI file, or an external id of Open vSwitch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from stacklab.conditions.fixes.fix import Action, probe
from stacklab.conditions.inifile import value_of, with_value
from stacklab.deploy.profile.model import Entry
from stacklab.errors import CommandFailed
from stacklab.machines.base import Machine

# Owner, mode and SELinux label are the old file's; the name never stands for half a file, also where we are cut off.
REPLACE = """
umask 077; new="$1.stacklab"; trap 'rm -f -- "$new"' EXIT
cp --attributes-only --preserve=all -- "$1" "$new"
cat >"$new"
[ "$(wc -c <"$new")" -eq "$2" ]
mv -f -- "$new" "$1"
"""


class Place(Protocol):
    """Where a value stands."""

    @property
    def name(self) -> str:
        """As messages call it."""

    def read(self, machine: Machine) -> str | None:
        """The value; None if there is none. Raises CommandFailed."""

    def writing(self, value: str) -> Action:
        """The action that sets it. Its text does not show the value where that is secret."""


@dataclass(frozen=True)
class IniEntry:
    """A value in a file of oslo.config's kind. `secret`: not to be shown."""

    entry: Entry
    secret: bool = False

    @property
    def name(self) -> str:
        return f"{self.entry.key} in [{self.entry.section}] of {self.entry.file}"

    def read(self, machine: Machine) -> str | None:
        text = machine.read(self.entry.file)
        return None if text is None else value_of(text.decode(), self.entry.section, self.entry.key)

    def writing(self, value: str) -> Action:
        return _Written(self, value)


@dataclass(frozen=True)
class _Written:
    place: IniEntry
    value: str

    @property
    def text(self) -> str:
        return f"set {self.place.name}" + ("" if self.place.secret else f" to {self.value}")

    def run(self, machine: Machine) -> None:
        entry = self.place.entry
        text = machine.read(entry.file)
        if text is None:
            raise CommandFailed(f"there is no {entry.file} on {machine.name}")
        if value_of(text.decode(), entry.section, entry.key) is None:
            raise CommandFailed(f"there is no {self.place.name}")
        new = with_value(text.decode(), entry.section, entry.key, self.value).encode()
        machine.run("sh", "-euc", REPLACE, "replace", entry.file, str(len(new)), user="root", given=new)


@dataclass(frozen=True)
class ExternalId:
    """An external id of the Open vSwitch on the machine. (S: ovs-vsctl(8), ovn-controller(8))"""

    key: str

    @property
    def name(self) -> str:
        return f"external-ids:{self.key} of Open vSwitch"

    def read(self, machine: Machine) -> str | None:
        done = probe(machine, "ovs-vsctl", "--if-exists", "get", "open_vswitch", ".", f"external_ids:{self.key}")
        if not done.ok:
            raise CommandFailed(f"ovs-vsctl does not tell {self.name}", status=done.status, said=done.err)
        return done.out.strip().strip('"') or None

    def writing(self, value: str) -> Action:
        return _Set(self, value)


@dataclass(frozen=True)
class _Set:
    place: ExternalId
    value: str

    @property
    def argv(self) -> tuple[str, ...]:
        # In quotes: ovs-vsctl would read a colon or a comma as its own.
        return ("ovs-vsctl", "--no-wait", "set", "open_vswitch", ".", f'external_ids:{self.place.key}="{self.value}"')

    @property
    def text(self) -> str:
        return " ".join(self.argv)

    def run(self, machine: Machine) -> None:
        machine.run(*self.argv, user="root")
