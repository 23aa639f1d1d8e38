"""Removing the VM: last of all, as there is one for all tests; named so that it runs last."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from stacklab.homes.libvirt.vm import Vm
from stacklab.waiting import looks
from tests.measure import measured
from tests.vm.conftest import quiet
from tests.vm.test_vm import virsh


def everything() -> str:
    """What libvirt has: VMs, networks, and the interfaces of both."""
    links = subprocess.run(["ip", "-br", "link"], check=True, capture_output=True, text=True).stdout
    return virsh("list", "--all", "--name") + virsh("net-list", "--all", "--name") + links


def processes(word: str) -> list[str]:
    return subprocess.run(["pgrep", "-af", "--", word], capture_output=True, text=True, check=False).stdout.splitlines()


def left(word: str, seconds: float = 30) -> list[str]:
    """Those that are there still after so long: what was just killed needs a moment to go."""
    for found in looks(lambda: processes(word), seconds, 0.2):
        if not found:
            break
    return found


def test_the_boxes_image_stays_while_another_vm_is_made_from_it(vm: Vm) -> None:
    assert vm.unused_base(vm.site) == []  # this one is
    there = vm.hypervisor.volumes()
    bases = [volume for volume in there if "_vagrant_box_image_" in volume.name and volume.pool == vm.site.pool]
    assert len(bases) == 1, (vm.site.pool, there)
    base = bases[0]
    virsh("vol-create-as", base.pool, "another", "6G", "--format", "qcow2",
          "--backing-vol", base.name, "--backing-vol-format", "qcow2")  # fmt: skip
    used = [volume.path for volume in vm.hypervisor.volumes() if volume.backing == base.path]
    assert len(used) == 2
    virsh("vol-delete", "another", "--pool", base.pool)


def test_without_vagrants_notes_the_vm_still_works(vm: Vm) -> None:
    shutil.rmtree(vm.directory / ".vagrant")
    fresh = Vm(vm.lab, vm.profile, vm.settings, vm.plan)
    fresh.machine().run("true")
    assert fresh.stages()[2].already() == f"runs at {vm.address}"


def test_destroy_leaves_nothing_and_says_what_went(vm: Vm) -> None:
    site, pool = vm.site, Path(virsh("pool-dumpxml", vm.site.pool).partition("<path>")[2].partition("</path>")[0])
    assert processes(site.name)
    with measured("destroy"):
        gone = list(vm.destroy(quiet))
    told = "\n".join(gone)
    for what in (
        site.domain,
        "snapshots",
        f"the network {site.name}",
        site.nat_name,
        f"{site.domain}.img",
        "box_image",
    ):
        assert what in told, told
    assert site.name not in everything()
    assert list(pool.iterdir()) == []
    assert left(site.name) == []
    assert not vm.directory.exists()
    assert vm.vagrant.box(site.box, site.version)  # what Vagrant fetched stays
    assert not list(Path("/var/lib/libvirt/qemu").glob(f"**/{site.name}*"))
    assert list(vm.destroy(quiet)) == []
    assert vm.state() is None
