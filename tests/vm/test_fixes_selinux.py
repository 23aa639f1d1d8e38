"""The fixes in a guest whose SELinux really enforces: a denial and its module, permissive mode over a reboot, loop devices.

And the faults that need such a guest, which are the same thing backwards, so that one boot does for both. Debian's policy knows
no ovsdb_port_t, so memcached stands where CentOS has ovsdb-server: a confined service that is told to listen on 6640 and is
denied name_bind there, as in the course. The agent that asks for it there is a stand-in.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stacklab.cloud.connection import Connection
from stacklab.conditions.catalogue import ConditionCatalogue, faults
from stacklab.conditions.condition import Fault, Finding
from stacklab.conditions.machine import Target
from stacklab.conditions.runner import RepairOutcome, repair
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.profile.load import load_profile
from stacklab.deploy.profile.model import Breakable, Recovery, Selinux
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import NotRunning
from stacklab.events import Event
from stacklab.homes.libvirt.vm import Vm
from stacklab.lab import Lab
from stacklab.machines.clock import ahead
from stacklab.machines.ssh import SshMachine
from tests.vm.conftest import Journey, bring_up, put_back, quiet, restart

BOOT_SECONDS = 1200
"""Emulated, on a machine that is busy with other tests."""
MODULE = """module lab_memcached 1.0;

require {
    type memcached_t;
    type unreserved_port_t;
    class tcp_socket name_bind;
}

allow memcached_t unreserved_port_t:tcp_socket name_bind;
"""
FILES = {
    name: f"/opt/stack/data/{name}-backing-file" for name in ("stack-volumes-default", "stack-volumes-lvmdriver-1")
}


@pytest.fixture(scope="module")
def machine(made: tuple[Vm, Journey]) -> Iterator[SshMachine]:
    """The VM of all tests here, put back afterwards."""
    vm, _ = made
    if vm.state() != "running":
        bring_up(vm)
    machine = vm.machine()
    yield machine
    machine.close()
    put_back(vm)


@pytest.fixture
def deployment(machine: SshMachine, own_directories: Path) -> Deployment:
    shipped = load_profile("debian12-2026.1")
    profile = shipped.model_copy(
        update={
            "selinux": Selinux(module=MODULE, booleans=["httpd_can_network_connect"]),
            "units": shipped.units.model_copy(
                update={"switch": ["memcached"], "network_agent": "q-agt", "watch_seconds": 20}
            ),
            "recovery": Recovery(loops={**FILES, "never-made": "/opt/stack/data/never-made-backing-file"}),
        }
    )
    return Deployment(Lab("intro"), profile, machine, "192.0.2.1", Settings())


def ignored(event: Event) -> None:
    """Nobody looks."""


def check(deployment: Deployment, fix: str, *, permissive: bool = True) -> Finding:
    return ConditionCatalogue(Target(lambda: deployment), permissive=permissive)[fix].look()


def apply(deployment: Deployment, *fixes: str, permissive: bool = True) -> list[RepairOutcome]:
    return repair(ConditionCatalogue(Target(lambda: deployment), permissive=permissive).these(fixes), ignored)


def listens(deployment: Deployment, port: int) -> bool:
    """Whether memcached gets the port within a few seconds of trying."""
    look = f"for i in $(seq 20); do ! ss -ltn | grep -q ':{port} ' || exit 0; sleep 0.5; done; exit 1"
    return deployment.machine.script(look, user="root", check=False).ok


def test_a_stopped_apache_is_started_and_enabled_under_enforcing_selinux(deployment: Deployment) -> None:
    assert deployment.machine.run("getenforce", user="root").out.strip() == "Enforcing"
    deployment.machine.run("systemctl", "disable", "--now", "apache2", user="root")
    assert check(deployment, "apache").evidence == "apache2 is inactive, and will not start at boot (disabled)"
    (outcome,) = apply(deployment, "apache")
    assert outcome.result == "done", outcome.after.evidence
    (again,) = apply(deployment, "apache")
    assert again.result == "already"


def test_the_module_allows_the_one_thing_that_was_denied_and_selinux_goes_on_enforcing(deployment: Deployment) -> None:
    machine = deployment.machine
    machine.run("setenforce", "1", user="root")
    machine.script("sed -i 's/^-p .*/-p 6640/' /etc/memcached.conf; systemctl restart memcached", user="root")
    assert not listens(deployment, 6640)
    denials = machine.script("ausearch -m avc -ts recent | grep memcached", user="root").out
    assert "denied  { name_bind }" in denials
    assert "src=6640" in denials

    found = check(deployment, "selinux", permissive=False)
    assert found.state == "bad"
    assert found.evidence.splitlines()[1:] == [
        "the policy does not allow memcached_t:unreserved_port_t:tcp_socket:name_bind",
        "the boolean httpd_can_network_connect is off",
    ]
    (outcome,) = apply(deployment, "selinux", permissive=False)
    assert outcome.result == "done", outcome.after.evidence
    assert listens(deployment, 6640), "the fix has restarted it"
    assert machine.run("getenforce", user="root").out.strip() == "Enforcing"
    assert "lab_memcached" in machine.run("semodule", "-l", user="root").out
    (again,) = apply(deployment, "selinux", permissive=False)
    assert (again.result, again.changed) == ("already", False)


# --- faults: from here on the module is loaded, and SELinux enforces ----------------------------------------------------

CONNECTS = "sleep 5; exec 3<>/dev/tcp/127.0.0.1/6640"
AGENT = f"""[Service]
ExecStart=/bin/bash -c "{CONNECTS} || {{ echo \'Could not retrieve schema from \
tcp:127.0.0.1:6640: Connection refused\'; exit 1; }}; exec sleep infinity"
[Install]
WantedBy=multi-user.target
"""
STACKED = """
mkdir -p /var/lib/stacklab/stack /var/www/html/identity /var/www/html/dashboard; cd /var/lib/stacklab/stack
printf '%s\n' run=standin at=1 boot=none profile=standin services= host_ip=192.0.2.1 >began
printf '%s\n' status=0 at=2 >ended; touch ../lock log
for page in identity dashboard; do cp /var/www/html/index.html /var/www/html/$page; done
systemctl daemon-reload; systemctl enable --now apache2 devstack@q-agt standin-time
"""


@pytest.fixture(scope="module")
def stacked(machine: SshMachine) -> None:
    """The guest is as one whose stack.sh has ended well."""
    machine.put("/etc/systemd/system/devstack@q-agt.service", AGENT)
    machine.put("/etc/systemd/system/standin-time.service", AGENT.replace(CONNECTS, ":"))
    machine.script(STACKED, user="root", seconds=600)


@pytest.fixture
def broken(deployment: Deployment, stacked: None) -> dict[str, Fault]:
    """Its faults."""
    profile = deployment.profile.model_copy(update={"faults": Breakable(time=["chrony", "standin-time"])})

    def nobody() -> Connection:
        raise NotRunning("there is no cloud in the guest")

    return faults(Target(lambda: replace(deployment, profile=profile), nobody))


def settles(fault: Fault) -> Finding:
    """What it comes to look like when its units have started."""
    for _ in range(60):
        found = fault.look()
        if not found.early:
            break
        time.sleep(1)
    return found


def test_the_agent_is_denied_its_port_and_permissive_mode_is_one_repair_and_the_module_another(
    deployment: Deployment, broken: dict[str, Fault]
) -> None:
    machine, fault = deployment.machine, broken["selinux-q-agt"]
    assert fault.why_not() is None
    apply(deployment, "selinux", permissive=False)  # nothing to do after the test before
    machine.script("sed -i 's/^-p .*/-p 6640/' /etc/memcached.conf; systemctl restart memcached", user="root")
    machine.run("systemctl", "restart", "devstack@q-agt", user="root", seconds=600)
    assert settles(fault).state == "good"

    fault.inject(quiet)
    found = fault.look()
    assert found.state == "bad"
    assert found.evidence.startswith("devstack@q-agt is failed (exit-code); its journal ends:")
    assert "Could not retrieve schema from tcp:127.0.0.1:6640: Connection refused" in found.evidence
    assert "getenforce says Enforcing" in found.evidence
    assert "the policy does not allow memcached_t:unreserved_port_t:tcp_socket:name_bind" in found.evidence
    denial = found.evidence.splitlines()[-1]
    assert "denied  { name_bind }" in denial
    assert "src=6640" in denial
    assert "lab_memcached" not in machine.run("semodule", "-l", user="root").out

    # Started again, as the course did it first: it fails again.
    machine.run("systemctl", "restart", "devstack@q-agt", user="root")
    assert settles(fault).state == "bad"

    # The quick way, as a learner does it; and it is said that it is one.
    machine.script("setenforce 0; systemctl restart memcached", user="root")
    assert listens(deployment, 6640)
    machine.run("systemctl", "restart", "devstack@q-agt", user="root")
    found = fault.look()
    assert found.state == "good"
    assert "until the next reboot only" in found.evidence

    fault.inject(quiet)
    assert fault.look().state == "bad"
    # The proper way, which is also how this machine was before.
    fault.clear(quiet)
    found = fault.look()
    assert found.state == "good"
    assert "getenforce says Enforcing" in found.evidence
    assert "lab_memcached" in machine.run("semodule", "-l", user="root").out
    assert listens(deployment, 6640)
    assert machine.read("/var/lib/stacklab/faults/selinux-q-agt/state.json") is None


def test_apache_is_stopped_and_brought_back_under_enforcing_selinux(
    deployment: Deployment, broken: dict[str, Fault]
) -> None:
    fault = broken["httpd"]
    assert fault.look().state == "good"
    fault.inject(quiet)
    assert fault.look().evidence == "apache2 is inactive, and will not start at boot (disabled)"
    deployment.machine.run("systemctl", "start", "apache2", user="root")
    assert "will not start at boot" in fault.look().evidence
    fault.clear(quiet)
    assert fault.look().state == "good"


def test_the_guests_own_clock_is_slow_until_it_is_set_and_kept(
    deployment: Deployment, broken: dict[str, Fault]
) -> None:
    machine, fault = deployment.machine, broken["clock"]
    assert fault.why_not() is None
    assert fault.look().state == "good"
    fault.inject(quiet)
    fault.inject(quiet)  # no slower
    assert -7300 < ahead(machine) < -7100
    assert "behind ours; standin-time is inactive" in fault.look().evidence
    # A learner sets the clock, and forgets what should keep it.
    machine.run("date", "-s", "+2 hours", user="root")
    assert "agrees with ours; standin-time is inactive" in fault.look().evidence
    machine.run("systemctl", "start", "standin-time", user="root")
    assert fault.look().state == "good"

    fault.inject(quiet)
    fault.clear(quiet)
    assert fault.look().state == "good"
    assert abs(ahead(machine)) < 30


# --- and fixes again ------------------------------------------------------------------------------------------------------


def test_a_module_for_another_policy_is_refused_with_what_is_missing(deployment: Deployment) -> None:
    centos = load_profile("centos7-pike").selinux
    assert centos is not None
    elsewhere = deployment.profile.model_copy(update={"selinux": centos.model_copy(update={"booleans": []})})
    found = check(replace(deployment, profile=elsewhere), "selinux", permissive=False)
    assert found.state == "bad"
    assert "does not know the types of openvswitch_t:ovsdb_port_t:tcp_socket:name_bind" in found.evidence


def test_permissive_mode_and_volume_groups_over_a_reboot(deployment: Deployment) -> None:
    machine = deployment.machine
    machine.script("setenforce 1; sed -i 's/^SELINUX=.*/SELINUX=enforcing/' /etc/selinux/config", user="root")
    found = check(deployment, "selinux")
    assert found == Finding("bad", "getenforce says Enforcing; /etc/selinux/config has SELINUX=enforcing")
    (outcome,) = apply(deployment, "selinux")
    assert outcome.after.evidence == "getenforce says Permissive; /etc/selinux/config has SELINUX=permissive"
    assert apply(deployment, "selinux")[0].result == "already"
    # As stack.sh makes them. (S: lib/lvm at pike-eol)
    machine.script(
        "modprobe loop\nmkdir -p /opt/stack/data\nfor file; do group=$(basename $file -backing-file); truncate -s 64M $file\n"
        "  vgcreate -q $group $(losetup -f --show $file); lvcreate -q -L 8M -n volume-1 $group\ndone",
        *FILES.values(),
        user="root",
        seconds=600,
    )
    assert check(deployment, "loops").state == "good"

    restart(machine, BOOT_SECONDS)
    assert machine.run("getenforce", user="root").out.strip() == "Permissive"
    assert check(deployment, "selinux").state == "good"
    found = check(deployment, "loops")
    assert found.state == "bad"
    assert len(found.evidence.splitlines()) == 4, "two files and two groups; the file that was never made is no fault"
    (outcome,) = apply(deployment, "loops")
    assert outcome.result == "done", outcome.after.evidence
    active = machine.run("lvs", "--noheadings", "-o", "vg_name,lv_active", user="root").out.split()
    assert active == ["stack-volumes-default", "active", "stack-volumes-lvmdriver-1", "active"]
    assert apply(deployment, "loops")[0].result == "already"
