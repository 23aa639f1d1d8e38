"""The home `ssh` as a learner uses it: the command `lab`, a real Debian 12 machine, and a stand-in for DevStack on it."""

# ruff: noqa: F811 - a fixture that is imported and then named as an argument

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests import standin
from tests.machine.deploying import held
from tests.machine.learner import BESIDE, CONTAINER, Learner, connected, put_sleepers
from tests.machine.system_fixture import debian  # noqa: F401 - a fixture
from tests.systems import System


@pytest.fixture(scope="module")
def learner(debian: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Learner]:
    scratch, machine = tmp_path_factory.mktemp("learner"), connected(debian)
    put_sleepers(machine, *BESIDE)
    standin.bring(machine, scratch, STANDIN_SECONDS="15")
    yield Learner(scratch, debian, machine, standin.profile_data(variants=CONTAINER))
    machine.close()


ON = ("--on", "ssh:course", "--profile", "standin")


def test_a_machine_that_looks_used_is_refused_until_told_to_go_on(learner: Learner) -> None:
    learner.machine.run("systemctl", "start", "apache2", user="root")
    told = learner.up(*ON, expect=29)
    assert "looks used" in told
    assert "--even-if-used" in told
    learner.machine.run("systemctl", "stop", "apache2", user="root")


def test_killed_in_the_middle_of_the_stack_it_is_taken_up_and_ends_usable(learner: Learner) -> None:
    first = learner.start("up", "session4", "--image", str(learner.image), *ON)
    deadline = time.monotonic() + 240
    while "lab-stack" not in learner.machine.run("systemctl", "list-units", "lab-stack*", "--no-legend").out:
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline, "the stack never began"
        time.sleep(0.5)
    with held(learner.machine, "lab-stack"):
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
        began = learner.machine.read("/var/lib/stacklab/stack/began")
        assert learner.lab("status", expect=21).count("stack.sh is running there; lab attach watches it") == 1
    learner.lab("attach")
    learner.machine.run("systemctl", "start", *BESIDE, user="root")
    told = learner.up()  # without options: what was planned is known
    assert "session4 is ready" in told
    assert learner.machine.read("/var/lib/stacklab/stack/began") == began  # not run twice


def test_up_again_changes_nothing_and_a_changed_plan_is_refused(learner: Learner) -> None:
    before = learner.machine.run("systemctl", "show", "devstack@keystone", "--property=MainPID").out
    told = learner.up()
    assert "• stack.sh" not in told
    assert learner.machine.run("systemctl", "show", "devstack@keystone", "--property=MainPID").out == before
    assert "has the profile" in learner.up("--profile", "debian12-2026.1", expect=22)
    assert "lives on the home" in learner.up("--on", "embedded", expect=22)
    assert "means nothing" in learner.up("--memory", "4096", expect=22)


def test_status_names_every_unit_and_tells_when_one_is_dead(learner: Learner) -> None:
    told = json.loads(learner.lab("status", "--json"))
    assert told["state"] == "running"
    assert {"keystone", "n-cpu", "apache2", "mariadb"} <= {service["name"] for service in told["services"]}
    learner.machine.run("systemctl", "stop", "devstack@g-api", user="root")
    told = json.loads(learner.lab("status", "--json", expect=21))
    assert [service["name"] for service in told["services"] if service["state"] != "running"] == ["g-api"]
    learner.lab("restart", "g-api")
    assert json.loads(learner.lab("status", "--json"))["state"] == "running"


def test_logs_come_from_the_machines_journal(learner: Learner) -> None:
    assert "keystone is ready" in learner.lab("logs", "keystone", "-n", "1000")
    assert "did you mean 'keystone'" in learner.lab("logs", "keyston", expect=41)


def test_the_cloud_is_reached_with_the_labs_own_clouds_file(learner: Learner) -> None:
    clouds = next(learner.home.rglob("clouds.yaml"))
    assert clouds.stat().st_mode & 0o777 == 0o600
    assert "lab-admin" in learner.lab("openrc", "--admin")
    assert "block-storage" in learner.lab("openstack", "--admin", "catalog", "list")


def test_session_3_looks_at_what_devstack_was_really_deployed_with(learner: Learner) -> None:
    told = json.loads(learner.lab("check", "session3/devstack", "--json"))
    passed = {step["id"]: step["actual"] for step in told["steps"] if step["status"] == "passed"}
    assert set(passed) == {"clone", "local-conf", "stack", "horizon"}
    assert passed["local-conf"].startswith("/opt/stack/devstack/local.conf: ")
    assert "stack.sh: ended well after" in passed["stack"]
    assert learner.system.address in passed["horizon"]
    change = 'sed -i "s/^HOST_IP=.*/HOST_IP=$1/" /opt/stack/devstack/local.conf'
    learner.machine.script(change, "192.0.2.9", user="root")
    told = json.loads(learner.lab("check", "session3/devstack", "--json", expect=1))
    learner.machine.script(change, learner.system.address, user="root")
    failed = {step["id"]: step["actual"] for step in told["steps"] if step["status"] == "failed"}
    assert list(failed) == ["local-conf"]
    assert "HOST_IP is 192.0.2.9, which is no address of the machine" in failed["local-conf"]


def test_after_a_restart_up_makes_it_usable_again(learner: Learner) -> None:
    learner.machine.run("systemctl", "disable", "apache2", "memcached", user="root")  # as on CentOS 7
    learner.machine.close()
    learner.system.reboot()
    told = json.loads(learner.lab("status", "--json", expect=21))
    assert {service["name"] for service in told["services"] if service["state"] != "running"} == {
        "apache2",
        "memcached",
    }
    assert "✗ apache" in learner.lab("fixes", "list", expect=1)
    learner.up()
    assert json.loads(learner.lab("status", "--json"))["state"] == "running"
    assert "enabled" in learner.machine.run("systemctl", "is-enabled", "apache2").out


def test_what_only_a_vm_can_do_is_refused_in_a_line(learner: Learner) -> None:
    assert "the machine is yours" in learner.lab("down", expect=22)


def test_a_reset_without_checkpoints_tells_what_would_go_and_asks(learner: Learner) -> None:
    told = learner.lab("reset", expect=2)  # nobody answers
    assert "This home has no checkpoints" in told
    assert "(nothing)" in told
    assert "--yes agrees" in told
    learner.lab("reset", "--yes")
    assert json.loads(learner.lab("status", "--json"))["state"] == "running"


def test_another_lab_does_not_take_the_machine(learner: Learner) -> None:
    told = learner.lab("--lab", "other", "up", "session4", "--image", str(learner.image), *ON, expect=29)
    assert "'intro'" in told
    learner.lab("--lab", "other", "destroy", "--yes")


def test_destroy_leaves_nothing_here_and_the_machine_alone(learner: Learner) -> None:
    told = learner.lab("destroy", "--yes")
    assert "the machine itself and the OpenStack on it stay" in told
    state = learner.home / ".local" / "state" / "stacklab"
    assert [path.name for path in state.glob("*") if path.is_dir()] == []
    assert "active" in learner.machine.run("systemctl", "is-active", "devstack@keystone").out
