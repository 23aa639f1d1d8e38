"""The home `libvirt`, the course's own way: a VM that Vagrant makes on libvirt, and DevStack in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import ClassVar

from stacklab.deploy.profile.load import load_profile
from stacklab.deploy.profile.model import Profile
from stacklab.errors import (
    CheckpointMissing,
    HomeUnavailable,
    MissingProgram,
    ProfileInvalid,
    UnknownName,
    VmFailed,
)
from stacklab.homes.base import START
from stacklab.homes.devstack import DevstackHome
from stacklab.homes.libvirt import disk
from stacklab.homes.libvirt.vm import Vm, Wishes
from stacklab.https import kept
from stacklab.machines.ssh import SshMachine
from stacklab.prefetch import serving
from stacklab.records import Records
from stacklab.stages import Progress, Stage

DEFAULT_PROFILE = "centos7-pike"
STACKED = "stacked"
"""The checkpoint of the cloud as DevStack and the fixes left it; until another session begins, it is its start, too."""


class LibvirtHome(DevstackHome):
    """See `stacklab.homes.base.Home`."""

    name: ClassVar[str] = "libvirt"

    @cached_property
    def profile(self) -> Profile:
        return load_profile(self.plan.profile or DEFAULT_PROFILE)

    @cached_property
    def vm(self) -> Vm:
        """The VM under the cloud. Raises MissingProgram without libvirt's Python binding."""
        plan = self.plan
        return Vm(self.lab, self.profile, self.settings, Wishes(plan.cpus, plan.memory, plan.disk, plan.box))

    def machine(self) -> SshMachine:
        return self.vm.machine()

    def host_ip(self) -> str:
        return self.vm.address

    # --- up --------------------------------------------------------------------------------------------------------

    def machine_stages(self) -> Iterable[Stage]:
        yield from self.vm.stages()
        machine = self.machine()
        yield Stage(
            "disk", "the whole of the VM's disk", lambda: disk.already(machine), lambda p: disk.grow(machine, p), 5
        )

    def checkpoint_stages(self) -> Iterable[Stage]:
        yield Stage("checkpoint", "a checkpoint to come back to", self._has_checkpoint, self._save, 5)

    def _session(self) -> str:
        return self.lab.record.session or ""

    def _has_checkpoint(self) -> str | None:
        """Of the cloud as it was made, and of each session's start: what is in it then is what the learner begins with."""
        names = self.vm.checkpoints.names()
        if STACKED not in names:
            return None
        begun = self.lab.record.start_of
        if begun != self._session() or (begun != self.lab.record.stacked_for and START not in names):
            return None
        return f"'{START if START in names else STACKED}' is saved"

    def _save(self, progress: Progress) -> str:
        name = START if STACKED in self.vm.checkpoints.names() else STACKED
        # Until the new one is whole, the old one is nobody's start: what the journal says of it is replaced before.
        self.lab.update(start_of=None)
        Records(self.lab).keep(name)
        kept.keep(self.lab.home_directory, name)
        self.vm.checkpoints.save(name, progress)
        self.lab.update(start_of=self._session(), **({"stacked_for": self._session()} if name == STACKED else {}))
        return f"saved as '{name}', memory and disk"

    # --- looking ---------------------------------------------------------------------------------------------------

    def machine_state(self) -> tuple[str, str]:
        try:
            state = self.vm.state()
        except (HomeUnavailable, MissingProgram, VmFailed) as error:
            return "unknown", error.message
        if state is None:
            return "absent", "there is no VM"
        notes = {
            "saved": "the VM's memory is on disk; lab up goes on where it was",
            "running": f"VM at {self.vm.address}",
        }
        return "running" if state == "running" else "stopped", notes.get(state, f"the VM is {state}")

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def checkpoint(self, name: str, progress: Progress) -> None:
        kept.keep(self.lab.home_directory, name)
        self.vm.checkpoints.save(name, progress)

    def checkpoints(self) -> list[str]:
        return self.vm.checkpoints.names()

    def verify(self, name: str) -> None:
        self._saved_as(name)

    def _saved_as(self, name: str) -> str:
        names = self.vm.checkpoints.names()
        chosen = STACKED if name == START and START not in names else name
        if chosen not in names:
            raise CheckpointMissing(
                f"there is no checkpoint '{name}'", advice="lab up makes one when the cloud is usable"
            )
        return chosen

    def begin(self) -> str:
        """What `lab up` saved for this session; of any other one, the cloud as it was made is the start from now on."""
        names = self.vm.checkpoints.names()
        if START in names and self.lab.record.start_of == self._session():
            return START
        if STACKED in names:
            self.lab.update(start_of=self._session(), stacked_for=self._session())
            self.drop(START, lambda detail: None)
        return STACKED

    def drop(self, name: str, progress: Progress) -> None:
        self.vm.checkpoints.drop(name, progress)
        kept.drop(self.lab.home_directory, name)

    def restore(self, name: str, progress: Progress) -> None:
        chosen = self._saved_as(name)
        self.vm.checkpoints.restore(chosen, progress)
        kept.put_back(self.lab.home_directory, chosen)
        self._rewrite_access()
        self.prove(progress)

    # --- down ------------------------------------------------------------------------------------------------------

    def down(self, progress: Progress) -> None:
        serving.stop(self.lab)
        progress(self.vm.down(progress))

    def destroy(self, progress: Progress) -> Iterator[str]:
        serving.stop(self.lab)
        try:
            vm = self.vm
        except (UnknownName, ProfileInvalid):  # what is to be removed does not depend on the profile
            vm = Vm(self.lab, load_profile(DEFAULT_PROFILE), self.settings)
        yield from vm.destroy(progress)
