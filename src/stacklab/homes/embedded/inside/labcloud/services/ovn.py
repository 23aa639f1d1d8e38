"""Open vSwitch and OVN, six daemons in the cloud's network namespace. Where one of them ends, all are started anew.

The databases are in run/ovn, under the names that `ovn-nbctl`, `ovn-sbctl` and `ovs-vsctl` look for. What they hold is
Neutron's: it is written anew from Neutron's own database when that one starts or is put back (services/neutron.py).
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from labcloud import settings
from labcloud.child import die_with

DIRECTORY = settings.HOME / "run" / "ovn"
READY = DIRECTORY / "ready"
GATEWAY = "172.24.4.1/24"  # of the network `public`, on the bridge to it, as on DevStack's machine
DATABASES = {"db": "openvswitch/vswitch", "ovnnb_db": "ovn/ovn-nb", "ovnsb_db": "ovn/ovn-sb"}
"""Each with its schema."""
PATIENCE = "--timeout=60"


def main():
    DIRECTORY.mkdir(exist_ok=True)
    for name, schema in DATABASES.items():
        make_database(DIRECTORY / f"{name}.db", schema)
    daemons = [start("ovsdb-server", f"--remote=punix:{name}.sock", f"{name}.db", name=name) for name in DATABASES]
    wait_for(lambda: all((DIRECTORY / f"{name}.sock").exists() for name in DATABASES), "the databases")
    vsctl("--no-wait", "set", "Open_vSwitch", ".", *(f"external_ids:{key}={value}" for key, value in chassis().items()))
    daemons.append(start("ovs-vswitchd", name="ovs-vswitchd"))
    for bridge, more in (("br-ex", ()), ("br-int", ("fail-mode=secure",))):
        vsctl("--may-exist", "add-br", bridge, "--", "set", "Bridge", bridge, "datapath_type=netdev", *more)
    # ovs-vsctl does not wait where the database has the bridge from before.
    wait_for(
        lambda: subprocess.run(["ip", "link", "show", "br-ex"], capture_output=True, check=False).returncode == 0,
        "br-ex",
    )
    run("ip", "address", "replace", GATEWAY, "dev", "br-ex")
    run("ip", "link", "set", "br-ex", "up")
    daemons.append(
        start("ovn-northd", "--ovnnb-db=unix:ovnnb_db.sock", "--ovnsb-db=unix:ovnsb_db.sock", name="ovn-northd")
    )
    daemons.append(start("ovn-controller", "unix:db.sock", name="ovn-controller", control=False))
    READY.touch()
    watch(daemons)


def make_database(path, schema):
    """A new one where there is none, or where what is there is none."""
    if path.exists() and subprocess.run(["ovsdb-tool", "db-name", path], capture_output=True, check=False).returncode:
        path.unlink()
    if not path.exists():
        run("ovsdb-tool", "create", str(path), str(Path(os.environ["LABCLOUD_OVN_SHARE"]) / f"{schema}.ovsschema"))


def chassis():
    """What OVN is to know of this machine; its id stays the same over restarts."""
    return {
        "system-id": uuid.uuid5(uuid.NAMESPACE_URL, str(settings.HOME)),
        "hostname": "lab",
        "ovn-remote": f"unix:{DIRECTORY}/ovnsb_db.sock",
        "ovn-encap-type": "geneve",
        "ovn-encap-ip": "127.0.0.1",
        "ovn-bridge-datapath-type": "netdev",
        "ovn-bridge-mappings": "public:br-ex",
        "ovn-cms-options": "enable-chassis-as-gw",
    }


def start(program, *arguments, name, control=True):
    """A daemon in the foreground, which ends with us; its directory is the one of the sockets, whose names are limited."""
    parent = os.getpid()
    (DIRECTORY / f"{name}.pid").unlink(missing_ok=True)
    options = [f"--pidfile={DIRECTORY / name}.pid", *([f"--unixctl={DIRECTORY / name}.ctl"] if control else [])]
    return subprocess.Popen(
        [program, *options, "-vconsole:warn", *arguments], cwd=DIRECTORY, preexec_fn=lambda: die_with(parent)
    )


def run(*words):
    subprocess.run(words, check=True, cwd=DIRECTORY)


def vsctl(*words):
    run("ovs-vsctl", PATIENCE, *words)


def wait_for(there, what, patience=60):
    deadline = time.monotonic() + patience
    while not there():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not there after {patience} s")
        time.sleep(0.02)


def watch(daemons):
    """Until one of them ends, or we are to: then none of them goes on."""
    signal.signal(signal.SIGTERM, lambda *ignored: sys.exit(0))
    try:
        pid, status = os.wait()
        name = next(Path(daemon.args[0]).name for daemon in daemons if daemon.pid == pid)
        raise SystemExit(f"{name} ended with {os.waitstatus_to_exitcode(status)}")
    finally:
        READY.unlink(missing_ok=True)
        for daemon in daemons:
            daemon.terminate()


if __name__ == "__main__":
    main()
