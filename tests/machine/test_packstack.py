"""PackStack in DevStack's place: the command `lab`, a real Debian 12 machine, a stand-in for packstack on it."""

# ruff: noqa: F811 - a fixture that is imported and then named as an argument

from __future__ import annotations

import configparser
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stacklab.deploy import packstack
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.packstack import switching
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.deploy.stack import stacking
from stacklab.deploy.stack.detached import ANSWERS
from stacklab.deploy.stack.following import LogCopy, StackProgress
from stacklab.errors import MachineInUse, StackFailed
from stacklab.events import StageEnded
from stacklab.lab import Lab
from stacklab.machines.ssh import SshMachine
from stacklab.stages import run_stages
from tests import standin
from tests.machine.deploying import connection, held
from tests.machine.learner import CONTAINER, SLEEPER, Learner, connected, put_sleepers
from tests.machine.system_fixture import debian  # noqa: F401 - a fixture
from tests.standin import packstack_standin
from tests.systems import System

BESIDE = ("httpd", "memcached", "mariadb", "rabbitmq-server", "libvirtd")
"""What stands beside OpenStack's own services on a real machine, and here is a sleeping unit of the same name."""
NETWORKS = ("NetworkManager", "network")
ON = ("--on", "ssh:course", "--profile", "standin-packstack")
_CLEAR = """
systemctl stop lab-packstack 2>/dev/null || true
systemctl reset-failed lab-packstack 2>/dev/null || true
units=$(cd /etc/systemd/system; ls openstack-*.service neutron-*.service 2>/dev/null || true)
[ -z "$units" ] || systemctl disable --quiet --now $units
for unit in $units; do rm "/etc/systemd/system/$unit"; done
rm -rf /var/lib/stacklab /etc/stacklab
systemctl daemon-reload
"""


@pytest.fixture(scope="module")
def machine(debian: System) -> Iterator[SshMachine]:
    """The machine with what a CentOS has: NetworkManager, and the service `network` beside it."""
    there = connected(debian)
    for name in NETWORKS:
        there.put(f"/etc/systemd/system/{name}.service", SLEEPER)
    put_sleepers(there, *BESIDE)
    there.run("systemctl", "enable", "--now", "NetworkManager", user="root")
    yield there
    there.close()


@pytest.fixture(scope="module")
def learner(debian: System, machine: SshMachine, tmp_path_factory: pytest.TempPathFactory) -> Learner:
    scratch = tmp_path_factory.mktemp("learner")
    machine.script(_CLEAR, user="root")
    packstack_standin.bring(machine, STANDIN_SECONDS="10")
    return Learner(scratch, debian, machine, packstack_standin.packstack_profile_data(variants=CONTAINER))


@pytest.fixture
def deployment(debian: System, machine: SshMachine, own_directories: Path) -> Iterator[Deployment]:
    """The machine as a fresh lab sees it, with a connection that notices soon that it is lost."""
    machine.script(_CLEAR, user="root")
    packstack_standin.bring(machine, STANDIN_SECONDS="1")
    lab = Lab("deploy")
    lab.update(session="session4")
    profile = Profile.model_validate(packstack_standin.packstack_profile_data())
    there = connection(debian)
    yield Deployment(lab=lab, profile=profile, machine=there, host_ip=debian.address, settings=Settings())
    there.close()
    machine.script(_CLEAR, user="root")


def up(deployment: Deployment) -> dict[str, StageEnded]:
    """The stages between a machine that lets us in and packstack's good end; how each ended."""
    ended: dict[str, StageEnded] = {}

    def emit(event: object) -> None:
        if isinstance(event, StageEnded):
            ended[event.stage] = event

    run_stages(deployment.lab, packstack.stages(deployment), emit)
    return ended


# --- the parts -----------------------------------------------------------------------------------------------------------


def test_answer_file_is_roots_alone_and_what_packstack_makes_of_it_is_a_copy(deployment: Deployment) -> None:
    first = up(deployment)
    machine = deployment.machine
    assert first["stack"].outcome == "done"
    held = machine.run("stat", "-c", "%U %a", ANSWERS, f"{ANSWERS}.used", user="root").lines
    assert held == ["root 600", "root 600"]
    answers = configparser.ConfigParser()
    answers.read_string((machine.read(ANSWERS) or b"").decode())
    assert answers["general"]["CONFIG_KEYSTONE_ADMIN_PW"] == deployment.lab.secret("admin")
    assert answers["general"]["CONFIG_CONTROLLER_HOST"] == deployment.host_ip
    assert b"made-up" in (machine.read(f"{ANSWERS}.used") or b"")
    assert b"made-up" not in (machine.read(ANSWERS) or b"")
    assert not {"source", "local-conf", "pip", "user", "fixes"} & first.keys()
    assert not machine.run("test", "-e", "/opt/stack/devstack", check=False).ok
    second = up(deployment)
    assert {name: event.outcome for name, event in second.items() if event.outcome != "already"} == {}


def test_network_manager_is_off_and_the_service_network_in_its_place(deployment: Deployment) -> None:
    deployment.machine.run("systemctl", "enable", "--now", "NetworkManager", user="root")
    stage = switching.stages(deployment)[0]
    assert stage.already() is None
    stage.run(lambda _: None)
    assert deployment.machine.run("systemctl", "is-active", *NETWORKS, check=False).lines == ["inactive", "active"]
    assert deployment.machine.run("systemctl", "is-enabled", *NETWORKS, check=False).lines == ["disabled", "enabled"]
    assert stage.already()


def test_failure_is_named_with_its_cause_and_the_same_command_goes_on(deployment: Deployment) -> None:
    standin.behave(deployment.machine, STANDIN_SECONDS="1", STANDIN_FAIL="package")
    with pytest.raises(StackFailed) as raised:
        up(deployment)
    message, advice = raised.value.message, raised.value.advice
    assert message.startswith("packstack failed with exit status 1")
    assert "yum -d 0 -e 0 -y install openstack-nova-api" in message
    assert "none of the machine's repositories" in message
    assert "yum repolist" in advice
    assert "packstack goes over everything once more" in advice
    assert "unstack" not in advice
    standin.behave(deployment.machine, STANDIN_SECONDS="1")
    assert stacking.stages(deployment)[0].run(lambda _: None).startswith("packstack took")
    progress = StackProgress()
    log = LogCopy(deployment.lab, "packstack", []).text()
    progress.feed(log.encode())
    assert progress.phases[1:] == [
        "Preparing what Puppet is to make",
        *(f"Puppet makes the {role}" for role in ("controller", "network", "compute")),
    ]
    assert re.match(r"2\d{3}-\d\d-\d\d \d\d:\d\d", log)  # its lines have got times


def test_a_machine_without_packstack_says_so(deployment: Deployment) -> None:
    deployment.machine.run("rm", "/usr/local/bin/packstack", user="root")
    with pytest.raises(StackFailed, match="PackStack is not installed on the machine"):
        up(deployment)


def test_one_that_somebody_runs_by_hand_is_left_alone(deployment: Deployment) -> None:
    for stage in packstack.stages(deployment)[:-1]:
        stage.already() or stage.run(lambda _: None)
    standin.behave(deployment.machine, STANDIN_SECONDS="120")  # longer than it takes to look for it
    deployment.machine.script(
        f"cp {ANSWERS} /root/mine; nohup packstack --answer-file=/root/mine >/dev/null 2>&1 & sleep 1", user="root"
    )
    with pytest.raises(MachineInUse, match="somebody runs a packstack by hand"):
        stacking.start(deployment, "packstack")
    deployment.machine.run("pkill", "-f", "[b]in/packstack --answer-file=/root/mine", user="root")


# --- the whole, by the command `lab` -------------------------------------------------------------------------------------


def test_killed_in_the_middle_it_is_taken_up_and_ends_usable(learner: Learner) -> None:
    first = learner.start("up", "session4", "--image", str(learner.image), *ON)
    deadline = time.monotonic() + 240
    while "lab-packstack" not in learner.machine.run("systemctl", "list-units", "lab-packstack*", "--no-legend").out:
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline, "packstack never began"
        time.sleep(0.3)
    with held(learner.machine, "lab-packstack"):
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
        began = learner.machine.read("/var/lib/stacklab/packstack/began")
        assert learner.lab("status", expect=21).count("packstack is running there; lab attach watches it") == 1
    assert "packstack took" in learner.lab("attach")
    learner.machine.run("systemctl", "start", *BESIDE, user="root")
    answer = learner.up()  # without options: what was planned is known
    assert "session4 is ready" in answer
    assert learner.machine.read("/var/lib/stacklab/packstack/began") == began  # not run twice
    record = next(learner.home.rglob("lab.json"))
    assert json.loads(record.read_text())["content"]["service_project"] == "services"


def test_status_names_the_units_by_their_real_names(learner: Learner) -> None:
    answer = json.loads(learner.lab("status", "--json"))
    assert answer["state"] == "running"
    assert {"openstack-nova-compute", "neutron-server", "httpd", "mariadb"} <= {
        service["name"] for service in answer["services"]
    }
    learner.machine.run("systemctl", "stop", "openstack-glance-api", user="root")
    answer = json.loads(learner.lab("status", "--json", expect=21))
    assert [service["name"] for service in answer["services"] if service["state"] != "running"] == [
        "openstack-glance-api"
    ]
    learner.lab("restart", "openstack-glance-api")
    assert json.loads(learner.lab("status", "--json"))["state"] == "running"
    assert "openstack-nova-compute is ready" in learner.lab("logs", "openstack-nova-compute", "-n", "100")


def test_the_cloud_is_reached_at_packstacks_addresses(learner: Learner) -> None:
    clouds = next(learner.home.rglob("clouds.yaml"))
    assert clouds.stat().st_mode & 0o777 == 0o600
    assert f"http://{learner.system.address}:5000/v3" in clouds.read_text()
    assert "block-storage" in learner.lab("openstack", "--admin", "catalog", "list")


def test_session_3_sees_who_made_the_cloud(learner: Learner) -> None:
    learner.lab("replay", "session3/packstack")
    answer = json.loads(learner.lab("check", "session3/packstack", "--json"))
    assert {step["id"]: step["status"] for step in answer["steps"]} == dict.fromkeys(
        ("answer-file", "packstack", "real-names", "at-boot"), "passed"
    )
    assert json.loads(learner.lab("check", "session3/roles", "--json"))["passed"] == 4
    devstack = json.loads(learner.lab("check", "session3/devstack", "--json", expect=1))
    actual = {step["id"]: step["actual"] for step in devstack["steps"]}
    assert actual["clone"] == actual["stack"] == "PackStack made this cloud, not DevStack"


def test_a_service_that_will_not_start_at_boot_is_named(learner: Learner) -> None:
    learner.machine.run("systemctl", "disable", "--quiet", "openstack-cinder-volume", user="root")
    answer = json.loads(learner.lab("check", "session3/packstack", "--json", expect=1))
    failed = {step["id"]: step["actual"] for step in answer["steps"] if step["status"] != "passed"}
    learner.machine.run("systemctl", "enable", "--quiet", "openstack-cinder-volume", user="root")
    assert list(failed) == ["at-boot"]
    assert "openstack-cinder-volume.service will not start at boot" in failed["at-boot"]


def test_repairs_of_devstacks_are_refused(learner: Learner) -> None:
    assert "PackStack made this cloud" in learner.lab("fixes", "list", expect=43)
    assert "PackStack made this cloud" in learner.lab("recover", expect=43)


def test_after_a_restart_of_the_machine_all_is_there(learner: Learner) -> None:
    learner.machine.close()
    learner.system.reboot()
    assert json.loads(learner.lab("status", "--json"))["state"] == "running"
    learner.lab("destroy", "--yes")
