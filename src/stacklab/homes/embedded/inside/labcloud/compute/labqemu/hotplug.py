"""Disks and interfaces that come and go while the guest runs."""

import time

from nova import exception
from nova.virt.labqemu import disks, network, qmp
from oslo_log import log as logging

LOG = logging.getLogger(__name__)
PATIENCE = 120  # seconds for a guest to let go of a device; one that is still booting does not listen yet
# A guest whose power came on this long ago has booted, or never will as we would notice. Below Nova's patience with an
# interface that is being attached (rpc_response_timeout, 60 seconds).
BOOTED = 45


def _devices(directory):
    return {device["name"] for device in qmp.ask(directory, "qom-list", path="/machine/peripheral")}


def _await_names(directory):
    """Wait until a guest that has just been switched on has named the devices that it started with.

    Linux names them in the order in which its drivers find them. What is plugged in while they load can come first:
    then the volume is vda, the disk that the guest boots from is vdb, and a guest that goes by names finds no root.
    The firmware drives disks as well, so they do not tell how far the guest is. An interface does: QEMU hands it
    everything (promiscuous) until the guest's own driver brings it up, and disks are long named by then. Without an
    interface nothing tells, and we do not wait.
    """
    try:
        began = (directory / "pid").stat().st_mtime
    except FileNotFoundError:
        return  # it has just ended, as plugging in will say
    while time.time() - began < BOOTED:
        with qmp.conversation(directory) as talk:
            filters = talk.run("query-rx-filter")
            if not filters or not all(nic["promiscuous"] for nic in filters):
                return
            if talk.run("query-status")["status"] != "running":
                return  # paused: it gets no further
        time.sleep(0.2)
    LOG.info("Plugging in without knowing whether the guest in %s has booted", directory)


def attach_disk(directory, connection_info):
    node, device = disks.volume_pair(connection_info)
    _await_names(directory)
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
    while any(node.get("node-name") == name for node in qmp.ask(directory, "query-named-block-nodes", flat=True)):
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
    _await_names(directory)
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
