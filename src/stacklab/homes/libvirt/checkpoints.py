"""Saved states of a VM: live internal snapshots, memory and disk, inside its own qcow2 file.

Internal ones, because libvirt 9 cannot go back to an external one. libvirt's own list of them is all that is known: the
checkpoint NAME is a snapshot `lab.NAME.RANDOM`. Where there are several, the oldest one counts: it goes only when a younger
one is proved whole, and until then that one is what an interrupted run left.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from stacklab.errors import CheckpointMissing, LabError, NotEnoughSpace, NotRunning, UnknownName, VmFailed
from stacklab.stages import Progress

if TYPE_CHECKING:
    from stacklab.homes.libvirt.vm import Vm

OURS = "lab."
SPARE = 256 << 20
"""Bytes that stay free in the pool: QEMU pauses a guest whose disk cannot grow."""


class VmCheckpoints:
    """The checkpoints of one VM."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._hypervisor = vm.hypervisor

    def names(self) -> list[str]:
        """What `restore` can go back to."""
        return sorted(self._snapshots())

    def save(self, name: str, progress: Progress) -> None:
        """Save the running VM; an earlier checkpoint of this name goes only when the new one is proved whole.

        Raises NotRunning, NotEnoughSpace (before anything is written, if that can be foreseen), VmFailed.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", name):
            raise UnknownName(f"'{name}' cannot be a checkpoint's name", advice="use letters, digits, '.', '_' and '-'")
        domain = self._vm.site.domain
        if self._hypervisor.state(domain) != "running":
            raise NotRunning("only a running VM has a state worth coming back to", advice="lab up starts it")
        self.tidy()
        self._check_space(domain)
        earlier = self._snapshots().get(name, [])
        snapshot = f"{OURS}{name}.{secrets.token_hex(4)}"
        progress("saving memory and disk")
        try:
            self._hypervisor.take_snapshot(domain, snapshot, f"checkpoint '{name}' of lab")
            progress("looking whether it is whole")
            self._verify(domain, snapshot)
        except LabError:
            with suppress(CheckpointMissing):
                self._hypervisor.drop_snapshot(domain, snapshot)
            raise
        self._remove(earlier)

    def restore(self, name: str, progress: Progress) -> None:
        """Memory and disk as they were when saved, SSH, and the right time; what ran then runs on. Raises CheckpointMissing.

        Of a VM that is off, too: it then runs. Memory that `down` saved is given up for the checkpoint's.
        """
        vm, domain = self._vm, self._vm.site.domain
        state, snapshots = self._hypervisor.state(domain), self._snapshots()
        if state is None:
            raise NotRunning(f"the VM of lab '{vm.lab.name}' is not there any more", advice="lab up makes it anew")
        if name not in snapshots:
            raise CheckpointMissing(
                f"there is no checkpoint '{name}'", advice=f"there are: {', '.join(sorted(snapshots)) or 'none'}"
            )
        vm.machine().close()
        vm.make_networks()
        if state == "saved":
            # Else libvirt would start from that memory, on a disk that is another one by then.
            self._hypervisor.forget_saved(domain)
        progress("memory and disk go back")
        self._hypervisor.revert(domain, snapshots[name][0])
        if self._hypervisor.state(domain) == "paused":
            self._hypervisor.resume(domain)
        vm.settle(progress)

    def drop(self, name: str, progress: Progress) -> None:
        """Forget a checkpoint, and give its space back; nothing to do where there is none of this name."""
        if snapshots := self._snapshots().get(name):
            progress(f"removing the checkpoint '{name}'")
            self._remove(snapshots)

    def tidy(self) -> None:
        """Remove what interrupted runs left."""
        for snapshots in self._snapshots().values():
            self._remove(snapshots[1:])

    def _snapshots(self) -> dict[str, list[str]]:
        """The snapshots of each checkpoint, oldest first."""
        ours: dict[str, list[str]] = {}
        if self._vm.state() is not None:
            for snapshot in self._hypervisor.snapshots(self._vm.site.domain):
                if snapshot.name.startswith(OURS) and snapshot.whole:
                    ours.setdefault(snapshot.name.removeprefix(OURS).rpartition(".")[0], []).append(snapshot.name)
        return ours

    def _check_space(self, domain: str) -> None:
        needed = self._hypervisor.memory_used(domain) + SPARE
        pool = self._hypervisor.pool(self._vm.site.pool, start=True)
        if pool and pool.free is not None and needed > pool.free:
            raise NotEnoughSpace(
                f"a checkpoint may need {needed / 1e6:.0f} MB in the storage pool '{pool.name}'; it has {pool.free / 1e6:.0f}",
                advice="free some space there (virsh pool-dumpxml shows where it is) and run the same command again",
            )

    def _verify(self, domain: str, snapshot: str) -> None:
        """libvirt lists it as the state of a running VM with its memory, QEMU finds that memory on disk, and the VM runs on."""
        if not any(known.name == snapshot and known.whole for known in self._hypervisor.snapshots(domain)):
            raise VmFailed("libvirt does not list the new snapshot as a running VM's", advice="try again")
        if (state := self._hypervisor.state(domain)) != "running":
            raise VmFailed(f"the VM did not survive being saved: it is {state}", advice="lab up starts it")
        if not self._hypervisor.saved_in_disks(domain).get(snapshot):
            raise VmFailed("QEMU finds no memory in the new snapshot", advice="try again")

    def _remove(self, snapshots: list[str]) -> None:
        for snapshot in snapshots:
            self._hypervisor.drop_snapshot(self._vm.site.domain, snapshot)
