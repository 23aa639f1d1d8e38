"""Saved states of a VM: live internal snapshots, memory and disk, inside its own qcow2 file.

Internal ones, because libvirt 9 cannot go back to an external one. Which snapshot is a checkpoint's present one stands in
checkpoints.json, so that a name changes hands in one step, when the new snapshot is proved whole; any other snapshot of
ours is what an interrupted run left, and goes.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from stacklab.errors import CheckpointMissing, LabError, NotEnoughSpace, NotRunning, UnknownName, VmFailed
from stacklab.files import read_json, write_json
from stacklab.homes.libvirt.hypervisor import Hypervisor
from stacklab.lab import Lab
from stacklab.stages import Progress

OURS = "lab."
SPARE = 256 << 20
"""Bytes that stay free in the pool: QEMU pauses a guest whose disk cannot grow."""


class Checkpoints:
    """The checkpoints of one VM. `settle` is called after going back: wait for the VM and set its clock."""

    def __init__(self, lab: Lab, hypervisor: Hypervisor, settle: Callable[[Progress], None]) -> None:
        self._hypervisor = hypervisor
        self._settle = settle
        self._names = lab.home_directory / "checkpoints.json"
        self._unfinished = lab.home_directory / "restoring.json"

    @property
    def unfinished(self) -> str | None:
        """The checkpoint that an interrupted restore was going back to."""
        told = read_json(self._unfinished)
        return str(told["name"]) if told else None

    def names(self, domain: str) -> list[str]:
        """Names that `restore` can go back to."""
        return sorted(self._present(domain))

    def save(self, domain: str, pool: str, name: str, progress: Progress) -> None:
        """Save the running VM; an earlier checkpoint of this name goes only when the new one is proved whole.

        Raises NotRunning, NotEnoughSpace (before anything is written, if that can be foreseen), VmFailed.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", name):
            raise UnknownName(f"'{name}' cannot be a checkpoint's name", advice="use letters, digits, '.', '_' and '-'")
        if self._hypervisor.state(domain) != "running":
            raise NotRunning("only a running VM has a state worth coming back to", advice="lab up starts it")
        self.tidy(domain)
        self._check_space(domain, pool)
        snapshot = f"{OURS}{name}.{secrets.token_hex(4)}"
        progress("saving memory and disk")
        try:
            self._hypervisor.take_snapshot(domain, snapshot, f"checkpoint '{name}' of lab")
            progress("looking whether it is whole")
            self._verify(domain, snapshot)
        except LabError:
            self._drop(domain, snapshot)
            raise
        write_json(self._names, {**self._present(domain), name: snapshot})
        self.tidy(domain)

    def restore(self, domain: str, name: str, progress: Progress) -> None:
        """Memory and disk as they were: what ran then, runs on. A VM that is off is started by it. Raises CheckpointMissing."""
        present = self._present(domain)
        if name not in present:
            raise CheckpointMissing(
                f"there is no checkpoint '{name}'", advice=f"there are: {', '.join(sorted(present)) or 'none'}"
            )
        write_json(self._unfinished, {"name": name})
        if self._hypervisor.state(domain) == "saved":
            # Else libvirt would start from that memory, on a disk that is another one by then.
            self._hypervisor.forget_saved(domain)
        progress("memory and disk go back")
        self._hypervisor.revert(domain, present[name])
        if self._hypervisor.state(domain) == "paused":
            self._hypervisor.resume(domain)
        self._settle(progress)
        self._unfinished.unlink(missing_ok=True)

    def drop(self, domain: str, name: str) -> None:
        """Forget a checkpoint, then remove its snapshot."""
        present = self._present(domain)
        if present.pop(name, None) is not None:
            write_json(self._names, present)
            self.tidy(domain)

    def tidy(self, domain: str) -> None:
        """Remove what interrupted runs left."""
        keep = set(self._present(domain).values())
        for one in self._hypervisor.snapshots(domain):
            if one.name.startswith(OURS) and one.name not in keep:
                self._drop(domain, one.name)

    def forget(self) -> None:
        """The VM is gone, and its snapshots with it."""
        self._names.unlink(missing_ok=True)
        self._unfinished.unlink(missing_ok=True)

    def _present(self, domain: str) -> dict[str, str]:
        """Checkpoint → snapshot, of those that are really there."""
        known: dict[str, str] = read_json(self._names) or {}
        if not known or self._hypervisor.state(domain) is None:
            return {}
        there = {one.name for one in self._hypervisor.snapshots(domain)}
        return {name: snapshot for name, snapshot in known.items() if snapshot in there}

    def _check_space(self, domain: str, pool: str) -> None:
        needed = self._hypervisor.memory_used(domain)
        seen = self._hypervisor.pool(pool, start=True)
        free = seen.free if seen else None
        if free is not None and needed + SPARE > free:
            raise NotEnoughSpace(
                f"a checkpoint may need {(needed + SPARE) / 1e6:.0f} MB in the storage pool '{pool}'; it has {free / 1e6:.0f}",
                advice="free some space there (virsh pool-dumpxml shows where it is) and run the same command again",
            )

    def _verify(self, domain: str, snapshot: str) -> None:
        """libvirt lists it as the state of a running VM with its memory, QEMU finds that memory on disk, and the VM runs on."""
        listed = next((one for one in self._hypervisor.snapshots(domain) if one.name == snapshot), None)
        state = self._hypervisor.state(domain)
        if listed is None or not listed.memory or listed.state != "running":
            raise VmFailed(f"libvirt does not list the new snapshot as a running VM's: {listed}", advice="try again")
        if state != "running":
            raise VmFailed(f"the VM did not survive being saved: it is {state}", advice="lab up starts it")
        if not self._hypervisor.saved_in_disks(domain).get(snapshot):
            raise VmFailed("QEMU finds no memory in the new snapshot", advice="try again")

    def _drop(self, domain: str, snapshot: str) -> None:
        """Remove a snapshot, or what there is of it."""
        if any(one.name == snapshot for one in self._hypervisor.snapshots(domain)):
            self._hypervisor.drop_snapshot(domain, snapshot)
