"""The virtual PC of an instance as a QEMU command line."""

import fcntl
import functools
import json
import os
import platform
import re
from pathlib import Path

from nova.virt.labqemu import disks, network
from nova.virt.labqemu.options import CONF, qemu_binary
from oslo_log import log as logging

LOG = logging.getLogger(__name__)
KVM = "/dev/kvm"
KVM_GET_API_VERSION = 0xAE00


@functools.cache
def kvm_works():
    """The node alone proves nothing: in a nested machine it may open and yet boot no guest."""
    if platform.machine() == "x86_64":
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if flags is None or not {"vmx", "svm"} & set(flags.group(1).split()):
            LOG.info("Guests are emulated: this machine's processor offers no virtualization")
            return False
    try:
        node = os.open(KVM, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        LOG.info("Guests are emulated: %s cannot be used: %s", KVM, error.strerror)
        return False
    try:
        return fcntl.ioctl(node, KVM_GET_API_VERSION, 0) == 12
    except OSError as error:
        LOG.info("Guests are emulated: %s does not answer: %s", KVM, error.strerror)
        return False
    finally:
        os.close(node)


def acceleration():
    """What tells QEMU how to run. After KVM, emulation is named too: QEMU takes the first that works."""
    emulated = ["-accel", f"tcg,tb-size={CONF.lab.emulator_cache_mb}"]
    wanted = CONF.lab.accel
    if wanted == "kvm":
        return ["-accel", "kvm", "-cpu", "max"]
    if wanted == "tcg" or not kvm_works():
        return [*emulated, "-cpu", "max"]
    return ["-accel", "kvm", *emulated, "-cpu", "max"]


def root_volume(block_device_info):
    """The mapping of the volume that the instance starts from, or None."""
    info = block_device_info or {}
    root = info.get("root_device_name")
    for mapping in info.get("block_device_mapping") or []:
        if mapping.get("boot_index") == 0 or (root and mapping["mount_device"] == root):
            return mapping
    return None


def _disk_pairs(directory, block_device_info):
    """(blockdev, device) of every disk in the order of the guest's device names: root, its own extras, volumes."""
    info = block_device_info or {}
    root, pairs = root_volume(block_device_info), []
    if root is not None:
        pairs.append(disks.volume_pair(root["connection_info"], first=True))
    elif (directory / "disk").exists():
        pairs.append(
            (disks.file_node("root", directory / "disk", "qcow2"), disks.virtio_disk("root-disk", "root", first=True))
        )
    for path in [*sorted(directory.glob("disk.eph*")), directory / "disk.swap"]:
        if path.exists():
            name = path.suffix[1:]
            pairs.append((disks.file_node(name, path, "qcow2"), disks.virtio_disk(f"{name}-disk", name)))
    others = [device for device in info.get("block_device_mapping") or [] if device is not root]
    others.sort(key=lambda device: (len(device["mount_device"] or ""), device["mount_device"] or ""))
    pairs += [disks.volume_pair(mapping["connection_info"]) for mapping in others]
    return pairs


def _disc(name, path, *, index, boot=None):
    node = disks.file_node(name, path, "raw", read_only=True)
    device = {"driver": "ide-cd", "id": f"{name}-disc", "drive": name, "bus": f"ide.{index}"}
    if boot is not None:
        device["bootindex"] = boot
    return node, device


def command(instance, directory, network_info, block_device_info, port):
    """The whole command line, but for what the process itself needs (uuid, pid file)."""
    flavor = instance.flavor
    words = [qemu_binary(), "-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", *acceleration()]
    words += ["-name", instance.name, "-m", str(flavor.memory_mb), "-smp", str(flavor.vcpus)]
    # cloud-init looks at this to know that it is in an OpenStack.
    words += ["-smbios", f"type=1,manufacturer=OpenStack Foundation,product=OpenStack Nova,serial={instance.uuid}"]
    words += ["-chardev", "file,id=console,path=console.log,append=on", "-serial", "chardev:console"]
    words += ["-qmp", "unix:qmp,server=on,wait=off"]  # relative: see qmp.conversation
    pairs = _disk_pairs(directory, block_device_info)
    if (directory / "disk.iso").exists():
        pairs.append(_disc("install", directory / "disk.iso", index=0, boot=1))
    if (directory / "disk.config").exists():
        pairs.append(_disc("config", directory / "disk.config", index=1))
    for node, device in pairs:
        words += ["-blockdev", json.dumps(node), "-device", json.dumps(device)]
    words += network.arguments(network_info, port)
    return [*words, "-device", "virtio-rng-pci"]
