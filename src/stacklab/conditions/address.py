"""The network under the running stack has changed: what connects the cloud's networks still holds on to another address.

The course changed the physical network, and no instance could be launched any more. The machine's address is in many
places; here it changes in the one on which every new port depends, so that the way to the machine itself stays: where OVN's
controller looks for its database (ovn-remote), or the end of the agent's tunnels (local_ip).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from stacklab.conditions.condition import Action, Finding
from stacklab.conditions.machine import MachineFault
from stacklab.conditions.network import addresses
from stacklab.conditions.systemd import stack_unit, why_down
from stacklab.conditions.wrongvalue import ExternalId, IniValue, Value, WrongValue
from stacklab.deploy.profile.model import AddressPlace, FileEntry
from stacklab.errors import CommandFailed

ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")


class WrongAddress(MachineFault, WrongValue):
    """See the module. The wrong address is one of the floating range that nobody has: nothing leaves the machine for it."""

    id = "network"
    title = "the network under the cloud has changed, and no instance can be launched"
    patience = 300
    """Neutron gives an agent up after 75 s (agent_down_time), and believes in it again at its next report."""

    def lacks(self) -> str | None:
        if self.breakable.network is None:
            return f"the profile {self.profile.name} does not say where its network keeps the machine's address"
        entry = self._where.entry
        if entry and (why := self.lacks_unit(entry.unit)):
            return why
        value = self.value.read()
        if value is None or not ADDRESS.search(value):
            return f"{self.value.name} holds no address here ({value or 'it is not set'})"
        return None

    @property
    def _where(self) -> AddressPlace:
        if self.breakable.network is None:
            raise CommandFailed(f"the profile {self.profile.name} does not say where its network keeps the address")
        return self.breakable.network

    @property
    def value(self) -> Value:
        entry = self._where.entry
        if entry:
            return IniValue(self.machine, entry.file, entry.section, entry.key)
        return ExternalId(self.machine, self._where.external_id or "")

    def wrong(self, right: str | None) -> str:
        nobody = str(ipaddress.ip_network(self.profile.cloud.floating_range)[-2])
        if right is None or not ADDRESS.search(right):
            raise CommandFailed(f"{self.value.name} holds no address ({right})")
        return ADDRESS.sub(nobody, right)

    def right(self) -> str | None:
        now = self.value.read()
        return ADDRESS.sub(self.deployment.host_ip, now) if now else None

    def taking_effect(self) -> Iterable[Action]:
        # Open vSwitch tells ovn-controller at once; an agent reads its file when it starts.
        return self.restarting(stack_unit(self._where.entry.unit)) if self._where.entry else ()

    def see(self) -> Finding:
        value = self.value.read() or "not set"
        evidence = f"{self.value.name} is {value}"
        entry = self._where.entry
        trouble = self._of_agent(entry, value) if entry else self._of_controller()
        if trouble:
            return Finding("bad", f"{evidence}; {trouble}")
        agents = self._agents()
        dead = [f"{agent['agent_type']} on {agent['host']}" for agent in agents if not agent["alive"]]
        if dead or not agents:
            what = f"no life in {', '.join(dead)}" if dead else f"no agent {self._where.agent}"
            return Finding("bad", f"{evidence}; Neutron's list of agents shows {what}")
        return Finding("good", f"{evidence}; Neutron's list of agents shows {self._where.agent} alive")

    def see_symptoms(self) -> Finding:
        """An agent that Neutron takes for alive still gets ports, which then never come up: launching fails, but late."""
        finding = self.see()
        if finding.state == "bad" and any(agent["alive"] for agent in self._agents()):
            return Finding("unknown", f"{finding.evidence.splitlines()[0]}; Neutron has not noticed yet", early=True)
        return finding

    def _agents(self) -> list[dict[str, Any]]:
        agents = self.target.cloud().get("network", "agents")["agents"]
        return [agent for agent in agents if agent["binary"] == self._where.agent]

    def _of_controller(self) -> str | None:
        done = self.probe("ovn-appctl", "-t", "ovn-controller", "connection-status")
        if not done.ok:
            return f"ovn-controller does not answer: {(done.err or done.out).strip()}"
        status = done.out.strip()
        return None if status == "connected" else f"ovn-controller says of OVN's southbound database: {status}"

    def _of_agent(self, entry: FileEntry, value: str) -> str | None:
        own = {address.split("/")[0] for address in addresses(self.probe("ip", "-o", "-4", "addr", "show").out)}
        unit = self.units(stack_unit(entry.unit))[0]
        down = None if unit.running else why_down(self.machine, unit)
        if value in own:
            return down
        wrong = "that is no address of this machine, and the agent does not start with it"
        return f"{wrong}; {down or unit.plain + ' still runs with an earlier one'}"
