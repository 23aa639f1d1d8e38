"""Whether somebody uses a machine already, and the marker that says that it is a lab's."""

from __future__ import annotations

import getpass
import json
import socket
import uuid

from stacklab.lab import Lab
from stacklab.machines.base import Machine

MARKER = "/etc/stacklab/lab.json"
ACCOUNTS = 4
"""People with a login of their own, from which on a machine looks like a shared one."""

# One line of evidence each; nothing is changed. What a fresh cloud image or installation has running is not among the names.
_LOOK = r"""
directory=$1
[ -d "$directory" ] && echo "DevStack in $directory"
units=$(systemctl list-unit-files 'devstack@*' --no-legend --no-pager 2>/dev/null | wc -l)
[ "$units" -eq 0 ] || echo "$units devstack@ services"
for path in /etc/nova /etc/neutron /etc/keystone /etc/kolla /etc/openstack_deploy /root/keystonerc_admin; do
    [ ! -e "$path" ] || echo "OpenStack: $path"
done
systemctl list-units --type=service --state=running --no-legend --no-pager --plain 2>/dev/null | while read -r unit rest; do
    name=${unit%.service}
    case $name in
    docker|containerd|podman|crio|cri-o|kubelet|k3s*|rke2*|snap.microk8s*|snap.lxd*) echo "containers: $name is running" ;;
    mariadb*|mysql*|postgresql*|mongod*|redis*|oracle*|elasticsearch*) echo "a database: $name is running" ;;
    httpd*|apache2*|nginx*|haproxy*|tomcat*|caddy*) echo "a web server: $name is running" ;;
    rabbitmq-server*|kafka*|jenkins*|gitlab*|named|bind9|slapd|smbd|nfs-server|dovecot*) echo "a server: $name is running" ;;
    openstack-*|nova-*|neutron-*|keystone*|glance-*|cinder-*|swift-*) echo "OpenStack: $name is running" ;;
    esac
done
if command -v virsh >/dev/null 2>&1; then
    for domain in $(virsh --connect qemu:///system list --name 2>/dev/null); do echo "a virtual machine: $domain"; done
fi
# exited containers count, too: somebody made them
if command -v docker >/dev/null 2>&1; then
    count=$(docker ps -aq 2>/dev/null | wc -l)
    [ "$count" -eq 0 ] || echo "containers: $count of Docker"
fi
accounts=$(getent passwd | awk -F: '$3 >= 1000 && $3 < 60000 && $7 !~ /(nologin|false)$/ && $1 != "stack" {print $1}')
count=$(printf '%s' "$accounts" | grep -c . || true)
[ "$count" -lt "$2" ] || echo "$count accounts of people: $(echo $accounts)"
true
"""


def looks_used(machine: Machine, lab: Lab | None = None, directory: str = "/opt/stack/devstack") -> list[str]:
    """Evidence that a deployment would change what somebody has there, a line each; nothing on a fresh machine.

    A machine that carries this lab's marker is ours whatever runs there; another lab's marker is evidence. Without `lab` any
    marker counts as ours. Raises what Machine raises.
    """
    marker = _marker(machine)
    if marker and (lab is None or marker["id"] == lab.record.identity):
        return []
    found = machine.script(_LOOK, directory, str(ACCOUNTS), user="root").lines
    if marker:
        found.insert(0, f"the lab '{marker['lab']}' of {marker['by']} is deployed there")
    return found


def ours(machine: Machine, lab: Lab) -> bool:
    """Whether the machine carries this lab's marker."""
    marker = _marker(machine)
    return marker is not None and marker["id"] == lab.record.identity


def put_marker(machine: Machine, lab: Lab) -> None:
    """From now on the machine is this lab's."""
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    machine.put(MARKER, json.dumps({"lab": lab.name, "by": by, "id": identity(lab)}) + "\n")


def identity(lab: Lab) -> str:
    """A name for this lab that no other has; made when its first machine is marked, gone with the lab."""
    known = lab.record.identity
    if known is None:
        known = uuid.uuid4().hex
        lab.update(identity=known)
    return known


def _marker(machine: Machine) -> dict[str, str] | None:
    held = machine.read(MARKER)
    if held is None:
        return None
    try:
        found = json.loads(held)
        return {name: str(found[name]) for name in ("lab", "by", "id")}
    except (ValueError, KeyError, TypeError):
        return {"lab": "?", "by": "an unreadable marker", "id": ""}
