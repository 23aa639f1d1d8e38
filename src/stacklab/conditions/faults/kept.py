"""What a fault keeps on the machine for the way back: a small file of root's alone, there before anything is changed."""

from __future__ import annotations

import json
from dataclasses import dataclass

from stacklab.errors import CommandFailed
from stacklab.machines.base import Machine

BASE = "/var/lib/stacklab/faults"


@dataclass(frozen=True)
class Kept:
    """The directory of the fault `id` on the machine, 0700, and in it `state.json`, 0600: a flat mapping."""

    machine: Machine
    id: str

    @property
    def directory(self) -> str:
        """Its path there."""
        return f"{BASE}/{self.id}"

    @property
    def file(self) -> str:
        """The mapping's path there."""
        return f"{self.directory}/state.json"

    def read(self) -> dict[str, str] | None:
        """What is kept; None if nothing is. Raises CommandFailed where it is no such file."""
        text = self.machine.read(self.file)
        if text is None:
            return None
        try:
            value = json.loads(text)
        except ValueError as error:
            raise CommandFailed(f"{self.file} on {self.machine.name} is no JSON: {error}") from error
        return {str(key): str(one) for key, one in value.items()}

    def keeping(self, **values: str) -> Keep:
        """The action that keeps these values, in place of what was kept before."""
        return Keep(self, values)

    def forget(self) -> None:
        """Remove all of it. Raises CommandFailed where something is still mounted in it."""
        self.machine.script('[ ! -e "$1" ] || rm -r --one-file-system -- "$1"', self.directory, user="root")


@dataclass(frozen=True)
class Keep:
    """Keeping values, as an action."""

    kept: Kept
    values: dict[str, str]

    @property
    def text(self) -> str:
        return f"keep what the way back needs in {self.kept.file}"  # the values may be secret

    def run(self, machine: Machine) -> None:
        machine.script('mkdir -p "$1"; chmod 700 "$1"', self.kept.directory, user="root")
        machine.put(self.kept.file, json.dumps(self.values) + "\n", mode=0o600)
