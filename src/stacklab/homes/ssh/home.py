"""The home `ssh`: DevStack on a machine that the learner made, on Hyper-V, in a data centre, wherever SSH leads."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import ClassVar

from stacklab.deploy.prepare.ownership import looks_used
from stacklab.deploy.profile.load import load_profile, profile_names
from stacklab.deploy.profile.model import Profile
from stacklab.errors import HomeUnavailable, MachineInUse, NotServed
from stacklab.homes.devstack import DevstackHome
from stacklab.lab import Lab, MachineRecord
from stacklab.machines.address import Address
from stacklab.machines.base import Machine
from stacklab.machines.ssh import SshMachine
from stacklab.prefetch import serving
from stacklab.stages import Progress, Stage

WHOSE = "the machine is yours: lab neither starts, stops nor saves it"


class SshHome(DevstackHome):
    """See `stacklab.homes.base.Home`. What was seen of the machine is in lab.json, under `machine`."""

    name: ClassVar[str] = "ssh"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._known_hosts = lab.home_directory / "known_hosts"

    @cached_property
    def _machine(self) -> SshMachine:
        if not self.plan.address:
            raise HomeUnavailable(
                f"lab '{self.lab.name}' names no machine", advice="lab up SESSION --on ssh://user@host"
            )
        return SshMachine(Address.parse(self.plan.address), known_hosts=self._known_hosts, say=self.notes.append)

    def machine(self) -> SshMachine:
        return self._machine

    @property
    def _seen(self) -> MachineRecord:
        if self.lab.record.machine is None:
            raise HomeUnavailable(f"lab '{self.lab.name}' has not looked at its machine yet", advice="lab up does")
        return self.lab.record.machine

    @cached_property
    def profile(self) -> Profile:
        return load_profile(self.plan.profile or self._seen.profile)

    def host_ip(self) -> str:
        return self._seen.host_ip

    # --- up --------------------------------------------------------------------------------------------------------

    def machine_stages(self) -> Iterable[Stage]:
        yield Stage("login", "a machine to work on", lambda: None, self._look, 3)

    def _look(self, progress: Progress) -> str:
        """Every time: it may have been made anew, or have got another address."""
        machine = self.machine()
        progress(f"logging in to {machine.name}")
        machine.run("true", user="root", seconds=60)  # raises LoginRefused, SudoRefused, HostKeyChanged…
        profile = fitting_profile(machine, self.plan.profile)
        if not self.plan.used and (evidence := looks_used(machine, self.lab, profile.devstack.directory)):
            raise MachineInUse(
                f"{machine.name} looks used: {'; '.join(evidence)}",
                advice="DevStack changes a machine for good: give it one of its own, or add --even-if-used",
            )
        address = self._own_address(machine)
        self.lab.update(machine=MachineRecord(profile=profile.name, host_ip=address, distribution=profile.distribution))
        self.__dict__.pop("profile", None)
        return f"{machine.name}, {profile.distribution}, address {address}, profile {profile.name}"

    def _own_address(self, machine: SshMachine) -> str:
        """The address of its own at which our connection arrived; from the machine itself, that of its default route."""
        # from address, port, to address, port
        connection = machine.run("sh", "-c", 'echo "$SSH_CONNECTION"').out.split()
        if len(connection) == 4 and not connection[2].startswith("127.") and ":" not in connection[2]:
            return connection[2]
        # an address of TEST-NET-1 asks for the default route
        route = machine.run("ip", "-4", "route", "get", "192.0.2.1", check=False).out
        source = re.search(r" src (\S+)", route)
        if not source:
            raise HomeUnavailable(
                f"{machine.name} has no IPv4 address that its cloud could answer at", advice="give it a static address"
            )
        return source.group(1)

    # --- looking ---------------------------------------------------------------------------------------------------

    def machine_state(self) -> tuple[str, str]:
        if self.lab.record.machine is None:
            return "absent", "no stage of lab up has seen the machine yet"
        return "running", f"machine {self.plan.address}"

    # --- down ------------------------------------------------------------------------------------------------------

    def down(self, progress: Progress) -> None:
        raise HomeUnavailable(f"nothing was stopped: {WHOSE}", advice="shut it down yourself; afterwards: lab recover")

    def destroy(self, progress: Progress) -> Iterator[str]:
        serving.stop(self.lab)
        if self.lab.home_directory.exists():
            shutil.rmtree(self.lab.home_directory)
            yield f"{self.lab.home_directory} (logins, host key, logs); the machine itself and the OpenStack on it stay"
            yield "the lab's copy of the cloud's passwords; the machine keeps them in DevStack's local.conf"


def release_of(text: bytes) -> str:
    """ID and VERSION_ID of /etc/os-release, the version as far as profiles name it: "rocky 9" of 9.4."""
    values = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)"?$', text.decode(errors="replace"), re.MULTILINE))
    return f"{values.get('ID', 'unknown')} {values.get('VERSION_ID', '').split('.')[0]}".strip()


def profile_for_release(release: str) -> str:
    """The name of the first profile for a distribution. Raises NotServed."""
    for name in profile_names():
        if load_profile(name).distribution == release:
            return name
    raise NotServed(f"no profile is for {release}", advice="lab profiles lists what there is for which distribution")


def fitting_profile(machine: Machine, name: str | None) -> Profile:
    """The profile of this name, else the first one for what the machine runs. Raises NotServed, UnknownName."""
    release = release_of(machine.read("/etc/os-release") or b"")
    profile = load_profile(name or profile_for_release(release))
    if profile.distribution != release:
        raise NotServed(
            f"profile '{profile.name}' is for {profile.distribution}, and {machine.name} runs {release}",
            advice="lab profiles lists what there is for which distribution",
        )
    return profile
