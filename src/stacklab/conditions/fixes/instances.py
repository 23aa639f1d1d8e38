"""Instances that a reboot of the machine has stopped are started again; those that somebody stopped stay so."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stacklab.cloud.connection import Connection
from stacklab.conditions.finding import Finding
from stacklab.conditions.fixes.fix import Action, Fix, probe
from stacklab.deploy.profile.model import Profile
from stacklab.errors import CloudRefused, CloudUnreachable, CommandFailed, NotRunning
from stacklab.machines.base import Machine
from stacklab.stages import Progress

Cloud = Callable[[], Connection]
"""Opens the cloud as its administrator. Raises NotRunning, CloudUnreachable."""

START_SECONDS = 600
"""For all instances together; an emulated one takes half a minute."""

GOING_DOWN_SECONDS = 600
"""How long a machine with DevStack may take to go down and come up: n-cond-cell1 alone can hang for 300 s."""

STOPPING = ("stop", "start", "reboot")
"""Instance actions that say who wanted the instance in the state it is in."""


@dataclass(frozen=True)
class Guest:
    """One instance. `state`: as Nova has it.

    `really`: whether the hypervisor runs it (None: not told). `by_nova`: no user stopped it.
    """

    id: str
    name: str
    state: str
    really: bool | None
    by_nova: bool
    busy: bool = False

    @property
    def lost(self) -> bool:
        """Whether it is down because of the reboot. Nova goes on showing ACTIVE until it notices, a minute or more."""
        if self.state == "SHUTOFF":
            return self.by_nova
        return self.state == "ACTIVE" and self.really is False

    @property
    def moving(self) -> bool:
        """Whether Nova is still at it. (A hard reboot of an emulated one takes half a minute.)"""
        return self.busy or self.state in ("REBOOT", "HARD_REBOOT")

    @property
    def order(self) -> str:
        """What Nova accepts in this state: `start` only of what it knows to be down."""
        return "start" if self.state == "SHUTOFF" else "reboot --hard"


class Instances(Fix):
    """`cloud`: how to reach the API as administrator; None where nobody can tell."""

    id = "instances"
    title = "instances run that ran before"
    why = (
        "A reboot of the machine ends its instances like a power cut. Nova does not start them again "
        "(resume_guests_state_on_host_boot is off): it shows them ACTIVE for about a minute, notices, and then "
        "shows SHUTOFF. Those are started; an instance that somebody shut down on purpose stays down."
    )

    def __init__(self, cloud: Cloud | None) -> None:
        self.cloud = cloud

    def look(self, machine: Machine, profile: Profile) -> Finding:
        if not profile.recovery.start_instances:
            return Finding("not_applicable", "this profile leaves instances alone")
        if self.cloud is None:
            return Finding("unknown", "cannot tell: there is no login for the cloud yet (lab up writes it)")
        try:
            found = self._guests(self.cloud(), machine)
        except (CloudUnreachable, CloudRefused, NotRunning) as error:
            return Finding("unknown", f"cannot tell: {error.message}")
        lost = [guest for guest in found if guest.lost]
        if lost:
            return Finding(
                "broken", "\n".join(f"{guest.name} does not run; Nova has it as {guest.state}" for guest in lost)
            )
        counts = {
            state: sum(guest.state == state for guest in found) for state in dict.fromkeys(g.state for g in found)
        }
        return Finding("well", ", ".join(f"{count} {state}" for state, count in counts.items()) or "there are none")

    def plan(self, machine: Machine, profile: Profile) -> Sequence[Action]:
        if self.cloud is None:
            return []
        try:
            person = self.cloud()
            return [_Order(person, guest) for guest in self._guests(person, machine) if guest.lost and not guest.busy]
        except (CloudUnreachable, CloudRefused, NotRunning) as error:
            raise CommandFailed(f"cannot tell which instances to start: {error.message}") from error

    def verify(self, machine: Machine, profile: Profile, progress: Progress) -> Finding:
        """Ordered ones take their time; one that Nova shut off in the meantime is ordered once more."""
        until = time.monotonic() + START_SECONDS
        while True:
            moving = self._moving(machine)
            finding = self.check(machine, profile)
            if finding.state == "well" and moving and time.monotonic() > until:
                return Finding("broken", f"Nova is at it for {START_SECONDS} s already: {', '.join(moving)}")
            if (finding.fine and not moving) or time.monotonic() > until:
                return finding
            said = ", ".join(moving) or finding.evidence.splitlines()[0]
            progress(f"waiting for instances (up to {START_SECONDS} s): {said}")
            time.sleep(5 if moving else 10)
            for action in self.plan(machine, profile):
                if isinstance(action, _Order) and action.guest.order == "start":  # never a second power cut
                    action.run(machine)

    def _moving(self, machine: Machine) -> list[str]:
        if self.cloud is None:
            return []
        try:
            return [f"{guest.name} is {guest.state}" for guest in self._guests(self.cloud(), machine) if guest.moving]
        except (CloudUnreachable, CloudRefused, NotRunning) as error:
            return [f"cannot tell: {error.message}"]

    def _guests(self, person: Connection, machine: Machine) -> list[Guest]:
        running = _domains(machine)
        booted = _booted(machine)
        found = []
        for server in person.get("compute", "servers", "detail", all_tenants="1")["servers"]:
            domain = server.get("OS-EXT-SRV-ATTR:instance_name")
            off = server["status"] == "SHUTOFF"
            actions = (
                person.get("compute", "servers", server["id"], "os-instance-actions")["instanceActions"] if off else []
            )
            found.append(
                Guest(
                    id=server["id"],
                    name=server["name"],
                    state=server["status"],
                    really=domain in running if running is not None and domain else None,
                    by_nova=stopped_by_nova(actions, booted),
                    busy=server.get("OS-EXT-STS:task_state") is not None,
                )
            )
        return found


def stopped_by_nova(actions: Sequence[Mapping[str, Any]], booted: float) -> bool:
    """Whether the latest stop came from Nova itself, which noticed that the hypervisor runs the instance no more.

    Nova's own periodic task acts without a user; a person's action carries their id. It may notice while the machine still goes
    down (`booted`: when it came up again, seconds since the epoch); an instance that was shut down from within long before
    that is not the reboot's doing. Newest first, as the API lists them. (S: nova, ComputeManager._sync_instance_power_state)
    """
    latest = next((action for action in actions if action.get("action") in STOPPING), None)
    if latest is None:
        return True
    if latest.get("user_id") or latest["action"] != "stop":
        return False
    began = datetime.fromisoformat(str(latest["start_time"])).replace(tzinfo=UTC).timestamp()
    return began >= booted - GOING_DOWN_SECONDS


@dataclass(frozen=True)
class _Order:
    """Starting one instance, through the API."""

    person: Connection
    guest: Guest

    @property
    def text(self) -> str:
        return f"openstack server {self.guest.order} {self.guest.id}   # {self.guest.name}"

    def run(self, machine: Machine) -> None:
        body = {"os-start": None} if self.guest.order == "start" else {"reboot": {"type": "HARD"}}
        try:
            self.person.request("POST", "compute", ("servers", self.guest.id, "action"), body=body)
        except CloudRefused as error:
            # 409: its state has changed since we looked, by Nova's noticing or somebody's start; `verify` looks again.
            if error.status != 409:
                raise CommandFailed(f"Nova does not start {self.guest.name}: {error.message}") from error
        except CloudUnreachable as error:
            raise CommandFailed(f"Nova does not start {self.guest.name}: {error.message}") from error


def _booted(machine: Machine) -> float:
    """When the machine came up, in seconds since the epoch by its own clock."""
    found = re.search(rb"^btime (\d+)$", machine.read("/proc/stat") or b"", re.MULTILINE)
    if not found:
        raise CommandFailed("/proc/stat does not say when the machine was booted")
    return float(found[1])


def _domains(machine: Machine) -> set[str] | None:
    """The instances that libvirt runs; None where there is no libvirt to ask."""
    try:
        done = probe(machine, "virsh", "--connect", "qemu:///system", "list", "--name")
    except CommandFailed:
        return None
    return {line.strip() for line in done.lines if line.strip()} if done.ok else None
