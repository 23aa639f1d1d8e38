"""`lab up --on libvirt` as a learner runs it: a real VM, a stand-in for DevStack; then damage and reset.

The tests build on one another, in this order. The VM is that of all tests here; `lab` finds it made, as after an interruption.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from stacklab.errors import MachineUnreachable
from stacklab.homes.libvirt.vm import Vm
from tests import standin
from tests.machine.learner import BESIDE, put_sleepers
from tests.machine.learner import LAB as LAB_PROGRAM
from tests.measure import measured
from tests.vm.conftest import LAB, Journey, bring_up, put_back

UNITS = ["keystone", "n-api", "q-ovn-agent", "neutron-api", "placement-api", "n-cpu", "c-api", "g-api"]
DAMAGED = "/opt/stack/devstack/stack.sh"
FOLLOWING = " · "
"""What a line of the follower of stack.sh has between phase, time and detail."""


def said_by(process: subprocess.Popen[str], said: list[str]) -> Iterator[str]:
    """The lines of the process as they come, each kept in `said`, too."""
    assert process.stdout
    for line in process.stdout:
        said.append(line)
        yield line


@dataclass
class Course:
    """A learner, the VM, and what `lab up` said on its way."""

    vm: Vm
    environment: dict[str, str]
    options: tuple[str, ...]

    def lab(self, *arguments: str, expect: int = 0, seconds: float = 1800) -> str:
        argv = [LAB_PROGRAM, "--lab", LAB, *arguments]
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def up(self, *more: str) -> str:
        return self.lab("up", "session4", *self.options, *more)

    def pids(self) -> dict[str, str]:
        """The main process of every stand-in service."""
        shown = self.vm.machine().run(
            "systemctl", "show", *(f"devstack@{unit}" for unit in UNITS), "--property=Id,MainPID"
        )
        blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.out.strip().split("\n\n")]
        return {block["Id"]: block["MainPID"] for block in blocks}


@pytest.fixture(scope="module")
def course(
    made: tuple[Vm, Journey], box: Path, pool: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Course]:
    vm, _ = made
    if vm.state() != "running":
        bring_up(vm)
    scratch = tmp_path_factory.mktemp("course")
    profiles = scratch / "config" / "stacklab" / "profiles"
    profiles.mkdir(parents=True)
    data = standin.profile_data(locale="C.utf8", selinux={"config": "/etc/selinux/config"})
    data["units"] |= {"devstack": UNITS}
    data["box"] |= {"user": vm.profile.box.user}
    (profiles / "standin.yaml").write_text(json.dumps(data))
    (profiles.parent / "config.yaml").write_text(json.dumps({"deploy": {"libvirt_pool": pool}}))
    image = scratch / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    machine = vm.machine()
    put_sleepers(machine, *BESIDE)
    machine.run("systemctl", "start", *BESIDE, user="root")
    standin.bring(machine, scratch, STANDIN_SECONDS="20", STANDIN_UNITS=" ".join(UNITS))
    environment = os.environ | {"XDG_CONFIG_HOME": str(scratch / "config"), "NO_COLOR": "1"}
    yield Course(vm, environment, ("--on", "libvirt", "--profile", "standin", "--box", str(box), "--image", str(image)))
    put_back(vm)


def test_a_dropped_connection_and_a_killed_lab_do_not_end_the_stack_and_up_again_finishes(course: Course) -> None:
    machine = course.vm.machine()
    assert machine.run("getenforce").out.strip() == "Enforcing"
    argv = [LAB_PROGRAM, "--lab", LAB, "up", "session4", *course.options]
    first = subprocess.Popen(
        argv,
        env=course.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said: list[str] = []
    on_the_way = (line for line in said_by(first, said) if FOLLOWING in line)
    assert next(on_the_way, ""), f"it ended: {''.join(said)}"
    # Every session of SSH at once, ours too: what a network that goes away does. Whether lab was asking the machine at that
    # moment, and so says that the connection was lost, or was between two questions, is chance; that it goes on is not.
    with suppress(MachineUnreachable):
        machine.run("pkill", "-KILL", "-f", "sshd: vagrant", user="root", check=False)
    assert machine.read("/var/lib/stacklab/stack/began")
    for _ in range(3):
        assert next(on_the_way, ""), f"it ended: {''.join(said)}"
    time.sleep(5)
    assert first.poll() is None, "".join(said)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    began = machine.read("/var/lib/stacklab/stack/began")
    with measured("lab up, the rest of it (stand-in stack, fixes, readiness, checkpoint)"):
        told = course.up()
    assert "session4 is ready" in told
    assert machine.read("/var/lib/stacklab/stack/began") == began  # the same run, not another one


def test_the_whole_of_the_vms_disk_is_used(course: Course) -> None:
    size = int(course.vm.machine().run("df", "--output=size", "-B1", "/").lines[1])
    assert size > 5 * 2**30  # the box has 4 GiB, the VM 6


def test_apache_and_selinux_have_been_mended(course: Course) -> None:
    machine = course.vm.machine()
    assert machine.run("getenforce").out.strip() == "Permissive"
    assert "SELINUX=permissive" in (machine.read("/etc/selinux/config") or b"").decode()
    assert machine.run("systemctl", "is-enabled", "apache2", "memcached").lines == ["enabled", "enabled"]
    assert json.loads(course.lab("status", "--json"))["state"] == "running"


def test_reset_undoes_damage_while_the_services_go_on_running(course: Course) -> None:
    machine, before = course.vm.machine(), course.pids()
    machine.run("rm", DAMAGED, user="root")
    machine.run(
        "systemctl", "kill", "--signal=KILL", "devstack@n-cpu", user="root"
    )  # keystone would come back by itself
    course.lab("status", expect=21)
    with measured("lab reset, to a proved cloud"):
        course.lab("reset", "--json")
    machine.close()
    assert machine.read(DAMAGED)
    assert course.pids() == before
    assert json.loads(course.lab("status", "--json"))["state"] == "running"


def test_down_and_up_keep_the_services_running(course: Course) -> None:
    before = course.pids()
    with measured("lab down"):
        course.lab("down")
    assert json.loads(course.lab("status", "--json", expect=23))["state"] == "stopped"
    assert "is not running" in course.lab("openstack", "server", "list", expect=23)
    with measured("lab up after lab down"):
        course.up()
    course.vm.machine().close()
    assert course.pids() == before
