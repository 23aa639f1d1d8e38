"""The lab's VM: from nothing to SSH, saved and put back, stopped, and removed without a trace."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

from stacklab.deploy.profile.model import Box, Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import HomeUnavailable, LabError, MissingProgram, NotRunning, UnsupportedMachine, VmFailed
from stacklab.files import write_atomic
from stacklab.homes.libvirt.accelerator import COST, find_accelerator
from stacklab.homes.libvirt.boxes import wanted_box
from stacklab.homes.libvirt.checkpoints import VmCheckpoints
from stacklab.homes.libvirt.hypervisor import Hypervisor, PoolVolume, State, chosen_uri
from stacklab.homes.libvirt.site import VmSite, taken_networks
from stacklab.homes.libvirt.vagrant import Vagrant
from stacklab.homes.libvirt.vagrantfile import BOOT_SECONDS, HALT_SECONDS, render, sized
from stacklab.homes.plan import Plan
from stacklab.lab import Lab
from stacklab.machines.address import Address
from stacklab.machines.clock import set_clock
from stacklab.machines.ssh import CONNECT_SECONDS, PATIENCE_SECONDS, SshMachine, wait_for_ssh
from stacklab.stages import Progress, Stage
from stacklab.waiting import looks

WAKE_SECONDS = 180
"""How long SSH may take after memory was put back; the first connections fail for about ten seconds."""


class Vm:
    """One lab's VM. Every method may be called again after a crash of any earlier call.

    All raise HomeUnavailable when libvirt cannot be reached; what libvirt or Vagrant refuse is VmFailed.
    """

    def __init__(self, lab: Lab, profile: Profile, settings: Settings, plan: Plan) -> None:
        self.lab, self.profile, self.settings, self.plan = lab, profile, settings, plan
        self.directory = lab.home_directory
        self.vagrant = Vagrant(lab)
        self.console_file = self.directory / "console.log"
        self.key_file = self.directory / "ssh" / "key"
        self.known_hosts = self.directory / "known_hosts"
        site = VmSite.of(lab)
        self.hypervisor = Hypervisor(site.uri if site else chosen_uri(settings))
        self.checkpoints = VmCheckpoints(self)
        self._machine: SshMachine | None = None

    # --- looking ---------------------------------------------------------------------------------------------------

    @property
    def site(self) -> VmSite:
        """Its name and its networks. Raises NotRunning before `lab up` chose them."""
        site = VmSite.of(self.lab)
        if site is None:
            raise NotRunning(f"lab '{self.lab.name}' has no VM yet", advice="lab up makes it")
        return site

    @property
    def address(self) -> str:
        """The VM's static address. Raises NotRunning."""
        return str(self.site.address)

    def state(self) -> State | None:
        """What the VM is doing, as libvirt sees it at this moment; None: there is no VM."""
        site = VmSite.of(self.lab)
        return self.hypervisor.state(site.domain) if site else None

    def machine(self) -> SshMachine:
        """The way in. Not necessarily connected, and the VM not necessarily running. Raises NotRunning if there is none."""
        if self._machine is None:
            # Its own network carries no other machine than this host and the VM: who answers there first is the VM.
            address = Address(self.address, self.profile.box.user)
            # What is emulated answers slowly, all the more while it boots.
            slow = 4.0 if self.site.driver == "qemu" else 1.0
            self._machine = SshMachine(
                address, known_hosts=self.known_hosts, key=self.key_file, connect=CONNECT_SECONDS * slow,
                patience=PATIENCE_SECONDS * slow,
            )  # fmt: skip
        return self._machine

    def console(self) -> list[str]:
        """What the serial console has shown since the VM was last started; nothing where that cannot be read."""
        try:
            text = self.console_file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line.strip() for line in text.splitlines() if line.strip()]

    # --- up --------------------------------------------------------------------------------------------------------

    def stages(self) -> list[Stage]:
        """From nothing to a VM that lets us in, and back to a consistent one after an interrupted restore."""
        return [
            Stage("host", "libvirt and Vagrant", self._why_host_is_fine, self._check_host, 5),
            Stage("box", "the VM's box", self._has_box, self._add_box, 60),
            Stage("vm", "the VM", self._why_up, self._bring_up, 240 if self._driver() == "qemu" else 60),
            Stage("unfinished", "what an interrupted reset left to do", self._why_finished, self._finish_restore, 15),
        ]

    def _driver(self) -> str:
        site = VmSite.of(self.lab)
        return site.driver if site else find_accelerator().driver

    def _why_host_is_fine(self) -> str | None:
        return f"the VM is on {self.hypervisor.uri}" if self._exists() else None

    def _check_host(self, progress: Progress) -> str:
        sized(self.profile, self.plan)
        progress("asking libvirt")
        version = self.hypervisor.version()
        site = VmSite.of(self.lab)
        if site is None:
            accelerator = find_accelerator()
            why_not = self.hypervisor.offers(accelerator.driver)
            if why_not:
                raise UnsupportedMachine(why_not, advice="sudo apt-get install -y qemu-system-x86, then try again")
            taken = taken_networks(self.hypervisor.networks())
            site = VmSite.choose(self.lab, self.hypervisor.uri, self.settings.libvirt_pool, accelerator.driver, taken)
            progress(f"driver {accelerator.driver}: {accelerator.why}")
        self.hypervisor.pool(site.pool, start=True)  # Vagrant makes one that is not there
        progress("asking Vagrant")
        cost = f"; {COST}" if site.driver == "qemu" else ""
        return f"{version}, {self.vagrant.check()}, driver {site.driver}{cost}"

    # --- the box ---------------------------------------------------------------------------------------------------

    def _box(self) -> Box:
        return wanted_box(self.profile.box, self.settings, self.plan.box)

    def _has_box(self) -> str | None:
        if self._exists():
            return "the VM is made already"
        site = VmSite.of(self.lab)
        if site is None:
            return None
        box = self._box()
        version = self.vagrant.stored_version(box)
        if version is None:
            return None
        site.keep(self.lab, box=box.name, version=version)
        return f"{box.name} {version} is in Vagrant's store"

    def _add_box(self, progress: Progress) -> str:
        box = self._box()
        progress(f"adding {box.name} from {box.url or 'where Vagrant looks up names'}")
        self.vagrant.add_box(box, progress)
        if self._has_box() is None:
            raise VmFailed(f"Vagrant has no box {box.name} after adding it", advice=f"its log: {self.vagrant.log}")
        return f"{box.name} {self.site.version}"

    # --- the VM ----------------------------------------------------------------------------------------------------

    def _exists(self) -> bool:
        try:
            return self.state() is not None
        except (HomeUnavailable, MissingProgram):
            return False  # the stage `host` says it, as its failure

    def _why_up(self) -> str | None:
        site = VmSite.of(self.lab)
        if site is None or not site.made:
            return None
        try:
            if self.state() != "running":
                return None
            self.machine().run("true", seconds=30)
        except LabError:
            return None
        return f"runs at {site.address}"

    def _bring_up(self, progress: Progress) -> str:
        site, began = self.site, time.monotonic()
        self.vagrant.end()
        state = self.hypervisor.state(site.domain)
        if state and site.made:
            done = self._start(site, state, progress)
        else:
            if state:
                progress("an earlier run was cut short: what it left is removed")
            self._remove_remains(site, progress)
            self._create(site, progress)
            done = "made anew: the old one was removed by somebody" if site.made else "made"
        self.settle(progress, BOOT_SECONDS[site.driver])
        return f"{done}; SSH at {site.address} after {time.monotonic() - began:.0f} s"

    def _create(self, site: VmSite, progress: Progress) -> None:
        size = sized(self.profile, self.plan)
        self.make_networks()
        # libvirt's log daemon runs as root and would make the file its own; one that is there already, it leaves ours.
        write_atomic(self.console_file, "", mode=0o600)
        vagrantfile = render(site, self.profile, size, console=self.console_file)
        write_atomic(self.directory / "Vagrantfile", vagrantfile, mode=0o600)
        self.vagrant.up(progress, lambda: "".join(f"the VM's console: {line[:100]}" for line in self.console()[-1:]))
        self._keep_key()
        site.keep(self.lab, made=True)

    def _keep_key(self) -> None:
        """Vagrant's key for this VM, in the lab's own directory too: whoever removes .vagrant shall not lock us out."""
        source = self.vagrant.key()
        if source.exists():
            write_atomic(self.key_file, source.read_text(encoding="ascii"), mode=0o600)
            self.key_file.parent.chmod(0o700)

    def make_networks(self) -> None:
        """A reboot of the host stops its networks, and somebody may have removed them."""
        for name, xml in self.site.network_xml().items():
            self.hypervisor.ensure_network(name, xml)

    def _start(self, site: VmSite, state: State, progress: Progress) -> str:
        """Whatever it is doing, make it run."""
        self.make_networks()
        if state == "running":
            return "runs"
        if state == "paused":
            self.hypervisor.resume(site.domain)
            return "goes on"
        if state == "saved":
            progress("memory comes back from disk")
            try:
                self.hypervisor.start(site.domain)
                return "goes on where it was"
            except VmFailed as error:
                progress(f"its saved memory cannot be used, so it boots: {error.message}")
                self.hypervisor.forget_saved(site.domain)
        if state == "crashed":
            self.hypervisor.cut_power(site.domain)
        progress("booting")
        self.hypervisor.start(site.domain)
        return "booted"

    def settle(self, progress: Progress, seconds: float = WAKE_SECONDS) -> None:
        """When memory came from somewhere: wait for SSH, then set the clock, which stands at when that memory was saved."""
        self.machine().close()
        wait_for_ssh(self.machine(), seconds, progress)
        set_clock(self.machine())

    def _why_finished(self) -> str | None:
        return None if self.lab.record.restoring else "nothing"

    def _finish_restore(self, progress: Progress) -> str:
        name = self.lab.record.restoring
        if name not in self.checkpoints.names():
            return f"nothing: there is no checkpoint '{name}' any more"
        self.checkpoints.restore(str(name), progress)
        return f"finished going back to '{name}'"

    # --- down ------------------------------------------------------------------------------------------------------

    def down(self, progress: Progress) -> str:
        """Off, with memory on disk where that is possible (`lab up` goes on where it was), else shut down. Says which."""
        self.vagrant.end()
        site, state = VmSite.of(self.lab), self.state()
        if site is None or state is None:
            return "there is no VM"
        if state in ("saved", "shut off"):
            return "it is off already"
        if self._machine is not None:
            self._machine.close()
        try:
            progress("memory goes to disk")
            self.hypervisor.save(site.domain)
            return "memory is on disk; lab up goes on where it was"
        except LabError as error:
            if self.hypervisor.state(site.domain) not in ("running", "paused", "crashed"):
                raise
            progress(f"memory cannot be saved, so the VM shuts down: {error.message}")
        return self._shut_down(site, progress)

    def _shut_down(self, site: VmSite, progress: Progress) -> str:
        if self.hypervisor.state(site.domain) == "running":
            self.hypervisor.press_power(site.domain)
        progress(f"shutting down (at most {HALT_SECONDS} s)")
        for state in looks(lambda: self.hypervisor.state(site.domain), HALT_SECONDS):
            if state == "shut off":
                return "it shut down"
            if state != "running":
                break
        self.hypervisor.cut_power(site.domain)
        return f"it did not shut down within {HALT_SECONDS} s, so its power was cut"

    # --- destroy ---------------------------------------------------------------------------------------------------

    def destroy(self, progress: Progress) -> Iterator[str]:
        """Remove everything that is this VM's, yielding each thing; the box stays in Vagrant's store. Safe to repeat."""
        self.vagrant.end()
        if self._machine is not None:
            self._machine.close()
            self._machine = None
        if (site := VmSite.of(self.lab)) is not None:
            yield from self._remove(site, progress)
            for name in site.network_xml():
                if self.hypervisor.remove_network(name):
                    yield f"the network {name}"
            for volume in self.unused_base(site):
                self.hypervisor.remove_volume(volume)
                yield f"{volume.path} (the box's image, which no other VM uses; the box itself stays with Vagrant)"
        if self.directory.is_dir():
            shutil.rmtree(self.directory)
            yield f"{self.directory} (the VM's console, key and pinned host key)"

    def _remove(self, site: VmSite, progress: Progress) -> Iterator[str]:
        """The VM with its snapshots, saved memory and disks: Vagrant first, as it made it, then libvirt what is left."""
        name = site.domain
        state = self.hypervisor.state(name)
        detail = ["its saved memory"] if state == "saved" else []
        if state and (snapshots := self.hypervisor.snapshots(name)):
            detail.insert(0, f"{len(snapshots)} snapshots")
        disks = self._disks(site)
        if (self.vagrant.data / "id").exists() and (self.directory / "Vagrantfile").exists():
            try:
                self.vagrant.destroy(progress)
            except (VmFailed, MissingProgram) as error:
                progress(f"without Vagrant, then: {error.message}")
        if self.hypervisor.state(name) is not None:
            self.hypervisor.cut_power(name)
            self.hypervisor.undefine(name)
        if state:
            yield f"the VM {name}" + (f" ({', '.join(detail)})" if detail else "")
        left = self._disks(site)
        for volume in disks:
            if volume in left:
                self.hypervisor.remove_volume(volume)
            yield volume.path

    def _disks(self, site: VmSite) -> list[PoolVolume]:
        """The VM's disks, also those of a VM that is gone itself. Vagrant calls them <domain>.img, <domain>_1.img, …"""
        names = (f"{site.domain}.img", f"{site.domain}_")
        return [volume for volume in self.hypervisor.volumes() if volume.name.startswith(names)]

    def unused_base(self, site: VmSite) -> list[PoolVolume]:
        """The images of the site's box that vagrant-libvirt put into the pool, if nothing is an overlay on them."""
        if not site.box:
            return []
        begin = f"{site.box.replace('/', '-VAGRANTSLASH-')}_vagrant_box_image_{site.version}_"
        volumes = self.hypervisor.volumes()
        used = {volume.backing for volume in volumes} | self.hypervisor.disks_of_all()
        return [volume for volume in volumes if volume.name.startswith(begin) and volume.path not in used]

    def _remove_remains(self, site: VmSite, progress: Progress) -> None:
        """Before a VM is made: nothing of an earlier one may be there, nor may its host key count."""
        for gone in self._remove(site, progress):
            progress(f"removed {gone}")
        shutil.rmtree(self.vagrant.data.parents[2], ignore_errors=True)
        self.machine().forget_host_key()
