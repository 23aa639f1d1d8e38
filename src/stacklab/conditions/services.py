"""The systemd units that make up a cloud on a machine: their names, their state, their journals."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from stacklab.deploy.profile.model import Profile
from stacklab.errors import CommandFailed, UnknownName
from stacklab.machines.base import Machine
from stacklab.suggest import closest

PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "MainPID",
    "ActiveEnterTimestampMonotonic",
    "NRestarts",
)


@dataclass(frozen=True)
class Unit:
    """One unit as systemd describes it. `since`: seconds since the epoch.

    `state`: running, starting, failed, stopped, missing.
    """

    name: str
    unit: str
    state: str
    pid: int | None = None
    since: float | None = None
    restarts: int = 0
    reason: str = ""


def unit_names(profile: Profile) -> dict[str, str]:
    """Units by the name that a person calls them: what OpenStack needs first, then OpenStack's own."""
    known = profile.units
    around = [known.database, known.queue, *known.switch, known.libvirt, known.apache, known.memcached]
    own = {name: f"devstack@{name}.service" for name in known.devstack}
    return {name: f"{name}.service" for name in around} | own | {name: f"{name}.service" for name in known.openstack}


def find_unit(profile: Profile, name: str) -> tuple[str, str]:
    """The name and its unit; `devstack@n-api`, `n-api.service` and `n-api` mean the same. Raises UnknownName."""
    known = unit_names(profile)
    plain = name.removesuffix(".service").removeprefix("devstack@")
    if plain not in known:
        raise UnknownName(f"there is no service '{name}'", advice=closest(plain, known, "lab status"))
    return plain, known[plain]


def units(machine: Machine, profile: Profile) -> list[Unit]:
    """Every unit of the profile, in that order."""
    known = unit_names(profile)
    shown = ["systemctl", "show", f"--property={','.join(PROPERTIES)}", *known.values()]
    text = machine.run(*shown, seconds=60).out
    clock = machine.run("cat", "/proc/uptime", seconds=30).out.split()
    booted = time.time() - float(clock[0])
    found = {}
    for block in re.split(r"\n\s*\n", text.strip()):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        found[values.get("Id", "")] = values
    return [_unit(name, unit, found.get(unit, {}), booted) for name, unit in known.items()]


def _unit(name: str, unit: str, values: dict[str, str], booted: float) -> Unit:
    active, loaded = values.get("ActiveState", "unknown"), values.get("LoadState", "not-found")
    if loaded == "not-found":
        return Unit(name, unit, "missing", reason="the machine has no such unit")
    state = {"active": "running", "activating": "starting", "reloading": "running", "failed": "failed"}.get(
        active, "stopped"
    )
    since = int(values.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    reason = "" if state == "running" else f"{active} ({values.get('SubState')}), result {values.get('Result')}"
    return Unit(
        name, unit, state, pid=int(values.get("MainPID") or 0) or None, since=booted + since if since else None,
        restarts=int(values.get("NRestarts") or 0), reason=reason,
    )  # fmt: skip


class JournalLog:
    """A unit's journal; see `stacklab.logs.Log`."""

    poll = 2.0

    def __init__(self, machine: Machine, unit: str) -> None:
        self.machine = machine
        self.unit = unit
        self.where = f"journalctl -u {unit}, on {machine.name}"
        self._cursor = ""
        self._complaint = ""

    def last(self, count: int) -> list[str]:
        # One more than asked for: with 0 there would be no cursor to go on from.
        lines = self._ask("-n", str(max(count, 1)))
        return lines[-count:] if count else []

    def more(self) -> list[str]:
        return self._ask(f"--after-cursor={self._cursor}") if self._cursor else self._ask("-n", "100")

    def _ask(self, *options: str) -> list[str]:
        argv = ("journalctl", "--no-pager", "--quiet", "-o", "short-iso", "--show-cursor", "-u", self.unit, *options)
        done = self.machine.run(*argv, user="root", seconds=60, check=False)
        # 1 is also how some releases say that a unit has written nothing yet.
        if done.status not in (0, 1):
            raise CommandFailed(
                f"{self.where} ended with exit status {done.status}", status=done.status, said=done.err,
                advice="see there: journalctl --verify, and whether systemd-journald runs",
            )  # fmt: skip
        lines = done.lines
        complaint = done.err.strip() if done.status else ""
        if complaint != self._complaint:  # once, not at every look
            self._complaint = complaint
            lines = [*(f"journalctl: {line}" for line in complaint.splitlines()), *lines]
        if lines and lines[-1].startswith("-- cursor: "):
            self._cursor = lines.pop().removeprefix("-- cursor: ")
        return lines
