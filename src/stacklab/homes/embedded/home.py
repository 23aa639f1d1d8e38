"""The embedded home: the stages of `lab up` and everything else a home can do, put together from its rooms."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from stacklab.cloud.access import Ability, CloudAccess, SshEndpoint
from stacklab.cloud.connection import Connection, floating_ip
from stacklab.conditions.certificate import ExpiredCertificate
from stacklab.conditions.condition import Fault
from stacklab.errors import (
    CheckpointMissing,
    HomeUnavailable,
    LabDamaged,
    NotRunning,
    ServiceFailed,
    StageFailed,
    UnknownName,
)
from stacklab.files import read_derivable, remove_precious
from stacklab.homes.base import START, Home, HomeCheckpoints, HomeStatus
from stacklab.homes.embedded import config, faults, mirror, ovn, readiness, software, supervision, template
from stacklab.homes.embedded.checkpoints import Checkpoints
from stacklab.homes.embedded.cloud import Cloud
from stacklab.homes.embedded.https import EmbeddedHttps, end_apache
from stacklab.homes.embedded.services import NAMES, urls
from stacklab.https.logins import clouds_text
from stacklab.lab import Lab
from stacklab.logs import FileLog
from stacklab.machines import scratch
from stacklab.machines.local import LocalMachine
from stacklab.machines.site import Site
from stacklab.stages import Progress, Stage

if TYPE_CHECKING:
    from stacklab.deploy.deployment import Deployment

GUEST_PATIENCE = 10  # seconds that `lab down` gives guests to shut down before it cuts their power
SUPERVISOR = "supervisor"  # not a service, but it has a log


class EmbeddedHome(Home):
    """See `stacklab.homes.base.Home`."""

    name: ClassVar[str] = "embedded"

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.cloud = Cloud(lab)
        self.layout = self.cloud.layout
        self.saved = Checkpoints(self.cloud)
        self.checkpoints = EmbeddedCheckpoints(self)
        self._https = EmbeddedHttps(self.layout, lab.name, lambda: self.cloud.ports, self._write_logins)

    # --- up --------------------------------------------------------------------------------------------------------

    def stages(self) -> list[Stage]:
        return [
            Stage("software", f"OpenStack {software.RELEASE}'s software", self._has_software, software.install, 90),
            *self._network_stages(),
            Stage("template", "the first initialisation", self._has_template, template.make, 15),
            Stage("cloud", "this lab's own cloud", self.cloud.why_ready, self.cloud.make, 1),
            Stage(
                "unfinished", "what an interrupted reset left to do", self._nothing_unfinished, self._finish_restore, 2
            ),
            Stage("services", "the services", self._has_services, self._start, 20),
            *self._https_stages(),
            Stage("ready", "the cloud is usable", lambda: None, self.prove, 3),
            Stage("checkpoint", "a checkpoint to come back to", self._has_start, self._save_start, 1),
        ]

    def _has_software(self) -> str | None:
        return f"in {software.path()}" if software.installed() else None

    def _network_stages(self) -> list[Stage]:
        """Only where the network is to be OVN's."""
        if ovn.chosen(self.layout) == "user":
            return []

        def there() -> str | None:
            root = ovn.find_network(self.layout).root
            return f"in {root}" if root and not ovn.why_none_possible() else None

        return [Stage("network", "Open vSwitch and OVN", there, ovn.fetch, 5)]

    def _has_template(self) -> str | None:
        if self.cloud.exists:
            return "this lab's cloud is made already"
        return f"in {template.path()}" if template.made() else None

    def _has_services(self) -> str | None:
        states = supervision.services(self.layout)
        return "all running" if all(state.state == "running" for state in states) else None

    def _start(self, progress: Progress) -> str:
        began = time.monotonic()
        states = supervision.services(self.layout)
        if not any(state.pid for state in states):
            supervision.stop(self.layout, progress)  # what answers no more, or was left by a kill
            self.cloud.check_databases()
            self.cloud.put_back_compute_id()
            supervision.start(self.layout, software.path())
        for state in supervision.services(self.layout):
            if state.state in ("failed", "stopped"):
                supervision.order(self.layout, "restart", service=state.name)
        supervision.wait_until_running(self.layout, progress, time.monotonic() + 180)
        return f"{len(NAMES)} services run after {time.monotonic() - began:.0f} s"

    def _https_stages(self) -> list[Stage]:
        """Only where services are behind TLS (session https-endpoints)."""
        if not self._https.should_run():
            return []
        title, runs = "TLS in front of the services", "Apache runs"
        return [Stage("https", title, lambda: runs if self._https.apache.running() else None, self._https.start, 1)]

    def _write_logins(self) -> None:
        keystone, directory = urls(self.cloud.ports)["keystone"], self.layout.home / "https"
        config.write(self.layout.clouds_file, clouds_text(keystone, self.cloud.passwords(), directory))

    def prove(self, progress: Progress) -> str:
        try:
            readiness.prove(self.layout, self.cloud.ports, progress)
        except ServiceFailed:
            self.cloud.check_databases()
            raise
        return "a token, the catalogue, every service's list, the dashboard's login page"

    def _nothing_unfinished(self) -> str | None:
        return None if self.lab.record.restoring else "nothing"

    def _finish_restore(self, progress: Progress) -> str:
        name = self.lab.record.restoring
        chosen = name if name in self.saved.names() else START
        self.put_back(str(chosen), progress)
        return f"finished going back to '{chosen}'"

    def _has_start(self) -> str | None:
        if START in self.saved.names():
            return f"'{START}' is saved"
        # What is there now may be a learner's work, and no start.
        return "it is gone; lab reset makes it anew" if self.cloud.made.get("start_saved") else None

    def _save_start(self, progress: Progress) -> str:
        self.saved.save(START, progress)
        self.cloud.note(start_saved=True)
        return f"saved as '{START}'"

    # --- looking ---------------------------------------------------------------------------------------------------

    def status(self) -> HomeStatus:
        if not self.cloud.exists:
            return HomeStatus("absent")
        states = supervision.services(self.layout, memory=True)
        if not supervision.is_running(self.layout):
            return HomeStatus("stopped", states, notes=list(self.cloud.notes))
        well = all(state.state == "running" for state in states)
        notes = [
            *self.cloud.notes,
            *(f"{state.name}: {state.reason}" for state in states if state.reason),
            *self._https.notes(),
        ]
        return HomeStatus("running" if well else "degraded", states, self._dashboard(), notes)

    def _dashboard(self) -> str:
        return urls(self.cloud.ports)["horizon"]

    def access(self) -> CloudAccess:
        if not self.cloud.exists or not supervision.is_running(self.layout):
            raise NotRunning(f"the cloud of lab '{self.lab.name}' is not running", advice="lab up")
        hypervisor = config.find_hypervisor()
        why = hypervisor.why_not
        through = "through a port of this machine for each instance; nothing leads to its fixed or floating address"
        path = why or ("by the floating IP, in the cloud's network" if ovn.entering(self.layout) else through)
        return CloudAccess(
            clouds_file=self.layout.clouds_file, admin="lab-admin", learner="lab-learner",
            hypervisor=Ability(hypervisor.there, why), data_path=Ability(hypervisor.there, path),
            ssh_endpoint=self._ssh_endpoint,
            dashboard=self._dashboard(), inside=tuple(ovn.inside(self.layout)),
        )  # fmt: skip

    def _ssh_endpoint(self, server: str) -> SshEndpoint | None:
        if entering := ovn.entering(self.layout):
            admin = Connection(self.layout.clouds_file, "lab-admin")
            address = floating_ip(admin, server)
            return SshEndpoint(address, 22, "the floating IP", ovn.through(entering)) if address else None
        if "/" in server or server in ("", ".", ".."):
            return None
        way = read_derivable(self.layout.instances / server / "way.json")
        if not way:
            return None
        return SshEndpoint(
            way["host"], int(way["port"]), "a port of this machine that QEMU forwards to the instance's SSH"
        )

    def site(self) -> Site:
        why = "the home 'embedded' needs no root and uses none"
        return Site(LocalMachine(), str(self.layout.scratch), "lab", why, {"conf": str(self.layout.conf)})

    def https(self) -> EmbeddedHttps:
        return self._https

    def faults(self) -> dict[str, Fault]:
        expired = ExpiredCertificate(self.https)
        return {**faults.faults(self.cloud), expired.id: expired}

    def service_names(self) -> tuple[str, ...]:
        return (*NAMES, SUPERVISOR)

    def logs(self, service: str | None) -> dict[str, FileLog]:
        names = self.service_names()
        if service is not None and service not in names:
            raise UnknownName(f"there is no service '{service}'", advice=f"one of {', '.join(names)}")
        files = {name: self.layout.logs / f"{name}.log" for name in names if service in (None, name)}
        return {name: FileLog(file) for name, file in files.items() if file.exists() or name == service}

    def restart(self, service: str, progress: Progress) -> None:
        if service not in NAMES:
            raise UnknownName(f"there is no service '{service}'", advice=f"one of {', '.join(NAMES)}")
        supervision.order(self.layout, "restart", service=service)
        supervision.wait_until_running(self.layout, progress, time.monotonic() + 90, names=(service,))
        readiness.prove(self.layout, self.cloud.ports, progress, service=service, seconds=60)

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def put_back(self, name: str, progress: Progress) -> None:
        """While the services run, if they let us: what is broken or does not answer then is stopped, and all put back whole."""
        end_apache(self.layout)  # Apache belongs to the files that are put back, and so do the logins
        running = supervision.is_running(self.layout)
        try:
            done = self.saved.verify(name)
        except CheckpointMissing as error:
            if name != START:
                raise
            progress(f"{error.message}; the start is made anew")
            self._put_back_stopped(None, running, progress)
        else:
            if not running or not self._put_back_running(name, done, progress):
                self._put_back_stopped(name, running, progress)
        if not self._https.should_run():
            self._https.apache.forget()
        elif running:
            self._https.start(progress)

    def _put_back_running(self, name: str, done: dict[str, Any], progress: Progress) -> bool:
        """Seconds; False where it cannot be done so."""
        try:
            self._as_made(progress)
            self.saved.restore_running(name, done, progress)
            self._write_logins()
            readiness.prove(self.layout, self.cloud.ports, progress)
        except (LabDamaged, NotRunning, ServiceFailed, StageFailed) as error:
            progress(f"not while the services run: {error.message}")
            return False
        return True

    def _put_back_stopped(self, name: str | None, start: bool, progress: Progress) -> None:
        """To a checkpoint, or (None) to a cloud as it was first made; then the services are started again, if they ran."""
        self.stop(progress, patience=0)
        self.cloud.put_back_configuration()
        if name is not None:
            self.saved.restore_stopped(name, progress)
        else:
            self.cloud.copy_template(progress)
            self.cloud.personalise(self.cloud.passwords())
            self.saved.drop(START)
            self.cloud.note(start_saved=False)  # else by the next lab up
        self._write_logins()
        if start:
            self._start(progress)
            self.prove(progress)
            if name is None:
                self._save_start(progress)

    def _as_made(self, progress: Progress) -> None:
        """Configuration that was edited is put back, and what does not run is started: a restore needs every service."""
        edited = self.cloud.put_back_configuration()
        down = [state.name for state in supervision.services(self.layout) if state.state in ("failed", "stopped")]
        again = [name for name in NAMES if name in edited or name in down]
        for name in again:
            progress(f"starting {name} again, with its configuration as it was made")
            supervision.order(self.layout, "restart", service=name)
        supervision.wait_until_running(self.layout, progress, time.monotonic() + 90)

    def require(self) -> None:
        """Raises NotRunning as long as there is nothing to save or put back."""
        if not self.cloud.exists:
            raise NotRunning(f"lab '{self.lab.name}' has no cloud yet", advice="lab up makes it")

    # --- down ------------------------------------------------------------------------------------------------------

    def down(self, progress: Progress) -> None:
        self.stop(progress, patience=GUEST_PATIENCE)

    def stop(self, progress: Progress, *, patience: int) -> None:
        """Guests first, then services; also what a kill left behind."""
        supervision.stop(self.layout, progress, patience=patience)
        end_apache(self.layout)

    def destroy(self, progress: Progress) -> Iterator[str]:
        layout = self.layout
        if not layout.home.exists():
            return
        running = supervision.is_running(layout)
        self.stop(progress, patience=0)
        if running:
            yield "the running services and instances"
        scratch.clear(LocalMachine(), str(layout.scratch))
        # first what says that there is a cloud: an interrupted destroy must not look like a whole one
        remove_precious(layout.made_file)
        layout.clouds_file.unlink(missing_ok=True)
        mirror.remove(layout.home)
        yield str(layout.home)
        for shared, what in self.shares().items():
            if shared.exists():
                progress(f"{shared} stays: {what} is shared by all labs")

    def deployment(self) -> Deployment:
        raise HomeUnavailable(
            f"lab '{self.lab.name}' lives on the home 'embedded': its services are processes of yours, there is no machine",
            advice="lab status shows them, lab restart SERVICE restarts one",
        )

    def others(self) -> list[Path]:
        homes = software.homes(software.environments())
        return sorted(home.parent for home in homes if home != self.layout.home)

    def shares(self) -> dict[Path, str]:
        return {
            software.environments(): "the installed OpenStack",
            template.templates(): "the first initialisation",
            software.uv_cache(): "packages that were downloaded for it",
            ovn.unpacked(): "Open vSwitch and OVN",
        }


class EmbeddedCheckpoints(HomeCheckpoints):
    """The files' (`Checkpoints`), and what the services do when they are put back."""

    saves: ClassVar[bool] = True

    def __init__(self, home: EmbeddedHome) -> None:
        self._home = home

    def save(self, name: str, progress: Progress) -> None:
        self._home.require()
        self._home.saved.save(name, progress)

    def names(self) -> list[str]:
        return self._home.saved.names()

    def verify(self, name: str) -> None:
        if name != START:  # that one can be made anew
            self._home.saved.verify(name)

    def drop(self, name: str, progress: Progress) -> None:
        self._home.saved.drop(name)

    def restore(self, name: str, progress: Progress) -> None:
        self._home.require()
        self.verify(name)
        self._home.put_back(name, progress)
