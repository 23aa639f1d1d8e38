"""Removing a VM: Vagrant first, as it made it, then whatever is left, through libvirt. Yields each thing that went."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from stacklab.errors import MissingProgram, VmFailed
from stacklab.homes.libvirt.hypervisor import Hypervisor, PoolVolume
from stacklab.homes.libvirt.site import VmSite
from stacklab.homes.libvirt.vagrant import Vagrant
from stacklab.stages import Progress


def remove_all(hypervisor: Hypervisor, vagrant: Vagrant, site: VmSite, progress: Progress) -> Iterator[str]:
    """The VM, its networks, and its box's image in the pool unless another VM is made from that."""
    yield from remove_vm(hypervisor, vagrant, site, progress)
    for name in site.network_xml():
        if hypervisor.remove_network(name):
            yield f"the network {name}"
    for volume in unused_base(hypervisor, site):
        hypervisor.remove_volume(volume)
        yield f"{volume.path} (the box's image, which no other VM uses; the box itself stays with Vagrant)"


def remove_vm(hypervisor: Hypervisor, vagrant: Vagrant, site: VmSite, progress: Progress) -> Iterator[str]:
    """The VM with its snapshots, saved memory and volumes."""
    there = hypervisor.state(site.domain) is not None
    snapshots = len(hypervisor.snapshots(site.domain)) if there else 0
    saved = hypervisor.state(site.domain) == "saved"
    volumes = own_volumes(hypervisor, site)
    if (vagrant.data / "id").exists() and (vagrant.directory / "Vagrantfile").exists():
        try:
            vagrant.destroy(progress)
        except (VmFailed, MissingProgram) as error:
            progress(f"without Vagrant, then: {error.message}")
    if hypervisor.state(site.domain) is not None:
        hypervisor.cut_power(site.domain)
        hypervisor.undefine(site.domain)
    if there:
        detail = [f"{snapshots} snapshots"] if snapshots else []
        detail += ["its saved memory"] if saved else []
        yield f"the VM {site.domain}" + (f" ({', '.join(detail)})" if detail else "")
    left = {volume.path for volume in own_volumes(hypervisor, site)}
    for volume in volumes:
        if volume.path in left:
            hypervisor.remove_volume(volume)
        yield volume.path


def remove_files(directory: Path) -> Iterator[str]:
    """The lab's home directory: the console, the pinned host key, the VM's key, Vagrant's notes and log."""
    if directory.is_dir():
        shutil.rmtree(directory)
        yield f"{directory} (the VM's console, key and pinned host key)"


def own_volumes(hypervisor: Hypervisor, site: VmSite) -> list[PoolVolume]:
    """The VM's disks, also those of a VM that is gone itself."""
    # Vagrant calls them <domain>.img, <domain>_1.img, …
    names = (f"{site.domain}.img", f"{site.domain}_")
    return [volume for volume in hypervisor.volumes() if volume.name.startswith(names)]


def unused_base(hypervisor: Hypervisor, site: VmSite) -> list[PoolVolume]:
    """The images of the site's box that vagrant-libvirt put into the pool, if nothing is an overlay on them."""
    if not site.box:
        return []
    begin = f"{site.box.replace('/', '-VAGRANTSLASH-')}_vagrant_box_image_{site.version}_"
    volumes = hypervisor.volumes()
    used = {volume.backing for volume in volumes} | hypervisor.disks_of_all()
    return [volume for volume in volumes if volume.name.startswith(begin) and volume.path not in used]
