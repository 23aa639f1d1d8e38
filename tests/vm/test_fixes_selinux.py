"""The fixes in a guest whose SELinux really enforces: a denial and its module, permissive mode over a reboot, loop devices.

Debian's policy knows no ovsdb_port_t, so memcached stands where CentOS has ovsdb-server: a confined service that is told to
listen on 6640 and is denied name_bind there, as in the course.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.fixes.catalogue import Catalogue
from stacklab.deploy.fixes.repair import Outcome, repair
from stacklab.deploy.profile import Recovery, Selinux
from stacklab.deploy.profiles import load_profile
from stacklab.deploy.settings import Settings
from stacklab.events import Event
from stacklab.finding import Finding
from stacklab.lab import Lab
from tests.vm.guest import Guest, built_box, guest, missing

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
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    if why := missing():
        pytest.skip(why)
    with guest(built_box(), tmp_path_factory.mktemp("selinux")) as running:
        yield running


@pytest.fixture
def deployment(debian: Guest, own_directories: Path) -> Deployment:
    shipped = load_profile("debian12-2026.1")
    profile = shipped.model_copy(
        update={
            "selinux": Selinux(module=MODULE, booleans=["httpd_can_network_connect"]),
            "units": shipped.units.model_copy(update={"switch": ["memcached"], "network_agent": "q-agt"}),
            "recovery": Recovery(loops={**FILES, "never-made": "/opt/stack/data/never-made-backing-file"}),
        }
    )
    return Deployment(Lab("intro"), profile, debian.machine, "192.0.2.1", Settings())


def ignored(event: Event) -> None:
    """Nobody looks."""


def check(deployment: Deployment, fix: str, *, permissive: bool = True) -> Finding:
    return Catalogue(permissive=permissive)[fix].check(deployment.machine, deployment.profile)


def apply(deployment: Deployment, *fixes: str, permissive: bool = True) -> list[Outcome]:
    return repair(Catalogue(permissive=permissive).these(fixes), deployment, ignored)


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
    assert found.state == "broken"
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


def test_a_module_for_another_policy_is_refused_with_what_is_missing(deployment: Deployment) -> None:
    centos = load_profile("centos7-pike").selinux
    assert centos is not None
    elsewhere = deployment.profile.model_copy(update={"selinux": centos.model_copy(update={"booleans": []})})
    found = Catalogue(permissive=False)["selinux"].check(deployment.machine, elsewhere)
    assert found.state == "broken"
    assert "does not know the types of openvswitch_t:ovsdb_port_t:tcp_socket:name_bind" in found.evidence


def test_permissive_mode_and_volume_groups_over_a_reboot(debian: Guest, deployment: Deployment) -> None:
    machine = deployment.machine
    machine.script("setenforce 1; sed -i 's/^SELINUX=.*/SELINUX=enforcing/' /etc/selinux/config", user="root")
    found = check(deployment, "selinux")
    assert found == Finding("broken", "getenforce says Enforcing; /etc/selinux/config has SELINUX=enforcing")
    (outcome,) = apply(deployment, "selinux")
    assert outcome.after.evidence == "getenforce says Permissive; /etc/selinux/config has SELINUX=permissive"
    assert apply(deployment, "selinux")[0].result == "already"
    # As stack.sh makes them. (S: lib/lvm at pike-eol)
    machine.script(
        "modprobe loop\nmkdir -p /opt/stack/data\nfor file; do group=$(basename $file -backing-file); truncate -s 64M $file\n"
        "  vgcreate -q $group $(losetup -f --show $file); lvcreate -q -L 8M -n volume-1 $group\ndone",
        *FILES.values(),
        user="root",
    )
    assert check(deployment, "loops").state == "well"

    debian.reboot()
    assert machine.run("getenforce", user="root").out.strip() == "Permissive"
    assert check(deployment, "selinux").state == "well"
    found = check(deployment, "loops")
    assert found.state == "broken"
    assert len(found.evidence.splitlines()) == 4, "two files and two groups; the file that was never made is no fault"
    (outcome,) = apply(deployment, "loops")
    assert outcome.result == "done", outcome.after.evidence
    active = machine.run("lvs", "--noheadings", "-o", "vg_name,lv_active", user="root").out.split()
    assert active == ["stack-volumes-default", "active", "stack-volumes-lvmdriver-1", "active"]
    assert apply(deployment, "loops")[0].result == "already"
