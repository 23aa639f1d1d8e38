"""The network under the running stack has changed: what connects the cloud's networks still holds on to another address.

The course changed the physical network, and no instance could be launched any more. The machine's address is in many
places; here it changes in the one on which every new port depends, so that the way to the machine itself stays: where OVN's
controller looks for its database (ovn-remote), or the end of the agent's tunnels (local_ip).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

from stacklab.conditions.faults.settings import ExternalId, IniEntry, Place
from stacklab.conditions.faults.wrong import WrongValue, restarting
from stacklab.conditions.finding import Finding
from stacklab.conditions.fixes import systemd
from stacklab.conditions.fixes.fix import Action, probe
from stacklab.conditions.fixes.network import addresses
from stacklab.conditions.fixes.systemd import plain, stack_unit, why_down
from stacklab.deploy.profile.model import AddressPlace, Entry
from stacklab.errors import CommandFailed

ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")


class Network(WrongValue):
    """See the module. The wrong address is one of the floating range that nobody has: nothing leaves the machine for it."""

    id = "network"
    title = "the network under the cloud has changed, and no instance can be launched"
    patience = 300
    """Neutron gives an agent up after 75 s (agent_down_time), and believes in it again at its next report."""

    def lacks(self) -> str | None:
        if self.breakable.network is None:
            return f"the profile {self.profile.name} does not say where its network keeps the machine's address"
        if entry := self._where.entry:
            (unit,) = systemd.look(self.machine, [stack_unit(entry.unit)])
            if not unit.there:
                return f"the machine has no unit {unit.name}"
        value = self.place().read(self.machine)
        if value is None or not ADDRESS.search(value):
            return f"{self.place().name} holds no address here ({value or 'it is not set'})"
        return None

    @property
    def _where(self) -> AddressPlace:
        if self.breakable.network is None:
            raise CommandFailed(f"the profile {self.profile.name} does not say where its network keeps the address")
        return self.breakable.network

    def place(self) -> Place:
        where = self._where
        if where.entry:
            return IniEntry(where.entry)
        return ExternalId(where.external_id or "")

    def wrong(self, right: str) -> str:
        nobody = str(ipaddress.ip_network(self.profile.cloud.floating_range)[-2])
        if not ADDRESS.search(right):
            raise CommandFailed(f"{self.place().name} holds no address ({right})")
        return ADDRESS.sub(nobody, right)

    def right(self) -> str | None:
        now = self.place().read(self.machine)
        return ADDRESS.sub(self.deployment.host_ip, now) if now else None

    def taking_effect(self) -> Sequence[Action]:
        # Open vSwitch tells ovn-controller at once; an agent reads its file when it starts.
        return restarting(stack_unit(self._where.entry.unit)) if self._where.entry else ()

    def see(self) -> Finding:
        value = self.place().read(self.machine) or "not set"
        said = f"{self.place().name} is {value}"
        entry = self._where.entry
        trouble = self._of_agent(entry, value) if entry else self._of_controller()
        if trouble:
            return Finding("broken", f"{said}; {trouble}")
        agents = self._agents()
        dead = [f"{one['agent_type']} on {one['host']}" for one in agents if not one["alive"]]
        if dead or not agents:
            what = f"no life in {', '.join(dead)}" if dead else f"no agent {self._where.agent}"
            return Finding("broken", f"{said}; Neutron's list of agents shows {what}")
        return Finding("well", f"{said}; Neutron's list of agents shows {self._where.agent} alive")

    def shows(self) -> Finding:
        """An agent that Neutron takes for alive still gets ports, which then never come up: launching fails, but late."""
        found = self.see()
        if found.state == "broken" and any(one["alive"] for one in self._agents()):
            return Finding("unknown", f"{found.evidence.splitlines()[0]}; Neutron has not noticed yet", early=True)
        return found

    def _agents(self) -> list[dict[str, Any]]:
        found = self.ground.cloud().get("network", "agents")["agents"]
        return [one for one in found if one["binary"] == self._where.agent]

    def _of_controller(self) -> str | None:
        done = probe(self.machine, "ovn-appctl", "-t", "ovn-controller", "connection-status")
        if not done.ok:
            return f"ovn-controller does not answer: {(done.err or done.out).strip()}"
        status = done.out.strip()
        return None if status == "connected" else f"ovn-controller says of OVN's southbound database: {status}"

    def _of_agent(self, entry: Entry, value: str) -> str | None:
        own = {one.split("/")[0] for one in addresses(probe(self.machine, "ip", "-o", "-4", "addr", "show").out)}
        (unit,) = systemd.look(self.machine, [stack_unit(entry.unit)])
        down = None if unit.running else why_down(self.machine, unit)
        if value in own:
            return down
        wrong = "that is no address of this machine, and the agent does not start with it"
        return f"{wrong}; {down or plain(unit.name) + ' still runs with an earlier one'}"
