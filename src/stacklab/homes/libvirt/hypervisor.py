"""libvirt, in one thin module: always an explicit URI, its errors as ours, and nothing on standard error.

Names of domains, networks and volumes come and go as strings; libvirt's objects stay in here.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, ip_interface
from typing import Any, Literal
from urllib.parse import urlsplit

from stacklab.deploy.profile.settings import Settings
from stacklab.errors import CheckpointMissing, HomeUnavailable, LabError, MissingProgram, NotEnoughSpace, VmFailed

DEFAULT_URI = "qemu:///system"
INSTALL = "sudo apt-get install -y libvirt-dev pkg-config gcc python3-dev"
State = Literal["running", "paused", "saved", "shut off", "crashed"]
"""`saved`: off, with its memory on disk. A domain that is shutting down still counts as running."""


def chosen_uri(settings: Settings) -> str:
    """LAB_LIBVIRT_URI, else what the user's configuration says, else qemu:///system."""
    return os.environ.get("LAB_LIBVIRT_URI") or settings.libvirt_uri or DEFAULT_URI


DISKS = "./devices/disk//source"


@dataclass(frozen=True)
class HostNetwork:
    """One of libvirt's networks; `ranges`: the IPv4 networks it serves."""

    name: str
    active: bool
    ranges: tuple[IPv4Network, ...]


@dataclass(frozen=True)
class Pool:
    """A storage pool as it is. `free`: bytes, None while it is off; `path`: its directory, for a pool that is one."""

    name: str
    active: bool
    path: str | None
    free: int | None


@dataclass(frozen=True)
class PoolVolume:
    """A file in a storage pool. `backing`: the path of what it is an overlay on."""

    pool: str
    name: str
    path: str
    backing: str | None


@dataclass(frozen=True)
class Snapshot:
    """A saved state of a domain, inside its own qcow2 files. `whole`: of a running VM, with its memory."""

    name: str
    at: int
    whole: bool


class Hypervisor:
    """A connection to libvirt, made when it is first needed and again when it broke."""

    def __init__(self, uri: str = DEFAULT_URI) -> None:
        self.uri = uri
        self._connected: Any = None

    @cached_property
    def _libvirt(self) -> Any:
        try:
            module = importlib.import_module("libvirt")
        except ImportError as error:
            raise MissingProgram(
                f"Python's libvirt module is not there ({error})",
                advice=f"{INSTALL} && {sys.executable} -m pip install libvirt-python",
            ) from error
        # Else libvirt prints every error on standard error, beside raising it.
        module.registerErrorHandler(lambda *_: None, None)
        return module

    @property
    def _connection(self) -> Any:
        if urlsplit(self.uri).hostname:
            raise HomeUnavailable(
                f"{self.uri} is another machine's libvirt, and lab makes VMs on this one",
                advice="run lab there; or make a VM there yourself and name it: lab up SESSION --on ssh://user@host",
            )
        with self._asking("libvirt"):
            if self._connected is None or not self._connected.isAlive():
                self._connected = self._libvirt.open(self.uri)
            return self._connected

    def close(self) -> None:
        """Give the connection up; the next call makes a new one."""
        if self._connected is not None:
            with self._asking("libvirt"):
                self._connected.close()
            self._connected = None

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """libvirt's errors as ours. `what` was being done."""
        libvirt = self._libvirt
        try:
            yield
        except libvirt.libvirtError as error:
            raise self._as_ours(what, error) from error

    def _as_ours(self, what: str, error: Any) -> LabError:
        libvirt, words, code = self._libvirt, str(error), error.get_error_code()
        remote = error.get_error_domain() in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE)
        refusals = (libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_ERR_AUTH_UNAVAILABLE)
        if "No space left" in words or "Disk quota exceeded" in words:
            advice = "free some space where libvirt keeps it: virsh pool-list --details"
            return NotEnoughSpace(f"{what}: {words}", advice=advice)
        if code in refusals or (remote and "Permission denied" in words):
            return HomeUnavailable(
                f"libvirt at {self.uri} does not let you in: {words}",
                advice="sudo usermod -aG libvirt $USER, then log in again",
            )
        if code == libvirt.VIR_ERR_NO_CONNECT or (
            remote and code in (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_RPC)
        ):
            advice = "lab doctor --on libvirt shows what starts it; with --fix, it is started"
            return HomeUnavailable(f"libvirt at {self.uri} does not answer: {words}", advice=advice)
        if code == libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT:
            return CheckpointMissing(f"{what}: {words}", advice="lab up saves one")
        advice = "run the same command again; lab doctor --on libvirt looks at the machine"
        return VmFailed(f"{what}: {words}", advice=advice)

    def _unless(self, code: int, look_up: Callable[[str], Any], name: str) -> Any:
        """What is called `name`; None where libvirt's error is `code`, which says that there is none."""
        try:
            return look_up(name)
        except self._libvirt.libvirtError as error:
            if error.get_error_code() == code:
                return None
            raise

    # --- the host --------------------------------------------------------------------------------------------------

    def version(self) -> str:
        """libvirt's and the hypervisor's version, by asking it. Raises HomeUnavailable."""
        with self._asking("asking for the version"):
            connection = self._connection
            numbers = connection.getLibVersion(), connection.getVersion()
            return f"libvirt {_dotted(numbers[0])}, {connection.getType()} {_dotted(numbers[1])}"

    def offers(self, driver: str) -> str | None:
        """Why the host cannot run an x86_64 guest with `driver` (kvm, qemu), or None if libvirt says it can."""
        with self._asking("asking what the host can run"):
            root = ET.fromstring(self._connection.getCapabilities())  # noqa: S314 - libvirt's own words
        types = {domain.get("type") for domain in root.findall("./guest/arch[@name='x86_64']/domain")}
        if driver in types:
            return None
        hint = "" if types else ": QEMU is not installed"
        return f"libvirt at {self.uri} cannot run x86_64 guests with {driver}{hint}"

    # --- domains ---------------------------------------------------------------------------------------------------

    def _domain(self, name: str) -> Any:
        with self._asking(f"looking for the VM {name}"):
            return self._unless(self._libvirt.VIR_ERR_NO_DOMAIN, self._connection.lookupByName, name)

    def _existing(self, name: str) -> Any:
        domain = self._domain(name)
        if domain is None:
            raise VmFailed(f"there is no VM {name} on {self.uri} any more", advice="lab up makes it anew")
        return domain

    def state(self, name: str) -> State | None:
        """What the VM is doing; None if there is none of this name."""
        domain = self._domain(name)
        if domain is None:
            return None
        libvirt = self._libvirt
        with self._asking(f"looking at {name}"):
            number = domain.state()[0]
            if number in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_SHUTDOWN):
                return "running"
            if number in (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED):
                return "paused"
            if number == libvirt.VIR_DOMAIN_CRASHED:
                return "crashed"
            return "saved" if domain.hasManagedSaveImage() else "shut off"

    def _do(self, name: str, doing: str, action: Callable[[Any], object]) -> None:
        with self._asking(f"{doing} {name}"):
            action(self._existing(name))

    def start(self, name: str) -> None:
        """Start the VM; from its saved memory where there is some."""
        self._do(name, "starting", lambda domain: domain.create())

    def resume(self, name: str) -> None:
        """Let a paused VM go on."""
        self._do(name, "resuming", lambda domain: domain.resume())

    def save(self, name: str) -> None:
        """Memory to disk, VM off; `start` goes on where it was."""
        self._do(name, "saving the memory of", lambda domain: domain.managedSave())

    def forget_saved(self, name: str) -> None:
        """Drop a saved memory, if there is one."""
        drop = "dropping the saved memory of"
        self._do(name, drop, lambda domain: domain.hasManagedSaveImage() and domain.managedSaveRemove())

    def press_power(self, name: str) -> None:
        """Ask the VM to shut down, as its power button does."""
        self._do(name, "shutting down", lambda domain: domain.shutdown())

    def cut_power(self, name: str) -> None:
        """Stop the VM at once, if it is not off."""
        self._do(name, "stopping", lambda domain: domain.isActive() and domain.destroy())

    def undefine(self, name: str) -> None:
        """Remove the VM, which is off, with its saved memory and what libvirt knows of its snapshots. Volumes stay."""
        flags = ("MANAGED_SAVE", "SNAPSHOTS_METADATA", "NVRAM")
        value = sum(getattr(self._libvirt, f"VIR_DOMAIN_UNDEFINE_{flag}") for flag in flags)
        self._do(name, "removing", lambda domain: domain.undefineFlags(value))

    # --- snapshots -------------------------------------------------------------------------------------------------

    def snapshots(self, name: str) -> list[Snapshot]:
        """The VM's saved states, oldest first."""
        with self._asking(f"listing {name}'s snapshots"):
            snapshots = map(_snapshot, self._existing(name).listAllSnapshots())
            return sorted(snapshots, key=lambda snapshot: (snapshot.at, snapshot.name))

    def take_snapshot(self, domain: str, name: str, text: str) -> None:
        """Save RAM (if it runs) and disks inside the disks' own qcow2 files; the VM goes on afterwards."""
        root = ET.Element("domainsnapshot")
        ET.SubElement(root, "name").text = name
        ET.SubElement(root, "description").text = text
        with self._asking(f"saving {domain}"):
            self._existing(domain).snapshotCreateXML(ET.tostring(root, encoding="unicode"), 0)

    def revert(self, domain: str, snapshot: str) -> None:
        """Bring RAM and disks back to a snapshot; what the VM was doing then, it does now."""
        libvirt = self._libvirt
        with self._asking(f"going back to {snapshot}"):
            saved = self._existing(domain).snapshotLookupByName(snapshot)
            try:
                self._existing(domain).revertToSnapshot(saved, 0)
            except libvirt.libvirtError as error:
                # A running QEMU that cannot load it in place (another CPU or device): libvirt starts a new one if told to.
                if error.get_error_code() != libvirt.VIR_ERR_SNAPSHOT_REVERT_RISKY:
                    raise
                self._existing(domain).revertToSnapshot(saved, libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_FORCE)

    def saved_in_disks(self, domain: str) -> dict[str, int]:
        """What QEMU itself sees in the disks of a running VM: bytes of memory saved, by snapshot."""
        module = importlib.import_module("libvirt_qemu")
        with self._asking(f"asking {domain}'s QEMU for its snapshots"):
            order = json.dumps({"execute": "query-block"})
            answer = json.loads(module.qemuMonitorCommand(self._existing(domain), order, 0))
        sizes: dict[str, int] = {}
        for device in answer["return"]:
            for snapshot in device.get("inserted", {}).get("image", {}).get("snapshots", []):
                sizes[snapshot["name"]] = max(sizes.get(snapshot["name"], 0), int(snapshot["vm-state-size"]))
        return sizes

    def memory_used(self, domain: str) -> int:
        """Bytes that saving the VM's memory takes at most: what its process holds, but no more than the VM has."""
        with self._asking(f"asking how much memory {domain} uses"):
            kib = self._existing(domain).memoryStats()
        return min(int(kib[name]) for name in ("rss", "actual") if name in kib) * 1024

    def drop_snapshot(self, domain: str, snapshot: str) -> None:
        """Remove one snapshot. Raises CheckpointMissing if there is none."""
        with self._asking(f"removing the snapshot {snapshot}"):
            self._existing(domain).snapshotLookupByName(snapshot).delete()

    # --- networks --------------------------------------------------------------------------------------------------

    def networks(self) -> list[HostNetwork]:
        """All of libvirt's networks, running or not."""
        with self._asking("listing networks"):
            return [
                HostNetwork(network.name(), bool(network.isActive()), tuple(_ranges(_xml(network))))
                for network in self._connection.listAllNetworks()
            ]

    def _network(self, name: str) -> Any:
        return self._unless(self._libvirt.VIR_ERR_NO_NETWORK, self._connection.networkLookupByName, name)

    def ensure_network(self, name: str, xml: str) -> None:
        """Define the network unless it is there, and start it unless it runs."""
        with self._asking(f"making the network {name}"):
            network = self._network(name) or self._connection.networkDefineXML(xml)
            if not network.isActive():
                network.create()

    def remove_network(self, name: str) -> bool:
        """Stop and undefine a network; whether there was one."""
        with self._asking(f"removing the network {name}"):
            network = self._network(name)
            if network is None:
                return False
            if network.isActive():
                network.destroy()
            network.undefine()
            return True

    # --- volumes ---------------------------------------------------------------------------------------------------

    def pool(self, name: str, *, start: bool = False) -> Pool | None:
        """The storage pool; one that is off is started if told to, else only looked at. None if there is none of this name."""
        with self._asking(f"looking at the storage pool {name}"):
            pool = self._unless(self._libvirt.VIR_ERR_NO_STORAGE_POOL, self._connection.storagePoolLookupByName, name)
            if pool is None:
                return None
            if start and not pool.isActive():
                pool.create()
            if start:
                pool.refresh()
            active = bool(pool.isActive())
            return Pool(name, active, _xml(pool).findtext("./target/path"), int(pool.info()[3]) if active else None)

    def volumes(self) -> list[PoolVolume]:
        """What lies in all running storage pools."""
        volumes = []
        with self._asking("listing volumes"):
            for pool in self._connection.listAllStoragePools(self._libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
                pool.refresh()
                for volume in pool.listAllVolumes():
                    backing = _xml(volume).findtext("./backingStore/path")
                    volumes.append(PoolVolume(pool.name(), volume.name(), volume.path(), backing))
        return volumes

    def remove_volume(self, volume: PoolVolume) -> None:
        """Delete a volume."""
        with self._asking(f"removing the volume {volume.name}"):
            self._connection.storagePoolLookupByName(volume.pool).storageVolLookupByName(volume.name).delete()

    def disks_of_all(self) -> set[str]:
        """Every path that any VM's definition names as a disk, or (of running ones) as what a disk is an overlay on."""
        with self._asking("looking at all VMs"):
            domains = map(_xml, self._connection.listAllDomains())
            return {source.get("file", "") for domain in domains for source in domain.iterfind(DISKS)}


def _xml(described: Any) -> ET.Element:
    return ET.fromstring(described.XMLDesc())  # noqa: S314 - libvirt's own words


def _snapshot(described: Any) -> Snapshot:
    root = ET.fromstring(described.getXMLDesc())  # noqa: S314 - libvirt's own words
    memory = root.find("memory")
    internal = memory is not None and memory.get("snapshot") == "internal"
    whole = internal and root.findtext("state") == "running"
    return Snapshot(described.getName(), int(root.findtext("creationTime", "0")), whole)


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _ranges(root: ET.Element) -> Iterator[IPv4Network]:
    for entry in root.findall("ip"):
        if entry.get("family", "ipv4") == "ipv4" and entry.get("address"):
            size = entry.get("prefix") or entry.get("netmask") or "24"
            network = ip_interface(f"{entry.get('address')}/{size}").network
            if isinstance(network, IPv4Network):
                yield network
