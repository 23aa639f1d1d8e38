"""The config drive: how an instance learns its name, key pair and user data; there is no metadata service here."""

import sys
from pathlib import Path

from nova.api.metadata import base as instance_metadata
from nova.virt import configdrive
from nova.virt.labqemu.options import CONF


def make(instance, injected_files, admin_password, network_info, path):
    """Write the ISO image at `path`, unless it is there: a reboot does not change what an instance is."""
    if path.exists():
        return
    # The tool comes with the pycdlib package; beside this Python also where its directory is not in PATH.
    CONF.set_override("mkisofs_cmd", str(Path(sys.executable).parent / "pycdlib-genisoimage"))
    extra = {"admin_pass": admin_password} if admin_password else {}
    metadata = instance_metadata.InstanceMetadata(
        instance, content=injected_files or [], extra_md=extra, network_info=network_info
    )
    part = path.with_suffix(".part")
    with configdrive.ConfigDriveBuilder(instance_md=metadata) as builder:
        builder.make_drive(str(part))
    part.replace(path)
