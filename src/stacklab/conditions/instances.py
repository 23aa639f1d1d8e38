"""Instances that a reboot of the machine has stopped are started again; those that somebody stopped stay so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stacklab.cloud.connection import Connection
from stacklab.conditions.condition import Action, Finding, cannot_tell
from stacklab.conditions.machine import MachineRepair
from stacklab.errors import CloudRefused, CloudUnreachable, CommandFailed, LabError, NotRunning
from stacklab.stages import Progress
from stacklab.waiting import looks

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


class Instances(MachineRepair):
    """Looked at through the API, as administrator, and by asking libvirt what it runs."""

    id = "instances"

    def see(self) -> Finding:
        if not self.profile.recovery.start_instances:
            return Finding("not_applicable", "this profile leaves instances alone")
        guests = self._guests()
        lost = [f"{guest.name} does not run; Nova has it as {guest.state}" for guest in guests if guest.lost]
        if lost:
            return Finding("bad", "\n".join(lost))
        counts = Counter(guest.state for guest in guests)
        return Finding("good", ", ".join(f"{count} {state}" for state, count in counts.items()) or "there are none")

    def repairing(self) -> Iterator[Action]:
        try:
            guests = self._guests()
        except LabError as error:
            raise CommandFailed(f"cannot tell which instances to start: {error.message}") from error
        for guest in guests:
            if guest.lost and not guest.busy:
                yield self._starting(guest)

    def prove(self, progress: Progress) -> Finding:
        """Ordered ones take their time; one that Nova shut off in the meantime is ordered once more."""
        finding = Finding("unknown", "")
        for finding in looks(self.look, START_SECONDS, 5):
            try:
                guests = [] if finding.state in ("unknown", "not_applicable") else self._guests()
                for guest in guests:
                    if guest.lost and not guest.busy and guest.order == "start":  # never a second power cut
                        self._starting(guest).run()
            except (CloudRefused, CloudUnreachable, CommandFailed, NotRunning) as error:
                progress(f"waiting for instances (up to {START_SECONDS} s): {cannot_tell(error)}")
                continue
            moving = [f"{guest.name} is {guest.state}" for guest in guests if guest.moving]
            if finding.fine and not moving:
                return finding
            evidence = ", ".join(moving) or finding.evidence.splitlines()[0]
            progress(f"waiting for instances (up to {START_SECONDS} s): {evidence}")
        if finding.fine:
            return Finding("bad", f"Nova is at it for {START_SECONDS} s already: {finding.evidence}")
        return finding

    def _starting(self, guest: Guest) -> Action:
        text = f"openstack server {guest.order} {guest.id}   # {guest.name}"
        return Action(text, lambda: _start(self.target.cloud(), guest))

    def _guests(self) -> list[Guest]:
        cloud = self.target.cloud()
        done = self._domains()
        booted = self._booted()
        return [
            _guest(cloud, server, done, booted)
            for server in cloud.get("compute", "servers", "detail", all_tenants="1")["servers"]
        ]

    def _booted(self) -> float:
        """When the machine came up, in seconds since the epoch by its own clock."""
        match = re.search(rb"^btime (\d+)$", self.machine.read("/proc/stat") or b"", re.MULTILINE)
        if not match:
            raise CommandFailed("/proc/stat does not say when the machine was booted")
        return float(match[1])

    def _domains(self) -> set[str] | None:
        """The instances that libvirt runs; None where there is no libvirt to ask."""
        try:
            done = self.probe("virsh", "--connect", "qemu:///system", "list", "--name")
        except CommandFailed:
            return None
        return {line.strip() for line in done.lines if line.strip()} if done.ok else None


def _guest(cloud: Connection, server: Mapping[str, Any], running: set[str] | None, booted: float) -> Guest:
    domain = server.get("OS-EXT-SRV-ATTR:instance_name")
    actions = []
    if server["status"] == "SHUTOFF":
        actions = cloud.get("compute", "servers", server["id"], "os-instance-actions")["instanceActions"]
    return Guest(
        id=server["id"],
        name=server["name"],
        state=server["status"],
        really=domain in running if running is not None and domain else None,
        by_nova=stopped_by_nova(actions, booted),
        busy=server.get("OS-EXT-STS:task_state") is not None,
    )


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


def _start(cloud: Connection, guest: Guest) -> None:
    body = {"os-start": None} if guest.order == "start" else {"reboot": {"type": "HARD"}}
    try:
        cloud.request("POST", "compute", ("servers", guest.id, "action"), body=body)
    except LabError as error:
        # 409: its state has changed since we looked, by Nova's noticing or somebody's start; `prove` looks again.
        if not (isinstance(error, CloudRefused) and error.status == 409):
            raise CommandFailed(f"Nova does not start {guest.name}: {error.message}") from error
