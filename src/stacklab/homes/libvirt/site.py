"""What a lab's VM is called and where its networks are: chosen once, so that they collide with nothing, and kept in vm.json."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal

from stacklab import places
from stacklab.errors import UnsupportedMachine
from stacklab.files import locked, read_precious, write_precious
from stacklab.homes.libvirt.hypervisor import HostNetwork
from stacklab.homes.libvirt.vagrant import MACHINE
from stacklab.lab import Lab

RANGE = IPv4Network("10.77.0.0/16")
"""Where labs' networks are taken from: two /24 each, a /23. Clear of DevStack's own (10.0.0.0/22, 172.24.4.0/24)."""
FILE = "vm.json"
ROUTES = Path("/proc/net/route")


@dataclass(frozen=True)
class VmSite:
    """`name`: of the VM's host-only network, and the beginning of all other names. `networks`: a /23, host-only and NAT.

    `made`: the VM was made to the end once. `box`, `version`: what it was (or will be) made from.
    """

    name: str
    uri: str
    pool: str
    driver: Literal["kvm", "qemu"]
    networks: str
    box: str = ""
    version: str = ""
    made: bool = False

    @classmethod
    def of(cls, lab: Lab) -> VmSite | None:
        """What was chosen for this lab, or None."""
        stored = read_precious(lab.home_directory / FILE)
        return cls(**stored) if stored else None

    @classmethod
    def choose(
        cls, lab: Lab, uri: str, pool: str, driver: Literal["kvm", "qemu"], taken: Iterable[IPv4Network]
    ) -> VmSite:
        """A new one, beside networks that are `taken` and those of other labs. Raises UnsupportedMachine if all are taken."""
        # Two labs that are brought up at once must not choose the same.
        with locked(places.state_home() / ".networks.lock", wait=True):
            files = [path for path in places.state_home().glob(f"*/home/{FILE}") if path.parent != lab.home_directory]
            networks = free_networks([*taken, *(IPv4Network(read_precious(path)["networks"]) for path in files)])
            return cls(f"lab-{lab.name}-{secrets.token_hex(2)}", uri, pool, driver, str(networks)).keep(lab)

    def keep(self, lab: Lab, **changed: object) -> VmSite:
        """Write it down, with changes."""
        site = replace(self, **changed)  # type: ignore[arg-type]
        write_precious(lab.home_directory / FILE, asdict(site))
        return site

    @property
    def domain(self) -> str:
        """The VM's name in libvirt."""
        return f"{self.name}-{MACHINE}"

    @property
    def nat_name(self) -> str:
        """The name of the network that leads to the internet."""
        return f"{self.name}-nat"

    @property
    def host_only(self) -> IPv4Network:
        """The network between host and VM. The host has its first address."""
        return next(IPv4Network(self.networks).subnets(new_prefix=24))

    @property
    def nat(self) -> IPv4Network:
        """The network to the internet."""
        return list(IPv4Network(self.networks).subnets(new_prefix=24))[1]

    @property
    def address(self) -> IPv4Address:
        """The VM's static address."""
        return self.host_only[10]

    def network_xml(self) -> dict[str, str]:
        """Both networks for libvirt, by name."""
        only, nat = self.host_only, self.nat
        head = "<network ipv6='no'><name>{}</name><bridge stp='on' delay='0'/>"
        return {
            self.name: head.format(self.name)
            + f"<dns enable='no'/><ip address='{only[1]}' netmask='{only.netmask}'/></network>",
            self.nat_name: head.format(self.nat_name)
            + f"<forward mode='nat'/><ip address='{nat[1]}' netmask='{nat.netmask}'>"
            + f"<dhcp><range start='{nat[10]}' end='{nat[250]}'/></dhcp></ip></network>",
        }


def free_networks(taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first /23 of RANGE that overlaps nothing that is taken. Raises UnsupportedMachine."""
    used = [network for network in taken if network.prefixlen > 0]
    for candidate in RANGE.subnets(new_prefix=23):
        if not any(candidate.overlaps(network) for network in used):
            return candidate
    raise UnsupportedMachine(
        f"no two networks are free in {RANGE} for the VM", advice="virsh net-list --all and ip route show who has them"
    )


def taken_networks(networks: Iterable[HostNetwork]) -> list[IPv4Network]:
    """Those of libvirt's networks, and those that this machine has routes to."""
    taken = [block for network in networks for block in network.ranges]
    return [*taken, *routes(ROUTES.read_text(encoding="ascii"))] if ROUTES.exists() else taken


def routes(table: str) -> Iterator[IPv4Network]:
    """The networks that this machine has routes to, without the default one; `table` is what /proc/net/route says."""
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) < 8:
            continue
        address, mask = (IPv4Address(int.from_bytes(bytes.fromhex(words[at]), "little")) for at in (1, 7))
        if int(mask):
            yield IPv4Network(f"{address}/{mask}", strict=False)
