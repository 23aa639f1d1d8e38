"""A guest's disks: an overlay of the cached Glance image, empty ones, its config drive, volumes; an image made of a disk."""

import io
import json
import os
import subprocess
from pathlib import Path, PurePosixPath

import pycdlib
from nova import exception
from nova.api.metadata import base as instance_metadata
from nova.compute import utils as compute_utils
from nova.virt import images
from nova.virt.labqemu.options import CONF, qemu_img
from oslo_concurrency import lockutils

GIB = 1 << 30
KERNELS = ("aki", "ari", "ami")


def run_qemu_img(*arguments):
    """qemu-img, or InternalError with what it said."""
    with compute_utils.disk_ops_semaphore:
        done = subprocess.run([qemu_img(), *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise exception.InternalError(f"qemu-img {arguments[0]} failed: {done.stderr.strip()[-500:]}")


def base_directory():
    return Path(CONF.instances_path).absolute() / "_base"


def base_image(context, image_id, trusted_certs=None):
    """The cached raw content of an image; Nova's own code fetches, inspects and converts it."""
    path = base_directory() / image_id
    with lockutils.lock(f"lab-image-{image_id}"):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            images.fetch_to_raw(context, image_id, str(path), trusted_certs)
    return path


def make_root(context, instance, image_meta, directory):
    """The root disk of an instance that starts from an image."""
    kind = image_meta.disk_format
    if kind in KERNELS:
        raise exception.ImageUnacceptable(
            image_id=image_meta.id, reason="images in parts (kernel, ramdisk) are not supported"
        )
    base = base_image(context, image_meta.id, instance.trusted_certs)
    wanted = instance.flavor.root_gb * GIB
    if kind == "iso":
        # The disc to boot from, and an empty disk to install to.
        (directory / "disk.iso").symlink_to(os.path.relpath(base, directory))
        make_empty(directory / "disk", max(wanted, GIB))
        return
    size = images.qemu_img_info(str(base)).virtual_size
    if wanted and size > wanted:
        raise exception.FlavorDiskSmallerThanImage(flavor_size=wanted, image_size=size)
    # The name of the base is relative, so that a copy of the whole tree (a checkpoint) is complete in itself.
    run_qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", os.path.relpath(base, directory), directory / "disk",
                 max(wanted, size))  # fmt: skip


def make_empty(path, size):
    if not path.exists():
        run_qemu_img("create", "-q", "-f", "qcow2", path, size)


def make_extra(block_device_info, directory):
    """Ephemeral disks and swap, empty as in any cloud without a template for them."""
    for number, disk in enumerate((block_device_info or {}).get("ephemerals") or []):
        make_empty(directory / f"disk.eph{number}", disk["size"] * GIB)
    swap = (block_device_info or {}).get("swap")
    if swap and swap["swap_size"] > 0:
        make_empty(directory / "disk.swap", swap["swap_size"] << 20)


def remove_unused_bases(directories):
    """Drop cached images that no instance's disk stands on."""
    used = {path.name for path in map(_base_of, directories) if path is not None}
    for path in base_directory().glob("*"):
        with lockutils.lock(f"lab-image-{path.name}"):
            if path.name not in used and not path.name.endswith((".part", ".converted")):
                path.unlink(missing_ok=True)


def _base_of(directory):
    disc = directory / "disk.iso"
    if disc.is_symlink():
        return disc.readlink()
    disk = directory / "disk"
    if not disk.exists():
        return None
    # A guest may be writing: its lock must not keep us from reading the header.
    done = subprocess.run([qemu_img(), "info", "-U", "--output=json", disk], capture_output=True, text=True, check=True)
    backing = json.loads(done.stdout).get("backing-filename")
    return Path(backing) if backing else None


def flatten(disk, target):
    """A disk and what it stands on as one file that Glance can keep. The guest must not write meanwhile."""
    run_qemu_img("convert", "-q", "-U", "-f", "qcow2", "-O", "qcow2", disk, target)


def make_config_drive(instance, injected_files, admin_password, network_info, path):
    """Write the ISO image at `path` that tells an instance its name, key pair and user data (no metadata service runs).

    Not where it is there: a reboot does not change what an instance is. Written with pycdlib; Nova's own way calls mkisofs,
    which needs a package of the distribution.
    """
    if path.exists():
        return
    extra = {"admin_pass": admin_password} if admin_password else {}
    metadata = instance_metadata.InstanceMetadata(
        instance, content=injected_files or [], extra_md=extra, network_info=network_info
    )
    part = path.with_name(f"{path.name}.part")
    write_disc(metadata.metadata_for_config_drive(), part)
    part.replace(path)


def write_disc(files, path):
    """An ISO image labelled config-2 of (name, content) pairs; real names in Rock Ridge and Joliet, else numbers."""
    disc = pycdlib.PyCdlib()
    disc.new(vol_ident="config-2", rock_ridge="1.09", joliet=3)
    plain = {PurePosixPath("/"): ""}  # real directory → its plain name
    for number, (name, content) in enumerate(files):
        real = PurePosixPath("/", name)
        for folder in reversed(real.parents):
            if folder not in plain:
                plain[folder] = f"{plain[folder.parent]}/D{len(plain):07}"
                disc.add_directory(plain[folder], rr_name=folder.name, joliet_path=str(folder))
        data = content.encode() if isinstance(content, str) else content
        disc.add_fp(
            io.BytesIO(data), len(data), f"{plain[real.parent]}/F{number:07}.;1",
            rr_name=real.name, joliet_path=str(real), file_mode=0o100444,
        )  # fmt: skip
    disc.write(str(path))
    disc.close()


# --- how QEMU is told -----------------------------------------------


def file_node(name, path, driver, *, read_only=False):
    """A disk as QMP's blockdev-add and -blockdev take it."""
    return {
        "node-name": name,
        "driver": driver,
        "read-only": read_only,
        "discard": "unmap",
        "file": {"driver": "file", "filename": str(path), "read-only": read_only},
    }


def virtio_disk(name, node, *, serial=None, first=False):
    """The device that shows a disk to the guest."""
    device = {"driver": "virtio-blk-pci", "id": name, "drive": node}
    if serial:
        device["serial"] = serial[:20]  # what virtio can carry
    if first:
        device["bootindex"] = 0
    return device


def node_of(volume_id):
    return "v" + volume_id.replace("-", "")[:30]  # QEMU's limit for node names


def device_of(volume_id):
    return f"volume-{volume_id}"


def volume_pair(connection_info, *, first=False):
    """(blockdev, device) of a volume. Raises InvalidVolume if it is not a file of this cloud's Cinder."""
    data = connection_info["data"]
    if connection_info["driver_volume_type"] != "local":
        raise exception.InvalidVolume(reason=f"cannot attach volumes of type {connection_info['driver_volume_type']}")
    volume_id = connection_info.get("serial") or data["volume_id"]
    node = file_node(node_of(volume_id), data["device_path"], "raw", read_only=data.get("access_mode") == "ro")
    return node, virtio_disk(device_of(volume_id), node["node-name"], serial=volume_id, first=first)
