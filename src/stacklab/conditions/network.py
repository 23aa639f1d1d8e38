"""The machine's own part in the cloud's network: the public bridge, forwarding, masquerading."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from stacklab.conditions.condition import Action, Finding
from stacklab.conditions.machine import MachineRepair
from stacklab.deploy.profile.model import Profile
from stacklab.errors import CommandFailed
from stacklab.machines.base import Finished

SYSCTL_FILE = "/etc/sysctl.d/60-stacklab.conf"
MODULES_FILE = "/etc/modules-load.d/stacklab.conf"
BRIDGE_MODULE = "br_netfilter"
"""Without it the kernel has no net.bridge.* settings. (S: DevStack's enable_kernel_bridge_firewall)"""


class Bridge(MachineRepair):
    """The gateway's address on the public bridge."""

    id = "bridge"

    def see(self) -> Finding:
        bridge, wanted = self.profile.cloud.bridge, address(self.profile)
        done = self.probe("ip", "-o", "link", "show", "dev", bridge)
        if not done.ok:
            why = f"there is no bridge {bridge} ({done.err.strip()})"
            return Finding("bad", f"{why}: Open vSwitch makes it (the fix switch)")
        up = is_up(done.out)
        has = addresses(self.probe("ip", "-o", "-4", "addr", "show", "dev", bridge).out)
        evidence = f"{bridge} is {'up' if up else 'down'}, with {', '.join(has) or 'no address'}"
        if up and wanted in has:
            return Finding("good", evidence)
        return Finding("bad", f"{evidence}; it should be up, with {wanted}")

    def repairing(self) -> Iterator[Action]:
        bridge = self.profile.cloud.bridge
        yield self.command("ip", "addr", "replace", address(self.profile), "dev", bridge)
        yield self.command("ip", "link", "set", bridge, "up")


class Forwarding(MachineRepair):
    """Kernel settings, now and for good."""

    id = "forwarding"

    def see(self) -> Finding:
        wanted = self.profile.recovery.sysctl
        if not wanted:
            return Finding("not_applicable", "this release needs no kernel settings put back")
        has = self._values()
        wrong = [
            f"{key} is {'not there' if has[key] is None else has[key] or 'empty'}, not {value}"
            for key, value in wanted.items()
            if not satisfies(has[key], value)
        ]
        if wrong:
            return Finding("bad", "\n".join(wrong))
        return Finding("good", "; ".join(f"{key}={has[key]}" for key in wanted))

    def repairing(self) -> Iterator[Action]:
        wanted = self.profile.recovery.sysctl
        has = self._values()
        values = {
            key: value if satisfies(has[key], value) else joined(has[key], value) for key, value in wanted.items()
        }
        if any(key.startswith("net.bridge.") for key in wanted):
            yield self.command("modprobe", BRIDGE_MODULE, may_fail=True)
            yield self.write(MODULES_FILE, f"{BRIDGE_MODULE}\n")
        for key, value in values.items():
            yield self.command("sysctl", "-w", f"{key}={value}")
        lines = [f"{key} = {value}\n" for key, value in values.items()]
        head = "# What stack.sh sets until the next reboot only (lab fixes show forwarding).\n"
        yield self.write(SYSCTL_FILE, head + "".join(lines))

    def _values(self) -> dict[str, str | None]:
        """The present values; None for a key that the kernel does not have."""
        values: dict[str, str | None] = {}
        for key in self.profile.recovery.sysctl:
            text = self.machine.read("/proc/sys/" + key.replace(".", "/"))
            values[key] = None if text is None else text.decode(errors="replace").strip()
        return values


class Masquerade(MachineRepair):
    """Source NAT for the floating range."""

    id = "masquerade"

    def see(self) -> Finding:
        if not self.profile.recovery.masquerade:
            return Finding("not_applicable", "this profile's cloud does without")
        devices = self._devices()
        if not devices:
            return Finding("not_applicable", "the machine has no default route, so there is no outside to reach")
        lacking = []
        for device in devices:
            done = self._check(device)
            # 1: there is no such rule. Anything else: iptables itself could not look.
            if done.status not in (0, 1) or "ermission" in done.err:
                raise CommandFailed("iptables could not look into the table nat", status=done.status, said=done.err)
            if not done.ok:
                lacking.append(device)
        if lacking:
            return Finding("bad", f"{self.profile.cloud.floating_range} is not masqueraded on {', '.join(lacking)}")
        return Finding("good", f"{self.profile.cloud.floating_range} is masqueraded on {', '.join(devices)}")

    def repairing(self) -> Iterator[Action]:
        for device in self._devices():
            if not self._check(device).ok:
                yield self.command("iptables", "-w", "-t", "nat", "-A", *rule(self.profile, device))

    def _check(self, device: str) -> Finished:
        return self.probe("iptables", "-w", "-t", "nat", "-C", *rule(self.profile, device))

    def _devices(self) -> list[str]:
        return default_devices(self.probe("ip", "-4", "route", "show", "default").out)


def rule(profile: Profile, device: str) -> list[str]:
    """As stack.sh writes it, so that neither adds a second one. (S: lib/neutron_plugins/services/l3)"""
    return ["POSTROUTING", "-o", device, "-s", profile.cloud.floating_range, "-j", "MASQUERADE"]


def address(profile: Profile) -> str:
    """What the bridge carries: the gateway, with the range's prefix length."""
    return f"{profile.cloud.gateway}/{ipaddress.ip_network(profile.cloud.floating_range).prefixlen}"


def is_up(text: str) -> bool:
    """Whether `ip -o link show` has the flag UP. Not `state`, which an Open vSwitch port always has as UNKNOWN."""
    match = re.search(r"<([^>]*)>", text)
    return match is not None and "UP" in match[1].split(",")


def addresses(text: str) -> list[str]:
    """The addresses, with prefix lengths, in `ip -o -4 addr show`."""
    return re.findall(r"\binet (\S+)", text)


def default_devices(text: str) -> list[str]:
    """The interfaces in `ip route show default`, each once."""
    return list(dict.fromkeys(re.findall(r"^default\b.*?\bdev (\S+)", text, re.MULTILINE)))


def satisfies(has: str | None, wanted: str) -> bool:
    """Whether a setting's value is the wanted one; a list of ports must hold the wanted ones and may hold more."""
    if has is None:
        return False
    if not re.search(r"[,-]", wanted):
        return has.split() == wanted.split()
    return ports(wanted) <= ports(has)


def joined(has: str | None, wanted: str) -> str:
    """The value to set: ports that somebody else reserved stay so, as in stack.sh."""
    return f"{wanted},{has}" if has and re.search(r"[,-]", wanted) else wanted


def ports(text: str) -> set[int]:
    """`1,5-7` as numbers, which is how the kernel writes what it was given as 5,6,7,1."""
    ports: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        ports |= set(range(int(first), int(last or first) + 1))
    return ports
