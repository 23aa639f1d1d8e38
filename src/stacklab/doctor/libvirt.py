"""libvirt: the Python module, the daemon, what it can run, the storage pool, networks, and the host's memory and disk."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from stacklab.conditions.condition import Finding
from stacklab.conditions.remedy import Remedy
from stacklab.deploy.profile.model import Size
from stacklab.doctor import host, packages
from stacklab.doctor.probe import bad, failed, gib, good, warning
from stacklab.errors import HomeUnavailable, MissingProgram
from stacklab.homes.libvirt.accelerator import find_accelerator
from stacklab.homes.libvirt.hypervisor import DEFAULT_URI, Hypervisor
from stacklab.homes.libvirt.site import ROUTES, VmSite, free_networks, routes

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where daemons are, which are not on everybody's PATH."""
LOG_DAEMON = Path("/run/libvirt/virtlogd-sock")
SOCKETS = ("libvirt-sock", "virtqemud-sock")
"""Beside the log daemon's: where libvirt listens."""
UNITS = (("libvirtd.service",), ("virtqemud.socket", "virtnetworkd.socket", "virtstoraged.socket"))
"""The one daemon, and the modular ones of newer distributions (https://libvirt.org/daemons.html)."""
UNIT_DIRECTORIES = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
POOL_DIRECTORY = "/var/lib/libvirt/images"
STACKED_GIB = 8
"""A guest and DevStack in it: 2 GiB and 6 GiB (measured on Debian 12). Checkpoints, of which there are two, hold its memory."""


@dataclass(frozen=True)
class Where:
    """Which libvirt, and what a VM wants of it. `site`: the lab's VM, if it has one."""

    uri: str
    pool: str
    size: Size
    site: VmSite | None

    @contextmanager
    def asked(self) -> Iterator[Hypervisor]:
        """A connection for one probe."""
        hypervisor = Hypervisor(self.uri)
        try:
            yield hypervisor
        finally:
            hypervisor.close()


def which(program: str) -> str | None:
    """A program of the system, also where PATH has no sbin."""
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(SBIN))


def binding() -> Finding:
    """Python's libvirt module."""
    importlib.invalidate_caches()  # it may have been installed a moment ago
    try:
        module = importlib.import_module("libvirt")
    except ImportError as error:
        pip = Remedy((sys.executable, "-m", "pip", "install", "-q", "libvirt-python"))
        # It is built from source. Where Python belongs to the distribution, what is put into it is not ours to decide.
        in_venv = sys.prefix != sys.base_prefix
        return bad(
            f"Python's libvirt module is not there: {error}", *packages.install("vm"), pip if in_venv else str(pip)
        )
    number = module.getVersion()
    return good(f"libvirt-python, on libvirt {number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}")


def daemon(where: Where) -> Finding:
    """Whether libvirt answers at its URI."""
    try:
        with where.asked() as hypervisor:
            version = hypervisor.version()
    except HomeUnavailable as error:
        if where.uri == DEFAULT_URI and any(_listens(LOG_DAEMON.with_name(name)) for name in SOCKETS):
            return failed(error)  # it runs, and refuses: starting it again would repair nothing
        return bad(error.message, *_start(where))
    if where.uri == DEFAULT_URI and not _listens(LOG_DAEMON):
        return bad(
            f"{where.uri} answers ({version}), but its log daemon does not listen at {LOG_DAEMON}: no VM starts so",
            *_start(where),
        )
    return good(f"{where.uri} answers: {version}")


def _start(where: Where) -> tuple[Remedy | str, ...]:
    if where.uri != DEFAULT_URI:  # which daemon that is, whoever wrote the URI knows
        return (f"virsh -c '{where.uri}' version",)
    if Path("/run/systemd/system").is_dir():
        for units in UNITS:
            if all(any((Path(folder) / unit).exists() for folder in UNIT_DIRECTORIES) for unit in units):
                return (Remedy(("systemctl", "start", *units), root=True),)
        return packages.install("vm")
    programs = {name: which(name) for name in ("virtlogd", "libvirtd")}
    if not all(programs.values()):
        return packages.install("vm")
    starting = [Remedy(("mkdir", "-p", "/run/libvirt"), root=True)]
    for name, path in programs.items():
        if not _listens(LOG_DAEMON.with_name("virtlogd-sock" if name == "virtlogd" else "libvirt-sock")):
            starting.append(Remedy((str(path), "--daemon"), root=True))
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


def guests(where: Where) -> Finding:
    """Whether libvirt has a QEMU for the VM."""
    driver = where.site.driver if where.site else find_accelerator().driver
    with where.asked() as hypervisor:
        why_not = hypervisor.offers(driver)
    if why_not:
        return bad(why_not, *packages.install("guests"))
    return good(f"x86_64 guests with {driver}")


def pool(where: Where) -> Finding:
    """The storage pool for the VM's disk. `lab up` starts one that is off, and Vagrant makes one that is missing."""
    with where.asked() as hypervisor:
        storage = hypervisor.pool(where.pool)
    virsh = ("virsh", "-c", where.uri)
    if storage is None:
        make = ("pool-define-as", where.pool, "dir", "--target", POOL_DIRECTORY)
        orders = (make, ("pool-build", where.pool), ("pool-start", where.pool), ("pool-autostart", where.pool))
        return warning(
            f"there is no pool '{where.pool}'; Vagrant makes it with the first VM",
            *(Remedy((*virsh, *order)) for order in orders),
        )
    if not storage.active:
        return warning(f"the pool '{where.pool}' is off; lab up starts it", Remedy((*virsh, "pool-start", where.pool)))
    return good(f"'{where.pool}' is on, {storage.path or 'no directory'}")


def network(where: Where) -> Finding:
    """The VM's two networks, or room for them; and what serves addresses there."""
    with where.asked() as hypervisor:
        networks = {network.name: network for network in hypervisor.networks()}
    served = _dnsmasq()
    if served is None:
        return bad("dnsmasq is not installed: the VM would get no address", *packages.install("vm"))
    served = f"; {served}" if served else ""
    if where.site is None or where.site.name not in networks:
        taken = [block for network in networks.values() for block in network.ranges]
        if ROUTES.exists():
            taken += routes(ROUTES.read_text(encoding="ascii"))
        return good(f"{_room(taken, where.site)} for the VM's two networks{served}")
    names = (where.site.name, where.site.nat_name)
    off = [name for name in names if name not in networks or not networks[name].active]
    if off:
        starting = [Remedy(("virsh", "-c", where.uri, "net-start", name)) for name in off if name in networks]
        return warning(f"off: {', '.join(off)}; lab up starts them", *starting)
    return good(f"{' and '.join(names)} are on{served}")


def _room(taken: list[IPv4Network], site: VmSite | None) -> str:
    return f"{site.networks if site else free_networks(taken)} is {'kept' if site else 'free'}"


def _dnsmasq() -> str | None:
    program = which("dnsmasq")
    if program is None:
        return None
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    return (
        " ".join(done.stdout.split()[:3])
        if done.returncode == 0
        else f"dnsmasq ended with status {done.returncode}: {done.stderr.strip()[:100]}"
    )


def memory(where: Where) -> Finding:
    """Of the host, against the size of the VM."""
    if where.site is not None:
        with where.asked() as hypervisor:
            if hypervisor.state(where.site.domain) == "running":
                return good("the lab's VM has its memory: it runs")
    total, free = host.memory_here()
    size, mib = where.size, 2**20
    fits = free // mib // 256 * 256
    smaller = [f"lab up SESSION --on libvirt --memory {fits}"] if size.least_memory <= fits < size.memory else []
    cost = f"a VM of {size.memory} MiB would push other programs, or itself, out of memory"
    return host.judged_memory(total, free, size.least_memory * mib, size.memory * mib, cost, *smaller)


def disk(where: Where) -> Finding:
    """Of the storage pool, against the VM's disk, which takes room as it is filled."""
    try:
        with where.asked() as hypervisor:
            storage = hypervisor.pool(where.pool)
    except (HomeUnavailable, MissingProgram):
        storage = None
    place = Path(storage.path if storage and storage.path else POOL_DIRECTORY)
    total, free = host.space(place)
    return judged_disk(place, total, free, where.size)


def judged_disk(place: Path, total: int, free: int, size: Size) -> Finding:
    """Bytes of the file system that holds the VM's disk."""
    wanted, least = size.disk * 2**30, STACKED_GIB * 2**30 + 2 * size.memory * 2**20
    have = f"{gib(free)} of {gib(total)} free at {place}"
    smaller = f"lab up SESSION --on libvirt --disk {max(STACKED_GIB, free // 2**30)}"
    if free < least:
        return bad(
            f"{have}; DevStack and two checkpoints take about {gib(least)}", f"sudo du -xh {place} | sort -h | tail"
        )
    if total < wanted:
        return bad(f"{have}; the VM's disk is to have {size.disk} GiB, which never fit there", smaller)
    if free < wanted:
        return warning(f"{have}; a VM that fills its {size.disk} GiB would be halted when they are used up", smaller)
    return good(f"{have}, the VM may take {size.disk} GiB")


def lets_in(where: Where) -> Callable[[], str]:
    """Asks libvirt for its version; raises if it does not answer."""

    def ask() -> str:
        with where.asked() as hypervisor:
            return hypervisor.version()

    return ask
