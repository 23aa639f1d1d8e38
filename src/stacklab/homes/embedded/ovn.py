"""The programs of Open vSwitch and OVN, and the way into the cloud's network namespace.

They are the machine's own where it has them. Else Debian's packages are unpacked below the data directory: nothing is
installed, no daemon of the distribution starts, and no root is needed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stacklab import places
from stacklab.errors import StageFailed, UnknownName
from stacklab.files import read_derivable, read_precious
from stacklab.homes.embedded.layout import Layout
from stacklab.stages import Progress

PACKAGES = ("openvswitch-common", "openvswitch-switch", "ovn-common", "ovn-central", "ovn-host")
LIBRARIES = ("libxdp1", "libbpf1", "libunbound8", "libnuma1", "libcap-ng0")
"""What the packages above link, and what a small Debian may lack."""
PROGRAMS = ("ovsdb-server", "ovs-vswitchd", "ovn-northd", "ovn-controller", "ovs-vsctl", "ovsdb-tool", "ovsdb-client")
DIRECTORIES = ("usr/bin", "usr/sbin", "usr/lib/openvswitch-switch")
WITHOUT = "LAB_NETWORK=user lab up makes a cloud whose guests are in QEMU's user mode"
TRY = ("unshare", "--user", "--map-root-user", "--net", "sh", "-ec", "ip link set lo up; ip tuntap add dev t mode tap")


@dataclass(frozen=True)
class Network:
    """Where the programs are (below `root`: "/" for the machine's own), or why the guests' network is QEMU's user mode."""

    root: Path | None
    why_not: str = ""

    @property
    def there(self) -> bool:
        return self.root is not None


def unpacked() -> Path:
    """Where the packages are unpacked."""
    return places.data_home() / "ovn"


def chosen(layout: Layout) -> Literal["ovn", "user"]:
    """What LAB_NETWORK says; else what the cloud was made with. Raises UnknownName."""
    name = os.environ.get("LAB_NETWORK") or dict(read_precious(layout.made_file) or {}).get("network", "user")
    if name not in ("ovn", "user"):
        raise UnknownName(f"LAB_NETWORK is '{name}'", advice="ovn, or user (or nothing)")
    return "ovn" if name == "ovn" else "user"


def find_network(layout: Layout) -> Network:
    """What this cloud is to have."""
    if chosen(layout) == "user":
        return Network(None, "the guests' network is QEMU's user mode (LAB_NETWORK=ovn chooses Neutron's OVN)")
    if unpacked().is_dir():
        return Network(unpacked())
    if all(shutil.which(program, path=_path(Path("/"))) for program in PROGRAMS):
        return Network(Path("/"))
    return Network(None, "Open vSwitch's and OVN's programs are not there")


def why_none_possible() -> str:
    """Why this machine cannot have a namespace with taps in it; empty where it can."""
    try:
        done = subprocess.run(TRY, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return f"there is no {error.filename}"
    return done.stderr.strip() if done.returncode else ""


def fetch(progress: Progress) -> str:
    """Download and unpack the packages. Raises StageFailed."""
    from stacklab.homes.embedded.software import build_once  # which imports what imports this

    if why := why_none_possible():
        raise StageFailed(f"no network of the cloud's own can be made here: {why}", advice=WITHOUT)
    if shutil.which("apt-get") is None:
        raise StageFailed("Open vSwitch's and OVN's programs are not there", advice=f"install them; {WITHOUT}")

    def build(draft: Path) -> None:
        with tempfile.TemporaryDirectory() as downloads:
            progress("downloading Debian's packages of Open vSwitch and OVN")
            _run(["apt-get", "download", *PACKAGES, *LIBRARIES], downloads)
            draft.mkdir(parents=True)
            for package in sorted(Path(downloads).glob("*.deb")):
                _run(["dpkg-deb", "--extract", str(package), str(draft)], downloads)

    build_once(unpacked(), build, progress)
    return f"in {unpacked()}"


def _run(argv: list[str], directory: str) -> None:
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StageFailed(f"{' '.join(argv[:2])} failed: {done.stderr.strip()[-300:]}", advice="apt-get update")


def _path(root: Path) -> str:
    return os.pathsep.join(str(root / directory) for directory in DIRECTORIES)


def variables(layout: Layout, network: Network, path: str) -> dict[str, str]:
    """For everything that runs inside the cloud: where programs (with PATH so far), libraries, sockets and schemas are."""
    if network.root is None:
        return {}
    run, share = layout.run / "ovn", network.root / "usr" / "share"
    names = ("RUNDIR", "DBDIR", "LOGDIR")
    ours = network.root != Path("/")
    libraries = sorted({str(path.parent) for path in network.root.glob("usr/lib/*/lib*.so.*")}) if ours else []
    return {
        **{f"{program}_{name}": str(run) for program in ("OVS", "OVN") for name in names},
        "OVS_SYSCONFDIR": str(run),
        "PATH": os.pathsep.join([_path(network.root), path] if ours else [path]),
        "OVS_PKGDATADIR": str(share / "openvswitch"),
        "LABCLOUD_OVN_SHARE": str(share),
        **({"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else {}),
    }


def entering(layout: Layout) -> list[str]:
    """The words before a command that is to run in the cloud's network namespace; none where it has none."""
    return list(read_derivable(layout.state_file).get("inside", []))


def inside(layout: Layout) -> list[str]:
    """Before a person's command that is to run there: with the programs in PATH, and what says where their sockets are."""
    words, network = entering(layout), find_network(layout)
    if not words:
        return []
    known = variables(layout, network, os.environ.get("PATH", os.defpath))
    return [*words, "env", *(f"{name}={value}" for name, value in known.items())]


def through(entering: list[str]) -> tuple[str, ...]:
    """ssh's options for an address of the cloud's network."""
    relay = "exec 3<>/dev/tcp/%h/%p; cat <&3 & cat >&3; kill $!"
    return ("-o", f"ProxyCommand={shlex.join([*entering, 'bash', '-c', relay])}")
