"""The shell steps of session 1 on a real Debian with systemd over SSH, as root there: namespaces, overlays, control groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stacklab.course.load import load_session
from stacklab.course.session import Step
from stacklab.kinds.context import Workspace
from stacklab.kinds.features import possible
from stacklab.machines import scratch
from stacklab.machines.address import Address
from stacklab.machines.site import Site
from stacklab.machines.ssh import SshMachine
from stacklab.replay.apply import apply_step
from stacklab.replay.check import check
from stacklab.replay.journal import Journal
from stacklab.replay.undo import undo
from tests.machine.system_fixture import debian  # noqa: F401 -- a fixture
from tests.systems import System
from tests.workspaces import workspace_on

SESSION = load_session("session1")
STEPS = [step for step in SESSION.steps() if step.kind.name == "shell"]
SCRATCH = "/tmp/stacklab"  # noqa: S108 -- of the test's own machine, whose root already is an overlay, which cannot bear another
CONTROLLERS = ("pids", "memory", "cpu")


@pytest.fixture(scope="module")
def machine(debian: System) -> Iterator[SshMachine]:  # noqa: F811
    # The host may keep its controllers in version 1; then the machine sees none of them until it mounts them, as CentOS 7 does.
    there = debian.ssh("cat /sys/fs/cgroup/cgroup.controllers", user="root").stdout.split()
    for name in CONTROLLERS:
        if name not in there:
            debian.ssh(f"mkdir -p /run/cg/{name} && mount -t cgroup -o {name} cgroup /run/cg/{name}", user="root")
    address = Address(debian.address, debian.user)
    here = SshMachine(address, known_hosts=debian.known_hosts, key=debian.key)
    yield here
    here.close()


@pytest.fixture
def workspace(machine: SshMachine, tmp_path: Path) -> Iterator[Workspace]:
    """The session on that machine, where nothing is left of an earlier test."""
    scratch.clear(machine, SCRATCH, user="root")
    yield workspace_on(Site(machine, SCRATCH, "devstack", names={"apache": "apache2"}), SESSION, tmp_path)
    scratch.clear(machine, SCRATCH, user="root")


def not_passed(workspace: Workspace, steps: list[Step]) -> dict[str, str]:
    """Steps that did not pass, and why."""
    return {grade.id: grade.actual for grade in check(workspace, steps).grades if grade.status != "passed"}


def left(machine: SshMachine) -> list[str]:
    """What steps have left running, and the lab's control groups."""
    processes = machine.script("pgrep -af '[s]leep infinity' || :").lines
    groups = machine.script(
        f"find /sys/fs/cgroup /run/cg -name '{scratch.group_name(SCRATCH)}*' 2>/dev/null || :"
    ).lines
    return processes + groups


def test_everything_is_possible_as_root_of_a_machine(machine: SshMachine) -> None:
    site = Site(machine, SCRATCH, "devstack")
    wanted = ["namespaces", "overlay", "cgroup-pids", "cgroup-memory", "cgroup-cpu", "cgroup-join"]
    tried = possible(site, wanted, "root")  # type: ignore[arg-type]
    assert tried.missing == {}
    assert tried.variables["UNSHARE"] == "unshare"
    assert "userxattr" not in tried.variables["OVERLAY"]


def test_all_steps_are_done_graded_and_undone_as_root(
    workspace: Workspace, machine: SshMachine, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    assert {apply_step(workspace, journal, step, "rest").outcome for step in STEPS} == {"done"}
    assert not_passed(workspace, STEPS) == {}
    assert left(machine)
    mounts = machine.read("/proc/mounts") or b""
    assert SCRATCH.encode() not in mounts  # what steps mounted is in their own mount namespaces
    lasting = [step for step in STEPS if step.kind.lasting(step.params)]
    assert {apply_step(workspace, journal, step, "cli").outcome for step in lasting} == {"already"}
    undo(workspace, journal, STEPS, lambda step, detail: None)
    assert left(machine) == []
    assert machine.run("ls", "-A", SCRATCH).out == ""


def test_clearing_ends_and_removes_everything_that_root_left(
    workspace: Workspace, machine: SshMachine, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    for name in ("box", "pids", "layers", "image", "run-it", "limited"):
        apply_step(workspace, journal, SESSION.step(name), "rest")
    # a learner who mounts in the machine's own mount namespace
    place = f"{SCRATCH}/session1/overlay"
    machine.run("mount", "-t", "tmpfs", "tmpfs", f"{place}/merged", user="root")
    scratch.clear(machine, SCRATCH, user="root")
    assert left(machine) == []
    assert not machine.run("test", "-e", SCRATCH, check=False).ok
    assert SCRATCH.encode() not in (machine.read("/proc/mounts") or b"")


def test_an_ordinary_account_is_told_what_it_may_not(machine: SshMachine) -> None:
    site = Site(machine, SCRATCH, "lab", "no root")
    tried = possible(site, ["namespaces", "overlay", "cgroup-pids"], None)
    assert "namespaces" in tried.missing or tried.variables["UNSHARE"].endswith("--map-root-user")
    assert "cgroup-pids" in tried.missing or "systemd-run --user" in tried.variables["ENTER"]
    machine.run("rm", "-rf", SCRATCH, user="root")
