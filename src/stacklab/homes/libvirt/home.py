"""The home `libvirt`, the course's own way: a VM that Vagrant makes on libvirt, and DevStack in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from stacklab.deploy.profile.load import load_profile
from stacklab.deploy.profile.model import Profile
from stacklab.errors import CheckpointMissing, HomeUnavailable, MissingProgram, ProfileInvalid, UnknownName, VmFailed
from stacklab.homes.base import START, HomeCheckpoints
from stacklab.homes.devstack import DevstackHome
from stacklab.homes.libvirt import disk
from stacklab.homes.libvirt.vm import Vm
from stacklab.lab import Lab
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

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.checkpoints: LibvirtCheckpoints = LibvirtCheckpoints(self)

    @cached_property
    def profile(self) -> Profile:
        return load_profile(self.plan.profile or DEFAULT_PROFILE)

    @cached_property
    def vm(self) -> Vm:
        """The VM under the cloud. Raises MissingProgram without libvirt's Python binding."""
        return Vm(self.lab, self.profile, self.settings, self.plan)

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
        saved = self.checkpoints
        yield Stage("checkpoint", "a checkpoint to come back to", saved.already, saved.begin, 5)

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

    # --- down ------------------------------------------------------------------------------------------------------

    def down(self, progress: Progress) -> None:
        serving.stop(self.lab)
        progress(self.vm.down(progress))

    def destroy(self, progress: Progress) -> Iterator[str]:
        serving.stop(self.lab)
        try:
            vm = self.vm
        except (UnknownName, ProfileInvalid):  # what is to be removed does not depend on the profile
            vm = Vm(self.lab, load_profile(DEFAULT_PROFILE), self.settings, self.plan)
        yield from vm.destroy(progress)


class LibvirtCheckpoints(HomeCheckpoints):
    """The VM's, and which of them a session starts with."""

    saves: ClassVar[bool] = True

    def __init__(self, home: LibvirtHome) -> None:
        self._home, self._lab = home, home.lab

    def _session(self) -> str:
        return self._lab.record.session or ""

    def already(self) -> str | None:
        """Of the cloud as it was made, and of each session's start: what is in it then is what the learner begins with."""
        names = self.names()
        if STACKED not in names:
            return None
        begun = self._lab.record.start_of
        if begun != self._session() or (begun != self._lab.record.stacked_for and START not in names):
            return None
        return f"'{START if START in names else STACKED}' is saved"

    def begin(self, progress: Progress) -> str:
        """Save the cloud as DevStack made it, else as this session starts; says under which name."""
        name = START if STACKED in self.names() else STACKED
        # Until the new one is whole, the old one is nobody's start: what the journal says of it is replaced before.
        self._lab.update(start_of=None)
        Records(self._lab).keep(name)
        self.save(name, progress)
        self._lab.update(start_of=self._session(), **({"stacked_for": self._session()} if name == STACKED else {}))
        return f"saved as '{name}', memory and disk"

    def save(self, name: str, progress: Progress) -> None:
        replace_tree(self._lab.home_directory / "https", self._https_saved(name))
        self._home.vm.checkpoints.save(name, progress)

    def names(self) -> list[str]:
        return self._home.vm.checkpoints.names()

    def verify(self, name: str) -> None:
        self._saved_as(name)

    def _saved_as(self, name: str) -> str:
        names = self.names()
        chosen = STACKED if name == START and START not in names else name
        if chosen not in names:
            raise CheckpointMissing(
                f"there is no checkpoint '{name}'", advice="lab up makes one when the cloud is usable"
            )
        return chosen

    def start(self) -> str:
        """What `lab up` saved for this session; of any other one, the cloud as it was made is the start from now on."""
        names = self.names()
        if START in names and self._lab.record.start_of == self._session():
            return START
        if STACKED in names:
            self._lab.update(start_of=self._session(), stacked_for=self._session())
            self.drop(START, lambda detail: None)
        return STACKED

    def drop(self, name: str, progress: Progress) -> None:
        self._home.vm.checkpoints.drop(name, progress)
        shutil.rmtree(self._https_saved(name), ignore_errors=True)

    def _https_saved(self, name: str) -> Path:
        """What of TLS lies on this machine and belongs to the VM's cloud: authority, certificate, notes."""
        return self._lab.home_directory / "https-saved" / name

    def restore(self, name: str, progress: Progress) -> None:
        chosen = self._saved_as(name)
        self._home.vm.checkpoints.restore(chosen, progress)
        replace_tree(self._https_saved(chosen), self._lab.home_directory / "https")
        self._home.rewrite_access()
        self._home.prove(progress)


def replace_tree(source: Path, target: Path) -> None:
    """`target` becomes a copy of the directory `source`: nothing, where that is not there."""
    shutil.rmtree(target, ignore_errors=True)
    if source.is_dir():
        target.parent.mkdir(exist_ok=True, mode=0o700)
        shutil.copytree(source, target)
