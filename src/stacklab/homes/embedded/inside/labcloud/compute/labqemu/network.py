"""The guest's network: QEMU's user mode, which needs no bridge, no tap device and no root.

Each interface is a little network of its own between this guest and QEMU, which plays gateway, DHCP and name server
with the addresses that Neutron chose. So the guest has Neutron's address, and is reached from this machine through one
forwarded loopback port that leads to SSH. Nothing else leads in or out (`restrict`): QEMU's user mode would let the guest
speak to every server on this machine's loopback address, and has no way to let it out to the internet alone.

What this cannot do: two guests do not see each other, even on the same network; the internet, a router's addresses and
floating IPs cannot be reached; security groups are kept by Neutron but filter nothing; IPv6 addresses are not handed
out. What waits for such traffic must say that it is not applicable here.
"""

import ipaddress
import json
import socket
import subprocess
import threading

from labcloud import namespace
from nova import exception
from nova.virt.labqemu.options import CONF
from oslo_log import log as logging

LOG = logging.getLogger(__name__)

_ports_lock = threading.Lock()
_promised = set()  # ports given to guests that are being started at this moment


def subnet_of(vif):
    """(subnet, address) of the first IPv4 address of an interface, or (None, None)."""
    for subnet in vif["network"]["subnets"]:
        for address in subnet["ips"]:
            if ipaddress.ip_address(address["address"]).version == 4:
                return subnet, address["address"]
    return None, None


def plan(cidr, address, gateway):
    """(gateway, name server) for a guest's network: distinct addresses of it that are not the guest's own.

    None for the name server where the network is too small for one.
    """
    network, taken = ipaddress.ip_network(cidr), {ipaddress.ip_address(address)}

    def choose(wanted):
        chosen = ipaddress.ip_address(wanted) if wanted else None
        if chosen is None or chosen in taken or chosen not in network:
            chosen = next((host for host in network.hosts() if host not in taken), None)
        if chosen is not None:
            taken.add(chosen)
        return chosen

    return choose(gateway), choose(None)


def device_id(vif):
    return f"nic-{vif['id']}"


def on_bridge():
    """Whether guests are plugged into Open vSwitch, where OVN leads their packets."""
    return CONF.lab.network == "ovn"


PLUG = """
ip link show "$1" >/dev/null 2>&1 || ip tuntap add dev "$1" mode tap
ip link set "$1" up
ovs-vsctl --timeout=60 -- --may-exist add-port br-int "$1" -- set Interface "$1" external_ids:iface-id="$2" \
  external_ids:attached-mac="$3" external_ids:vm-id="$4" external_ids:iface-status=active
"""
UNPLUG = """
ovs-vsctl --timeout=60 --if-exists del-port br-int "$1"
! ip link show "$1" >/dev/null 2>&1 || ip link delete "$1"
"""


def plug(instance, network_info):
    """A tap for each interface, on the bridge under the name by which OVN knows the port (os-vif's way)."""
    for vif in network_info if on_bridge() else ():
        _inside(PLUG, tap(vif), vif["id"], vif["address"], instance.uuid)


def unplug(network_info):
    for vif in network_info if on_bridge() else ():
        _inside(UNPLUG, tap(vif))


def _inside(script, *arguments):
    argv = [*namespace.entering(), "sh", "-ec", script, "sh", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise exception.InternalError(f"the port {arguments[0]} cannot be plugged: {done.stderr.strip()[-500:]}")


def tap(vif):
    """As Neutron names it."""
    return f"tap{vif['id']}"[:14]


def backend(vif, port=None):
    """The -netdev of an interface, as QMP's arguments of netdev_add."""
    if on_bridge():
        return {"type": "tap", "id": f"net-{vif['id']}", "ifname": tap(vif), "script": "no", "downscript": "no"}
    subnet, address = subnet_of(vif)
    name = f"net-{vif['id']}"
    if subnet is None:
        # No address, so no network to play: a cable that is not plugged in.
        return {"type": "hubport", "id": name, "hubid": int(vif["id"].replace("-", "")[:7], 16)}
    gateway, names = plan(subnet["cidr"], address, (subnet.get("gateway") or {}).get("address"))
    options = {"type": "user", "id": name, "ipv6": False, "restrict": True, "net": subnet["cidr"], "dhcpstart": address}
    if gateway is not None:
        options["host"] = str(gateway)
    if names is not None:
        options["dns"] = str(names)
    if port is not None:
        options["hostfwd"] = [{"str": f"tcp:{CONF.lab.loopback}:{port}-{address}:22"}]
    return options


def device(vif):
    """The -device of an interface, without boot ROM: guests start from disks, and the ROM is a package of its own."""
    return {
        "driver": "virtio-net-pci",
        "id": device_id(vif),
        "netdev": f"net-{vif['id']}",
        "mac": vif["address"],
        "romfile": "",
        **(dict.fromkeys(OFFLOADS, False) if on_bridge() else {}),
    }


OFFLOADS = (
    *("csum", "gso", "guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo"),
    *("host_tso4", "host_tso6", "host_ecn", "host_ufo"),
)
"""Off: with them TCP dies on a userspace datapath. (S: openvswitch/ovs-issues 273)"""


def _as_words(options):
    """The same for the command line, where not every QEMU understands JSON. No value here holds a comma."""
    words = [options["type"]]
    for name, value in options.items():
        if name == "hostfwd":
            words += [f"hostfwd={entry['str']}" for entry in value]
        elif name != "type":
            words.append(f"{name}={('off', 'on')[value] if isinstance(value, bool) else value}")
    return ",".join(words)


def arguments(network_info, port):
    """-netdev and -device for all interfaces; the SSH port leads to the first that has an address."""
    words = []
    for vif in network_info or []:
        reachable = port is not None and not on_bridge() and subnet_of(vif)[0] is not None
        words += ["-netdev", _as_words(backend(vif, port if reachable else None)), "-device", json.dumps(device(vif))]
        if reachable:
            port = None
    return words


class SshForward:
    """way.json in a guest's directory: the loopback port that leads to its SSH server, kept while it can be."""

    def __init__(self, directory):
        self.path = directory / "way.json"
        self.kept = directory / "port"  # remembered while the guest is down, when way.json is gone

    def choose(self):
        """A free port, the one from last time if it is still free; promised to nobody else until `settle`."""
        with _ports_lock:
            for wanted in (self._last(), 0):
                if wanted is None or wanted in _promised:
                    continue
                with socket.socket() as attempt:
                    try:
                        attempt.bind((CONF.lab.loopback, wanted))
                    except OSError:
                        LOG.info("Port %s is taken, choosing another", wanted)
                        continue
                    port = attempt.getsockname()[1]
                _promised.add(port)
                return port
        raise OSError(f"no free port on {CONF.lab.loopback}")

    def _last(self):
        try:
            return int(self.kept.read_text())
        except (OSError, ValueError):
            return None

    def settle(self, port, *, works):
        """The guest has the port now (write it down), or never got it."""
        with _ports_lock:
            _promised.discard(port)
        if works:
            self.kept.write_text(f"{port}\n")
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps({"host": CONF.lab.loopback, "port": port}) + "\n")
            part.replace(self.path)
