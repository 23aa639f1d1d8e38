"""The config drive: how an instance learns its name, key pair and user data; there is no metadata service here.

Written with the pycdlib library. Nova's own way calls mkisofs, which needs a package of the distribution; the command
of that kind that comes with pycdlib does not start in a relocatable environment.
"""

import io
from pathlib import PurePosixPath

import pycdlib
from nova.api.metadata import base as instance_metadata


def make(instance, injected_files, admin_password, network_info, path):
    """Write the ISO image at `path`, unless it is there: a reboot does not change what an instance is."""
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
