"""What the home `libvirt` needs: virtualization, libvirt with its pool and networks, room for the VM, Vagrant, and a box."""

from __future__ import annotations

import grp
import importlib
import os
import pwd
import re
import shutil
import socket
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from stacklab.conditions.condition import Finding
from stacklab.conditions.remedy import Remedy
from stacklab.deploy.profile.load import load_profile
from stacklab.deploy.profile.model import Size
from stacklab.deploy.profile.settings import Settings
from stacklab.doctor import here, packages, registries
from stacklab.doctor.probe import Probe, bad, failed, gib, good, unknown, warning
from stacklab.download import reason, without_password
from stacklab.errors import CommandFailed, DownloadFailed, HomeUnavailable, MissingProgram
from stacklab.homes.libvirt import accelerator
from stacklab.homes.libvirt.accelerator import find_accelerator
from stacklab.homes.libvirt.boxes import wanted_box
from stacklab.homes.libvirt.home import DEFAULT_PROFILE
from stacklab.homes.libvirt.hypervisor import DEFAULT_URI, Hypervisor, Pool, chosen_uri
from stacklab.homes.libvirt.site import VmSite, free_networks, taken_networks
from stacklab.homes.libvirt.vagrant import Vagrant
from stacklab.homes.libvirt.vagrantfile import asked_size
from stacklab.homes.plan import Plan
from stacklab.lab import Lab
from stacklab.machines.base import SBIN
from stacklab.machines.local import LocalMachine

LOG_DAEMON = Path("/run/libvirt/virtlogd-sock")
SOCKETS = ("libvirt-sock", "virtqemud-sock")
"""Beside the log daemon's: where libvirt listens."""
UNITS = (("libvirtd.service",), ("virtqemud.socket", "virtnetworkd.socket", "virtstoraged.socket"))
"""The one daemon, and the modular ones of newer distributions (https://libvirt.org/daemons.html)."""
POOL_DIRECTORY = "/var/lib/libvirt/images"
VAGRANT_SECONDS = 50.0
"""For each of two questions; Vagrant takes seconds to start."""
STACKED_GIB = 8
"""A guest and DevStack in it: 2 GiB and 6 GiB (measured on Debian 12). Checkpoints, of which there are two, hold its memory."""
CLOSED = {
    "home-unavailable": "libvirt does not answer",
    "missing-program": "Python's libvirt module is not there to ask with",
}


class LibvirtHost:
    """This machine and its libvirt, for the VM of a lab: the one that it has, or the one that the plan would make."""

    def __init__(self, lab: Lab, plan: Plan, settings: Settings) -> None:
        self.lab, self.plan, self.settings = lab, plan, settings
        self.profile = load_profile(plan.profile or DEFAULT_PROFILE)
        self.size = asked_size(self.profile, plan)  # one that cannot work is the findings' to tell
        self.site = VmSite.of(lab)
        self.uri = self.site.uri if self.site else chosen_uri(settings)
        self.pool_name = self.site.pool if self.site else settings.libvirt_pool

    def probes(self) -> list[Probe]:
        """What only libvirt can tell is not told without it; libvirt's own line has said why, and what repairs it."""
        manager, devstack = packages.manager(), self.profile.devstack
        return [
            Probe("virtualization", "virtualization", virtualization),
            Probe("libvirt-python", "libvirt for Python", binding),
            Probe("libvirt", "libvirt", self.daemon, closed=CLOSED),
            Probe("groups", "groups", self.groups),
            Probe("guests", "guests", self.guests, closed=CLOSED),
            Probe("pool", "storage pool", self.pool, closed=CLOSED),
            Probe("network", "networks", self.network, closed=CLOSED),
            Probe("memory", "memory", self.memory, closed=CLOSED),
            Probe("disk", "disk", self.disk, closed=CLOSED),
            Probe("vagrant", "Vagrant", self.vagrant, 2 * VAGRANT_SECONDS + 20),
            Probe("box", "box", self.box, wrong=DownloadFailed),
            Probe(
                "packages", "packages", partial(registries.distribution, LocalMachine(), manager), wrong=CommandFailed
            ),
            Probe("python-index", "Python index", partial(registries.python_index, self.settings)),
            Probe("devstack", "DevStack's source", partial(registries.source_here, devstack, self.settings)),
        ]

    def asked(self) -> closing[Hypervisor]:
        """A connection for one probe."""
        return closing(Hypervisor(self.uri))

    # --- libvirt ---------------------------------------------------------------------------------------------------

    def _version(self) -> str:
        with self.asked() as hypervisor:
            return hypervisor.version()

    def daemon(self) -> Finding:
        """Whether libvirt answers at its URI."""
        ours = self.uri == DEFAULT_URI
        try:
            version = self._version()
        except HomeUnavailable as error:
            if ours and any(_listens(LOG_DAEMON.with_name(name)) for name in SOCKETS):
                return failed(error)  # it runs, and refuses: starting it again would repair nothing
            # Which daemon another URI means, whoever wrote it knows.
            return bad(error.message, *(_start() if ours else (f"virsh -c '{self.uri}' version",)))
        if ours and not _listens(LOG_DAEMON):
            why = f"its log daemon does not listen at {LOG_DAEMON}: no VM starts so"
            return bad(f"{self.uri} answers ({version}), but {why}", *_start())
        return good(f"{self.uri} answers: {version}")

    def groups(self) -> Finding:
        """Whether the user may use libvirt."""
        if os.geteuid() == 0:
            return good("root needs none")
        user = pwd.getpwuid(os.geteuid()).pw_name
        try:
            group = grp.getgrnam("libvirt")
        except KeyError:
            return unknown(
                "there is no group libvirt: the package of libvirt makes it", "lab doctor --on libvirt --fix"
            )
        if group.gr_gid in (*os.getgroups(), os.getegid()):
            return good(f"{user} is in libvirt")
        added = user in group.gr_mem
        try:
            version = self._version()
        except Exception as error:  # noqa: BLE001 - whatever it is: without the group, it is the reason to join
            if added:
                evidence = f"{user} is in libvirt, but this login is older and is not let in: {error}"
                return bad(evidence, "log out and in again (or: newgrp libvirt)")
            join = Remedy(("usermod", "-aG", "libvirt", user), root=True)
            evidence = f"{user} is not in libvirt, and libvirt does not let us in: {error}"
            return bad(evidence, join, "then log out and in again")
        late = "was added to libvirt after this login; a new one is needed where it is not let in"
        return good(f"{user} {late if added else 'is not in libvirt'}; libvirt lets it in ({version})")

    def guests(self) -> Finding:
        """Whether libvirt has a QEMU for the VM."""
        driver = self.site.driver if self.site else find_accelerator().driver
        with self.asked() as hypervisor:
            why_not = hypervisor.offers(driver)
        return bad(why_not, *packages.install("guests")) if why_not else good(f"x86_64 guests with {driver}")

    def _pool(self) -> Pool | None:
        with self.asked() as hypervisor:
            return hypervisor.pool(self.pool_name)

    def pool(self) -> Finding:
        """The storage pool for the VM's disk. `lab up` starts one that is off, and Vagrant makes one that is missing."""
        pool, name, virsh = self._pool(), self.pool_name, ("virsh", "-c", self.uri)
        if pool is None:
            make = (("pool-define-as", name, "dir", "--target", POOL_DIRECTORY), ("pool-build", name))
            orders = (*make, ("pool-start", name), ("pool-autostart", name))
            return warning(
                f"there is no pool '{name}'; Vagrant makes it with the first VM",
                *(Remedy((*virsh, *order)) for order in orders),
            )
        if not pool.active:
            return warning(f"the pool '{name}' is off; lab up starts it", Remedy((*virsh, "pool-start", name)))
        return good(f"'{name}' is on, {pool.path or 'no directory'}")

    def network(self) -> Finding:
        """The VM's two networks, or room for them; and what serves addresses there."""
        with self.asked() as hypervisor:
            networks = {network.name: network for network in hypervisor.networks()}
        dnsmasq = LocalMachine().run("dnsmasq", "--version", seconds=20, check=False)
        if dnsmasq.status == 127:
            return bad("dnsmasq is not installed: the VM would get no address", *packages.install("vm"))
        served = " ".join(dnsmasq.out.split()[:3]) if dnsmasq.ok else f"dnsmasq ended with status {dnsmasq.status}"
        if self.site is None:
            return good(
                f"{free_networks(taken_networks(networks.values()))} is free for the VM's two networks; {served}"
            )
        if self.site.name not in networks:
            return good(f"{self.site.networks} is kept for the VM's two networks; {served}")
        names = (self.site.name, self.site.nat_name)
        off = [name for name in names if name not in networks or not networks[name].active]
        if off:
            starting = [Remedy(("virsh", "-c", self.uri, "net-start", name)) for name in off if name in networks]
            return warning(f"off: {', '.join(off)}; lab up starts them", *starting)
        return good(f"{' and '.join(names)} are on; {served}")

    # --- room for the VM -------------------------------------------------------------------------------------------

    def memory(self) -> Finding:
        """Of the host, against the size of the VM."""
        if self.site is not None:
            with self.asked() as hypervisor:
                if hypervisor.state(self.site.domain) == "running":
                    return good("the lab's VM has its memory: it runs")
        total, free = here.memory_here()
        size, mib = self.size, 2**20
        fits = free // mib // 256 * 256
        smaller = [f"lab up SESSION --on libvirt --memory {fits}"] if size.least_memory <= fits < size.memory else []
        cost = f"a VM of {size.memory} MiB would push other programs, or itself, out of memory"
        return here.judged_memory(total, free, size.least_memory * mib, size.memory * mib, cost, *smaller)

    def disk(self) -> Finding:
        """Of the storage pool, against the VM's disk, which takes room as it is filled."""
        try:
            pool = self._pool()
        except (HomeUnavailable, MissingProgram):
            pool = None
        place = Path(pool.path if pool and pool.path else POOL_DIRECTORY)
        return judged_disk(place, *here.space(place), self.size)

    # --- Vagrant ---------------------------------------------------------------------------------------------------

    def vagrant(self) -> Finding:
        """Vagrant's version and its plugin's."""
        try:
            return good(Vagrant(self.lab).check(VAGRANT_SECONDS))
        except MissingProgram as error:
            return bad(error.message, *packages.install("vm"))

    def box(self) -> Finding:
        """The box in Vagrant's store; else whether the place that it comes from answers."""
        other = "lab up SESSION --on libvirt --box PATH   (a .box file that you have)"
        box = wanted_box(self.profile.box, self.settings, self.plan.box)
        vagrant = Vagrant(self.lab)
        if version := vagrant.stored_version(box):
            return good(f"{box.name} {version} is in Vagrant's store, {vagrant.box(box.name, version)}")
        if box.url and urlsplit(box.url).scheme == "file":
            path = Path(unquote(urlsplit(box.url).path))
            if path.is_file():
                return good(f"{box.name} comes from {path}")
            return bad(f"{box.name} is not in Vagrant's store, and there is no {path}", other)
        base = os.environ.get("VAGRANT_SERVER_URL") or packages.data()["vagrant_catalogue"]
        url = box.url or f"{base.rstrip('/')}/{box.name}"
        shown = without_password(url)
        try:
            answer = registries.ask(registries.session(self.settings), url)
        except requests.RequestException as error:
            return bad(
                f"{box.name} is not in Vagrant's store, and {shown} does not give it: {reason(error)}",
                f"vagrant box add --provider libvirt --name {box.name} URL   (another place)",
                other,
            )
        size = answer.headers.get("Content-Length", "") if box.url and not box.url.endswith(".json") else ""
        much = f", {int(size) / 1e6:.0f} MB" if size.isdigit() else ""
        return good(f"{box.name} is not in Vagrant's store yet; {shown} answers{much}, lab up fetches it")


def virtualization() -> Finding:
    """Whether VMs run on the processor itself, by the home's own means: a guest that really ran, never a device node."""
    find_accelerator.cache_clear()  # what was found may have been repaired since
    found = find_accelerator()
    if found.driver == "qemu":
        module = re.search(r"\bkvm_(?:intel|amd)\b", found.why)
        return warning(found.why, *([f"sudo modprobe {module[0]}"] if module else []))
    if found.really:
        return good(found.why)
    if "LAB_LIBVIRT_DRIVER" in os.environ:
        return unknown(f"{found.why}; it was not tried", "unset LAB_LIBVIRT_DRIVER")
    if shutil.which(accelerator.QEMU) is None:
        return unknown(found.why, *packages.install("guests"))
    return unknown(found.why, "sudo usermod -aG kvm $USER; then log out and in again")


def binding() -> Finding:
    """Python's libvirt module."""
    importlib.invalidate_caches()  # it may have been installed a moment ago
    try:
        module = importlib.import_module("libvirt")
    except ImportError as error:
        pip = Remedy((sys.executable, "-m", "pip", "install", "-q", "libvirt-python"))
        # It is built from source. Where Python belongs to the distribution, what is put into it is not ours to decide.
        command = pip if sys.prefix != sys.base_prefix else str(pip)
        return bad(f"Python's libvirt module is not there: {error}", *packages.install("vm"), command)
    number = module.getVersion()
    return good(f"libvirt-python, on libvirt {number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}")


def judged_disk(place: Path, total: int, free: int, size: Size) -> Finding:
    """Bytes of the file system that holds the VM's disk."""
    wanted, least = size.disk * 2**30, STACKED_GIB * 2**30 + 2 * size.memory * 2**20
    have = f"{gib(free)} of {gib(total)} free at {place}"
    smaller = f"lab up SESSION --on libvirt --disk {max(STACKED_GIB, free // 2**30)}"
    if free < least:
        needed = f"DevStack and two checkpoints take about {gib(least)}"
        return bad(f"{have}; {needed}", f"sudo du -xh {place} | sort -h | tail")
    if total < wanted:
        return bad(f"{have}; the VM's disk is to have {size.disk} GiB, which never fit there", smaller)
    if free < wanted:
        return warning(f"{have}; a VM that fills its {size.disk} GiB would be halted when they are used up", smaller)
    return good(f"{have}, the VM may take {size.disk} GiB")


def _start() -> tuple[Remedy | str, ...]:
    """What starts this machine's libvirt."""
    if Path("/run/systemd/system").is_dir():
        for units in UNITS:
            if LocalMachine().run("systemctl", "cat", *units, check=False).ok:  # they are there
                return (Remedy(("systemctl", "start", *units), root=True),)
        return packages.install("vm")
    path = f"{os.environ.get('PATH', '')}:{SBIN}"
    programs = {name: shutil.which(name, path=path) for name in ("virtlogd", "libvirtd")}
    if not all(programs.values()):
        return packages.install("vm")
    starting = [Remedy(("mkdir", "-p", "/run/libvirt"), root=True)]
    for name, program in programs.items():
        if not _listens(LOG_DAEMON.with_name("virtlogd-sock" if name == "virtlogd" else "libvirt-sock")):
            starting.append(Remedy((str(program), "--daemon"), root=True))
    return tuple(starting)


def _listens(path: Path) -> bool:
    """Whether somebody answers at a unix socket, or it is there and not ours to ask."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(path))
        except PermissionError:
            return True
        except OSError:
            return False
    return True
