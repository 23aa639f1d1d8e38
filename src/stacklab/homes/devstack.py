"""A home whose cloud DevStack (or PackStack) makes on a machine: what `libvirt` (a VM of ours) and `ssh` (a learner's) share.

A subclass provides the machine and what can be done with it as a whole; everything about the OpenStack on it is here.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator

from stacklab.cloud.access import LEARNER, Ability, CloudAccess, ServiceState, SshEndpoint
from stacklab.cloud.connection import Connection, floating_ip
from stacklab.cloud.direct import past_the_proxy
from stacklab.conditions import catalogue, ready
from stacklab.conditions.certificate import ExpiredCertificate
from stacklab.conditions.condition import Fault
from stacklab.conditions.machine import Target
from stacklab.conditions.quota import QuotaExhausted
from stacklab.conditions.services import find_unit, unit_names, units
from stacklab.conditions.systemd import JournalLog, Unit
from stacklab.deploy import packstack
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.localconf import render as localconf
from stacklab.deploy.prepare import preparation, source
from stacklab.deploy.profile.load import load_settings, profile_for
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.stack import stacking
from stacklab.deploy.stack.detached import called, require_stacked, unfinished
from stacklab.errors import CloudRefused, LabError, NotRunning
from stacklab.files import write_atomic
from stacklab.homes.base import Home, HomeCheckpoints, HomeStatus
from stacklab.homes.plan import Plan
from stacklab.homes.prefetched import Prefetched
from stacklab.https import logins
from stacklab.https.apache import Apache
from stacklab.https.configuration import DevStackConfiguration
from stacklab.https.server import Https
from stacklab.lab import Lab
from stacklab.machines.site import Site
from stacklab.machines.ssh import SshMachine
from stacklab.stages import Progress, Stage

SCRATCH = "/var/tmp/stacklab"  # noqa: S108 - of the lab's machine, where nobody else works


class DevstackHome(Home):
    """See `stacklab.homes.base.Home`."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.checkpoints = HomeCheckpoints()
        self.plan = Plan.of(lab)
        self.settings = load_settings()
        self.clouds_file = lab.home_directory / "clouds.yaml"
        self.notes: list[str] = []
        self._fitted: Profile | None = None

    # --- what the machine is ---------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def profile(self) -> Profile:
        """How the cloud is made."""

    @abstractmethod
    def machine(self) -> SshMachine:
        """The machine, not necessarily connected yet. Raises NotRunning if there is none."""

    @abstractmethod
    def host_ip(self) -> str:
        """The machine's static address, which the cloud's endpoints carry."""

    @abstractmethod
    def machine_stages(self) -> Iterable[Stage]:
        """From nothing to a machine that lets us in."""

    def checkpoint_stages(self) -> Iterable[Stage]:
        """What saves the finished cloud, if this home can."""
        return ()

    @abstractmethod
    def machine_state(self) -> tuple[str, str]:
        """absent, stopped, running or unknown, and a note on it. Never waits for long."""

    # --- up --------------------------------------------------------------------------------------------------------

    def stages(self) -> Iterator[Stage]:
        yield from self.machine_stages()
        own = self.deployment()
        # Prefetched things and fixes are DevStack's: PackStack installs packages, and leaves nothing that a reboot would take.
        yield from packstack.stages(own) if own.profile.deployed_by == "packstack" else self._by_devstack(own)
        yield Stage("access", "logins for the cloud", self._has_access, self._write_access, 1)
        yield Stage("ready", "the cloud is usable", lambda: None, self.prove, 20)
        yield from self.checkpoint_stages()

    def _by_devstack(self, own: Deployment) -> Iterator[Stage]:
        prefetched = Prefetched(own, self.machine())
        yield prefetched.before()
        served = prefetched.deployment()
        yield from preparation.stages(served)
        yield prefetched.git()
        for part in (source, localconf, stacking):
            yield from part.stages(own)
        if served is not own:
            yield from prefetched.after()
        yield from catalogue.stages(own)

    def deployment(self) -> Deployment:
        machine = self.machine()
        if self._fitted is None:  # asks the machine, so only once
            self._fitted = profile_for(machine, self.profile, self.settings)
        return Deployment(
            lab=self.lab, profile=self._fitted, machine=machine, host_ip=self.host_ip(), settings=self.settings,
            services=self._services(), permissive=self.plan.selinux != "module",
        )  # fmt: skip

    def _services(self) -> tuple[str, ...]:
        """What the session needs, then what `--with` asked for."""
        return tuple(dict.fromkeys([*self.lab.record.services, *self.plan.services]))

    def _clouds(self) -> str:
        past_the_proxy(self.host_ip())
        passwords = {name: self.lab.secret(name) for name in ("admin", "learner")}
        return logins.clouds_text(self._identity(), passwords, self.lab.home_directory / "https")

    def _identity(self) -> str:
        return f"http://{self.host_ip()}{self.profile.cloud.identity}"

    def _has_access(self) -> str | None:
        there = self.clouds_file.exists() and self.clouds_file.read_text(encoding="utf-8") == self._clouds()
        return f"in {self.clouds_file}" if there else None

    def _write_access(self, progress: Progress) -> str:
        self.rewrite_access()
        return f"in {self.clouds_file}"

    def rewrite_access(self) -> None:
        """Whatever is there: the cloud's addresses may have become others."""
        self.lab.update(service_project=self.profile.cloud.service_project)
        write_atomic(self.clouds_file, self._clouds(), mode=0o600)

    def dashboard(self) -> str:
        """Horizon's address."""
        return f"http://{self.host_ip()}{self.profile.cloud.dashboard}"

    def admin(self) -> Connection:
        """The cloud's administrator."""
        return Connection(self.clouds_file, logins.ADMIN)

    def prove(self, progress: Progress) -> str:
        """Raises ServiceFailed unless the cloud is usable."""
        return ready.prove(self.admin(), self.dashboard(), progress)

    # --- looking ---------------------------------------------------------------------------------------------------

    def status(self) -> HomeStatus:
        state, note = self.machine_state()
        notes = [note] if note else []
        if state != "running":
            return HomeStatus(state if state in ("absent", "stopped") else "degraded", notes=notes)
        try:
            machine = self.machine()
            left = unfinished(machine, self.profile.program)
            running = units(machine, self.profile) if left is None or left.begun else {}
        except LabError as error:
            return HomeStatus("degraded", notes=[*notes, error.message])
        # What is not there yet is no fault of a service's.
        services = [_service(name, unit) for name, unit in running.items() if unit.there or not left]
        if left:
            return HomeStatus("degraded", services, notes=[f"{left.said}; {left.todo}", *notes])
        if not self.clouds_file.exists():
            notes.insert(
                0,
                f"{called(self.profile.program)} ended well, but the lab has no logins for the cloud yet; lab up goes on",
            )
        well = all(service.state == "running" for service in services) and self.clouds_file.exists()
        return HomeStatus("running" if well else "degraded", services, self.dashboard(), notes)

    def access(self) -> CloudAccess:
        state, note = self.machine_state()
        if state in ("absent", "stopped") or not self.clouds_file.exists():
            raise NotRunning(
                f"the cloud of lab '{self.lab.name}' is not running" + (f": {note}" if note else ""), advice="lab up"
            )
        past_the_proxy(self.host_ip())
        return CloudAccess(
            clouds_file=self.clouds_file, admin=logins.ADMIN, learner=logins.LEARNERS, hypervisor=Ability(True),
            data_path=Ability(True, "by way of the lab's machine"), ssh_endpoint=self._ssh_endpoint,
            dashboard=self.dashboard(),
        )  # fmt: skip

    def site(self) -> Site:
        known = self.profile.units
        names = {"apache": known.apache, "database": known.database, "queue": known.queue}
        return Site(
            self.machine(), SCRATCH, self.profile.deployed_by, names=names, profile=self.profile.name,
            services=self._services(), address=self.host_ip(),
        )  # fmt: skip

    def https(self) -> Https:
        profile = self.profile
        apache = Apache(self.machine(), profile.family, profile.units.apache, self.host_ip(), self._identity())
        services = DevStackConfiguration(apache, profile.units.devstack)
        directory = self.lab.home_directory / "https"
        return Https(directory, self.lab.name, apache, services, self.dashboard, self.rewrite_access)

    def faults(self) -> dict[str, Fault]:
        kept = self.lab.home_directory / "quota.json"
        quota = QuotaExhausted(self.admin, LEARNER["learner_project"], kept)
        expired = ExpiredCertificate(self.https)
        return {**catalogue.faults(Target(self.deployment, self.admin)), quota.id: quota, expired.id: expired}

    def _ssh_endpoint(self, server: str) -> SshEndpoint | None:
        """To the floating IP, which only the machine itself can reach."""
        try:
            address = floating_ip(self.admin(), server)
        except CloudRefused:
            return None
        why = f"the instance's floating IP, by way of {self.machine().name}"
        through = ("-o", f"ProxyCommand={self.machine().proxy_command()}")
        return SshEndpoint(address, 22, why, through) if address else None

    def service_names(self) -> list[str]:
        return list(unit_names(self.profile))

    def logs(self, service: str | None) -> dict[str, JournalLog]:
        wanted = dict([find_unit(self.profile, service)] if service else unit_names(self.profile).items())
        machine = self.machine()
        there = {name for name, unit in units(machine, self.profile).items() if unit.there}
        if not there & wanted.keys():
            raise self._without_unit(machine, service)
        return {name: JournalLog(machine, unit) for name, unit in wanted.items() if name in there}

    def _without_unit(self, machine: SshMachine, service: str | None) -> NotRunning:
        what = f"{machine.name} has no unit of the service '{service}'" if service else f"{machine.name} has no service"
        left = unfinished(machine, self.profile.program)
        if left:
            return NotRunning(f"{what}: {left.said}", advice=left.todo)
        return NotRunning(what, advice="lab status shows those that it has")

    def restart(self, service: str, progress: Progress) -> None:
        name, unit = find_unit(self.profile, service)
        machine = self.machine()
        require_stacked(machine, self.profile.program)
        if not units(machine, self.profile)[name].there:
            raise self._without_unit(machine, service)
        progress(f"systemctl restart {unit}")
        machine.run("systemctl", "restart", unit, user="root", seconds=360)
        self.prove(progress)


def _service(name: str, unit: Unit) -> ServiceState:
    """One that is at rest until its socket is called is well, as `lab fixes` says, too."""
    state = "running" if unit.running or unit.resting else "starting" if unit.starting else "stopped"
    reason = (
        "" if unit.running else f"at rest until {' or '.join(unit.triggers)} is called" if unit.resting else unit.said
    )
    since = time.time() - unit.age if unit.running else None
    return ServiceState(name, "failed" if unit.failed else state, unit.pid, since, unit.restarts, reason)
