"""Disks and interfaces that come and go while the guest runs."""

import time

from nova import exception
from nova.virt.labqemu import disks, network, qmp
from oslo_log import log as logging

LOG = logging.getLogger(__name__)
PATIENCE = 60  # seconds for a guest to let go of a device; one that is still booting does not listen yet


def _devices(directory):
    return {one["name"] for one in qmp.ask(directory, "qom-list", path="/machine/peripheral")}


def attach_disk(directory, connection_info):
    node, device = disks.volume_pair(connection_info)
    with qmp.conversation(directory) as talk:
        talk.run("blockdev-add", **node)
        try:
            talk.run("device_add", **device)
        except qmp.QmpError:
            talk.run("blockdev-del", node_name=node["node-name"])
            raise


def detach_disk(directory, connection_info):
    node, device = disks.volume_pair(connection_info)
    _unplug(directory, device["id"])
    _close_disk(directory, node["node-name"])


def _close_disk(directory, name):
    """Let QEMU close the file; the device that has just gone may hold it for a moment longer."""
    deadline = time.monotonic() + 10
    while any(one.get("node-name") == name for one in qmp.ask(directory, "query-named-block-nodes", flat=True)):
        try:
            qmp.ask(directory, "blockdev-del", node_name=name)
        except qmp.QmpError as error:
            if "in use" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def resize_disk(directory, connection_info, size):
    node, _ = disks.volume_pair(connection_info)
    qmp.ask(directory, "block_resize", node_name=node["node-name"], size=size)


def attach_interface(directory, vif):
    with qmp.conversation(directory) as talk:
        backend = network.backend(vif)
        talk.run("netdev_add", **backend)
        try:
            talk.run("device_add", **network.device(vif))
        except qmp.QmpError:
            talk.run("netdev_del", id=backend["id"])
            raise


def detach_interface(directory, vif):
    if network.device_id(vif) in _devices(directory):
        _unplug(directory, network.device_id(vif))
        qmp.ask(directory, "netdev_del", id=f"net-{vif['id']}")


def _unplug(directory, name):
    """Ask the guest to let go of a device until it has. Raises DeviceDetachFailed."""
    deadline, asked = time.monotonic() + PATIENCE, 0.0
    while name in _devices(directory):
        now = time.monotonic()
        if now > deadline:
            raise exception.DeviceDetachFailed(
                device=name, reason=f"the guest did not let go of it in {PATIENCE} seconds"
            )
        if now - asked > 5:
            asked = now
            try:
                qmp.ask(directory, "device_del", id=name)
            except qmp.QmpError as error:
                # "already being unplugged", or gone this very moment: looking tells which.
                LOG.debug("device_del %s: %s", name, error)
        time.sleep(0.2)
