"""Faults on a real Debian with systemd, Apache, Open vSwitch and OVN: broken, seen, repaired by hand, mended, survived.

DevStack and its APIs are the stand-in of tests/standin, which looks up what it is asked in the same files, units and
directories as the real services; tests/acceptance breaks a real DevStack.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from stacklab.cloud.connection import Connection
from stacklab.conditions.catalogue import faults
from stacklab.conditions.condition import Fault
from stacklab.conditions.machine import Target
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.localconf import render as localconf
from stacklab.deploy.prepare import preparation, source
from stacklab.deploy.profile.model import AddressPlace, Breakable, FileEntry
from stacklab.deploy.stack import stacking
from stacklab.errors import HomeUnavailable
from stacklab.machines.base import Machine
from stacklab.stages import run_stages
from tests import standin
from tests.machine.deploying import fresh_deployment
from tests.machine.test_fixes import PACKAGES
from tests.systems import System, missing, system

UNITS = ["keystone", "n-api", "n-cpu", "neutron-api", "q-agt", "c-api", "g-api"]
BREAKABLE = Breakable(
    password=FileEntry(file="/etc/cinder/cinder.conf", section="keystone_authtoken", key="password", unit="c-api"),
    store=FileEntry(
        file="/etc/glance/glance-api.conf", section="glance_store", key="filesystem_store_datadir", unit="g-api"
    ),
    network=AddressPlace(external_id="ovn-remote", agent="ovn-controller"),
)
AGENT = AddressPlace(
    agent="neutron-openvswitch-agent",
    entry=FileEntry(file="/etc/neutron/plugins/ml2/ml2_conf.ini", section="ovs", key="local_ip", unit="q-agt"),
)
STORE = "/opt/stack/data/glance/images"
OVN = """
ovn-sbctl set-connection ptcp:6642
ovs-vsctl set open_vswitch . external_ids:ovn-remote="tcp:$1:6642" external_ids:ovn-encap-ip="$1" \
  external_ids:ovn-encap-type=geneve
for i in $(seq 600); do [ "$(ovn-appctl -t ovn-controller connection-status)" != connected ] || exit 0; sleep 0.2; done
exit 1
"""
AS_IT_IS = """
stat -c '%n %U %G %a' /etc/cinder/* /etc/neutron/plugins/ml2/* /var/lib/stacklab/faults/* 2>/dev/null || :
sha256sum /etc/cinder/* /etc/glance/* /etc/neutron/plugins/ml2/*; ovs-vsctl get open_vswitch . external_ids
ls -ln /opt/stack/data/glance/images; grep -c lab-small-store /proc/mounts || :
systemctl is-enabled apache2; systemctl is-active apache2 $(ls /etc/systemd/system | grep ^devstack@)
"""


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    if why := missing():
        pytest.skip(why)
    with system(tmp_path_factory.mktemp("faults"), PACKAGES) as running:
        # Of PACKAGES, which are shared to have one root file system for both, this needs only the switch.
        running.ssh(
            "systemctl disable --now mariadb rabbitmq-server libvirtd libvirtd.socket", user="root", seconds=600
        )
        yield running


@pytest.fixture(scope="module")
def target(debian: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A machine whose stack.sh has ended well, OVN up, an image in the store."""
    scratch = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patched:
        for kind in ("STATE", "DATA", "CACHE", "CONFIG"):
            patched.setenv(f"XDG_{kind}_HOME", str(scratch / kind.lower()))
        made = fresh_deployment(debian, scratch)
        units = made.profile.units.model_copy(update={"devstack": UNITS, "network_agent": "q-agt"})
        profile = made.profile.model_copy(update={"units": units, "faults": BREAKABLE})
        deployment = replace(made, profile=profile)
        standin.behave(deployment.machine, STANDIN_SECONDS="1", STANDIN_UNITS=" ".join(UNITS))
        run_stages(
            deployment.lab,
            [
                *(*preparation.stages(deployment), *source.stages(deployment), *localconf.stages(deployment)),
                *stacking.stages(deployment),
            ],
            lambda _: None,
        )
        machine = deployment.machine
        machine.script(OVN, debian.address, user="root", seconds=600)
        machine.script(f"systemctl enable --now apache2; echo an image >{STORE}/old-image", user="root")
        clouds = scratch / "clouds.yaml"
        clouds.write_text(clouds_yaml(deployment))
        yield Target(lambda: deployment, lambda: Connection(clouds, "a"))
        machine.close()


def clouds_yaml(deployment: Deployment) -> str:
    login = {
        "auth_url": f"http://{deployment.host_ip}/identity", "username": "admin", "project_name": "admin",
        "password": deployment.lab.secret("admin"), "user_domain_id": "default", "project_domain_id": "default",
    }  # fmt: skip
    return json.dumps({"clouds": {"a": {"auth": login, "region_name": "RegionOne", "identity_api_version": "3"}}})


@dataclass(frozen=True)
class Case:
    """A fault, what its look must show of it, and repairs that a learner could come upon (shell, as root)."""

    fault: str
    shows: str
    repairs: tuple[str, ...]
    profile: Breakable = BREAKABLE

    def of(self, target: Target) -> Fault:
        deployment = target.deployment()
        profile = deployment.profile.model_copy(update={"faults": self.profile})
        return faults(Target(lambda: replace(deployment, profile=profile), target.cloud))[self.fault]


SET_PASSWORD = """
import json, re, urllib.request as r
wrong = re.search(r"^password = (.*)$", open("/etc/cinder/cinder.conf").read(), re.M)[1]
body = json.dumps({"user": {"password": wrong}}).encode()
r.urlopen(r.Request("http://127.0.0.1/identity/v3/users/id-of-cinder", body, {"X-Auth-Token": "standin-token"}, method="PATCH"))
"""
CASES = {
    "httpd": Case(
        "httpd",
        "apache2 is inactive, and will not start at boot (disabled)",
        ("systemctl enable --now apache2", "systemctl start apache2; systemctl enable apache2"),
    ),
    "network-ovn": Case(
        "network",
        "tcp:172.24.4.254:6642; ovn-controller says of OVN's southbound database: not connected",
        ('ovs-vsctl set open_vswitch . external_ids:ovn-remote="tcp:127.0.0.1:6642"',),
    ),
    "network-ovs": Case(
        "network",
        "is 172.24.4.254; that is no address of this machine",
        (
            "ip=$(hostname -I | cut -d' ' -f1); sed -i \"s/^local_ip.*/local_ip=$ip/\" /etc/neutron/plugins/ml2/ml2_conf.ini\n"
            "systemctl restart devstack@q-agt",
            # the address comes back to the machine
            "ip address add 172.24.4.254/32 dev lo; systemctl restart devstack@q-agt",
        ),
        BREAKABLE.model_copy(update={"network": AGENT}),
    ),
    "glance-full": Case(
        "glance-full",
        "Glance takes no image: HTTP 413: Image storage media is full",
        (f"umount {STORE}", "mount -o remount,size=1g /var/lib/stacklab/faults/glance-full/disk"),
    ),
    "wrong-password": Case(
        "wrong-password",
        "Cinder refuses a good token: HTTP 503",
        (
            f"python3 - <<'END'\n{SET_PASSWORD}END\n",
            "right=$(sed -n 's/^SERVICE_PASSWORD=//p' /opt/stack/devstack/local.conf | tr -d \\'\\\")\n"
            'sed -i "0,/^password/s/^password.*/password=$right/" /etc/cinder/cinder.conf\nsystemctl restart devstack@c-api',
        ),
    ),
    "nova-compute": Case("nova-compute", "devstack@n-cpu is inactive", ("systemctl start devstack@n-cpu",)),
}


def quiet(said: str) -> None:
    """Nobody listens."""


def state(machine: Machine) -> str:
    """What a fault could leave behind."""
    return machine.script(AS_IT_IS, user="root", check=False).out


def reset(machine: Machine) -> None:
    """What repairs by hand leave behind."""
    machine.script(
        "ip address del 172.24.4.254/32 dev lo 2>/dev/null || :; rm -f /opt/stack/standin/users.json", user="root"
    )


def settles(fault: Fault, machine: Machine) -> str:
    """The state that a fault has once its services have started; a short wait, for `systemctl start` does not wait."""
    for _ in range(40):
        found = fault.look()
        if found.state == "good":
            return found.state
        machine.run("sleep", "0.25")
    return f"{found.state}: {found.evidence}"


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_broken_seen_and_any_repair_by_hand_counts(target: Target, name: str) -> None:
    case, machine = CASES[name], target.deployment().machine
    fault = case.of(target)
    assert fault.why_not() is None
    for repair in case.repairs:
        assert settles(fault, machine) == "good"
        fault.inject(quiet)
        found = fault.look()
        assert found.state == "bad"
        assert case.shows in " ".join(found.evidence.split()), found.evidence
        assert target.deployment().lab.secret("service") not in found.evidence
        machine.script(repair, user="root")
        assert settles(fault, machine) == "good", repair
        fault.clear(quiet)  # what it kept and left is cleared away; what was repaired stays so
        assert fault.look().state == "good"
        assert machine.run("ls", "/var/lib/stacklab/faults", user="root", check=False).out == ""
        reset(machine)
        restore(machine, fault)


def restore(machine: Machine, fault: Fault) -> None:
    """The state that the next one starts from, where the repair was another one than going back."""
    if fault.look().state != "good":
        fault.clear(quiet)


class Killed(BaseException):
    """As if the program had ended here."""


def dying(after: int) -> Callable[[str], None]:
    """A progress that ends everything when the action of this number (from 0) is about to begin."""
    left = after

    def progress(said: str) -> None:
        nonlocal left
        if left == 0:
            raise Killed(said)
        left -= 1

    return progress


@pytest.mark.parametrize("name", CASES)
def test_mending_brings_back_all_to_the_last_byte_also_from_half_way(target: Target, name: str) -> None:
    machine, fault = target.deployment().machine, CASES[name].of(target)
    assert settles(fault, machine) == "good"
    before = state(machine)
    for point in range(20):
        with contextlib.suppress(Killed):
            fault.inject(dying(point))
            break  # it has no action of this number: this time it was broken to the end
        if point % 2:  # mending can be killed, too
            with contextlib.suppress(Killed):
                fault.clear(dying(1))
        fault.clear(quiet)
        assert fault.look().state == "good", point
        assert state(machine) == before, point
    assert 0 < point < 19
    fault.inject(quiet)  # again: nothing of the way back is lost
    assert state(machine) != before
    kept = machine.script("find /var/lib/stacklab/faults -xdev -type f -perm /077", user="root", check=False).out
    assert kept == "", "what is kept is root's alone"
    for _ in ("mended", "well already"):
        fault.clear(quiet)
        assert fault.look().state == "good"
        assert state(machine) == before


def used(machine: Machine) -> int:
    """KiB on the machine's own disk, without what is mounted there. (df tells of the host's disk, on which others write.)"""
    there = machine.run("du", "-skx", "/opt/stack", "/var/lib/stacklab", user="root").lines
    return sum(int(line.split()[0]) for line in there)


def test_an_upload_meets_a_full_store_and_what_was_there_is_still_read(target: Target) -> None:
    machine, fault = target.deployment().machine, CASES["glance-full"].of(target)
    before = used(machine)
    fault.inject(quiet)
    try:
        assert machine.run("cat", f"{STORE}/old-image", user="root").out == "an image\n"
        assert abs(used(machine) - before) < 1024
        # Room in the small file system is no repair: no real image fits in.
        machine.script(f"rm {STORE}/upload-that-was-never-finished", user="root")
        found = fault.look()
        assert found.state == "bad"
        assert "has room for 8 MiB" in found.evidence
        # What is uploaded and deleted meanwhile is not lost, nor does it come back.
        machine.script(f"echo new >{STORE}/new-image; rm {STORE}/old-image", user="root")
    finally:
        fault.clear(quiet)
    assert machine.run("ls", STORE, user="root").lines == ["new-image"]
    machine.script(f"rm {STORE}/new-image; echo an image >{STORE}/old-image", user="root")


def test_a_password_that_was_changed_twice_is_made_one_again(target: Target) -> None:
    """The learner gives the user a third password: neither the file's nor the old one."""
    machine, fault = target.deployment().machine, CASES["wrong-password"].of(target)
    before = state(machine)
    fault.inject(quiet)
    machine.put("/opt/stack/standin/users.json", '{"cinder": "a third one"}', owner="stack")
    fault.clear(quiet)
    assert fault.look().state == "good"
    assert state(machine) == before
    reset(machine)


def test_a_container_has_no_clock_of_its_own_and_debian_no_selinux(target: Target) -> None:
    every = faults(target)
    why = every["clock"].why_not()
    assert why is not None
    assert "is a container (systemd-nspawn): its clock is its host's" in why
    with pytest.raises(HomeUnavailable, match="its clock is its host's"):
        every["clock"].inject(quiet)
    assert every["clock"].look().state == "not_applicable"
    assert every["selinux-q-agt"].why_not() == "this distribution comes without SELinux"
    assert every["selinux-q-agt"].look().state == "not_applicable"


def test_a_machine_without_the_thing_says_so(target: Target) -> None:
    deployment = target.deployment()
    bare = deployment.profile.model_copy(update={"faults": Breakable(compute="no-such")})
    every = faults(Target(lambda: replace(deployment, profile=bare), target.cloud))
    said = {name: every[name].why_not() for name in ("nova-compute", "wrong-password", "glance-full", "network")}
    assert said["nova-compute"] == "the machine has no unit devstack@no-such.service"
    assert all("the profile standin does not say" in str(said[name]) for name in said if name != "nova-compute")


def test_everything_broken_at_once_is_mended_after_a_reboot(target: Target, debian: System) -> None:
    machine = target.deployment().machine
    for name in ("network-ovn", "network-ovs"):  # one at a time: both are the fault `network`
        every = [CASES[name].of(target) for name in CASES if not name.startswith("network")]
        every.insert(-1, CASES[name].of(target))
        before = state(machine)
        for fault in reversed(every):  # Apache last: the others' symptoms are seen through it
            fault.inject(quiet)
        debian.reboot()
        machine.close()
        assert every[0].look().state == "bad"
        for fault in every:
            fault.clear(quiet)
        assert [fault.look().state for fault in every] == ["good"] * len(every)
        assert state(machine) == before
