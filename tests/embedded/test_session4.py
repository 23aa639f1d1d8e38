"""Session 4 on a real cloud: replayed three ways, graded, undone from anywhere."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stacklab.cloud.connection import Connection
from stacklab.course.load import load_session
from stacklab.course.session import Step
from stacklab.errors import CloudRefused, StepDiffers, StepFailed, UndoIncomplete
from stacklab.kinds.context import Workspace
from stacklab.lab import Lab
from stacklab.replay.apply import apply_step
from stacklab.replay.bringup import reset
from stacklab.replay.check import check
from stacklab.replay.current import home_of, journal_of, workspace_at
from stacklab.replay.undo import undo
from tests.embedded.guests import PATIENCE
from tests.embedded.inventory import inventory, outline

SESSION = load_session("session4")
STEPS = list(SESSION.steps())
LAST_CHEAP = next(index for index, step in enumerate(STEPS) if step.id == "server")
"""Steps before this one boot nothing, so they can be done again and again."""


@pytest.fixture
def desk(running: Lab) -> Workspace:
    """The session on a cloud that has just been put back to the start."""
    reset(running, lambda detail: None)
    return open_workspace(running)


def open_workspace(lab: Lab) -> Workspace:
    """The lab's cloud, opened for session 4."""
    return workspace_at(home_of(lab), lab, SESSION, lambda text: None)


def replay(lab: Lab, desk: Workspace, steps: list[Step], via: str = "rest") -> None:
    """Do the steps."""
    for step in steps:
        apply_step(desk, journal_of(lab), step, via)


def not_passed(desk: Workspace, steps: list[Step]) -> dict[str, str]:
    """Steps that did not pass, and why; this machine's clock is not the lab's to break."""
    grades = [grade for grade in check(desk, steps).grades if grade.id != "repair-clock"]
    return {grade.id: grade.actual for grade in grades if grade.status != "passed"}


def test_both_ways_leave_the_same_cloud_with_every_step_passed_and_undo_leaves_it_as_it_was(
    running: Lab, desk: Workspace
) -> None:
    before, left = inventory(desk.admin), {}
    for via in ("rest", "cli"):
        reset(running, lambda detail: None)
        desk = open_workspace(running)
        replay(running, desk, STEPS, via)
        assert not_passed(desk, STEPS) == {}, via
        left[via] = outline(desk.admin)
    assert left["cli"] == left["rest"]
    undo(desk, journal_of(running), STEPS, lambda step, detail: None)
    assert_becomes(desk.admin, before)


def test_a_second_replay_changes_nothing(running: Lab, desk: Workspace) -> None:
    cheap = STEPS[:LAST_CHEAP]
    replay(running, desk, cheap)
    before = inventory(desk.admin)
    outcomes = {
        step.id: apply_step(desk, journal_of(running), step, "rest").outcome for step in cheap if step.kind.leaves
    }
    assert set(outcomes.values()) == {"already"}
    assert inventory(desk.admin) == before


def test_what_somebody_else_made_is_graded_but_never_undone(running: Lab, desk: Workspace) -> None:
    replay(running, desk, STEPS[: ids().index("network")])
    by_hand = desk.learner.sdk.network.create_network(name="lab-net")
    assert not_passed(desk, [SESSION.step("network")]) == {}
    assert apply_step(desk, journal_of(running), SESSION.step("network"), "rest").outcome == "already"
    undo(desk, journal_of(running), [SESSION.step("network")], lambda step, detail: None)
    assert not desk.admin.gone("network", "networks", by_hand.id)


def test_what_is_there_but_different_is_reported_not_changed(running: Lab, desk: Workspace) -> None:
    desk.admin.sdk.compute.create_flavor(name="lab.tiny", vcpus=2, ram=512, disk=1)
    before = inventory(desk.admin)
    with pytest.raises(StepDiffers, match="vcpus: expected 1, found 2"):
        apply_step(desk, journal_of(running), SESSION.step("flavor"), "rest")
    assert inventory(desk.admin) == before


def test_a_step_whose_needs_are_missing_names_them(running: Lab, desk: Workspace) -> None:
    replay(running, desk, STEPS[: ids().index("network")])
    with pytest.raises(StepFailed, match=r"builds on network lab-net \(step network\)"):
        apply_step(desk, journal_of(running), SESSION.step("subnet"), "rest")


def test_a_request_that_is_not_refused_fails_and_leaves_nothing(running: Lab, desk: Workspace) -> None:
    replay(running, desk, STEPS[: ids().index("quota")])
    before = inventory(desk.admin)
    with pytest.raises(StepFailed, match="was not refused"):
        apply_step(desk, journal_of(running), SESSION.step("over-quota"), "rest")
    assert_becomes(desk.admin, before)


def test_before_there_is_a_learner_lab_says_why_the_client_is_refused(running: Lab, desk: Workspace) -> None:
    def networks() -> subprocess.CompletedProcess[str]:
        argv = [str(Path(sys.executable).parent / "lab"), "--lab", running.name, "openstack", "network", "list"]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)

    refused = networks()
    assert refused.returncode == 1
    assert "HTTP 401" in refused.stderr
    assert "note: the cloud does not take this login now; a session's steps make this user" in refused.stderr
    replay(running, desk, STEPS[: ids().index("quota")])
    let_in = networks()
    assert let_in.returncode == 0
    assert "public" in let_in.stdout
    assert "note:" not in let_in.stderr


@pytest.mark.parametrize("via", ["rest", "cli"])
@pytest.mark.parametrize("why", ["over quota", "not let in"])
def test_after_a_refusal_what_the_learner_makes_is_the_learners(
    running: Lab, desk: Workspace, via: str, why: str
) -> None:
    replay(running, desk, STEPS[: ids().index("network")])
    password = desk.secrets("learner")

    def set_right(right: bool) -> None:
        project = desk.admin.get("identity", "projects", name="lab-project")["projects"][0]["id"]
        user = desk.admin.get("identity", "users", name="learner")["users"][0]["id"]
        if why == "over quota":
            desk.admin.request("PUT", "network", ("quotas", project), body={"quota": {"network": 2 if right else 0}})
        else:
            given = password if right else "another-one"
            desk.admin.request("PATCH", "identity", ("users", user), body={"user": {"password": given}})
            time.sleep(2)  # Keystone takes back all tokens of before, by whole seconds
        desk.learner.forget()

    set_right(False)
    with pytest.raises(CloudRefused):
        apply_step(desk, journal_of(running), SESSION.step("network"), via)
    set_right(True)
    mine = desk.learner.sdk.network.create_network(name="lab-net")
    assert apply_step(desk, journal_of(running), SESSION.step("network"), via).outcome == "already"
    undo(desk, journal_of(running), [SESSION.step("network")], lambda step, detail: None)
    assert desk.learner.sdk.network.get_network(mine.id).name == "lab-net"


def test_what_was_made_long_after_a_step_was_cut_off_is_not_that_steps(running: Lab, desk: Workspace) -> None:
    replay(running, desk, STEPS[: ids().index("network")])
    journal = journal_of(running)
    journal.write("session4", "network", "network", "begin")
    *lines, last = journal.path.read_text().splitlines()
    begun = {**json.loads(last), "at": time.time() - 2 * 3600}
    del begun["sum"]  # else the line would count as damaged
    journal.path.write_text("".join(f"{line}\n" for line in [*lines, json.dumps(begun)]))
    mine = desk.learner.sdk.network.create_network(name="lab-net")
    assert apply_step(desk, journal, SESSION.step("network"), "rest").outcome == "already"
    assert desk.learner.sdk.network.get_network(mine.id).name == "lab-net"


def test_undo_stops_at_what_the_lab_did_not_make_and_goes_on_later(running: Lab, desk: Workspace) -> None:
    replay(running, desk, STEPS[: ids().index("subnet") + 1])
    network = desk.learner.sdk.network
    stranger = network.create_port(network_id=network.find_network("lab-net", ignore_missing=False).id, name="mine")
    with pytest.raises(UndoIncomplete, match="subnet"):
        undo(desk, journal_of(running), STEPS, lambda step, detail: None)
    network.delete_port(stranger)
    undo(desk, journal_of(running), STEPS, lambda step, detail: None)
    assert journal_of(running).entries("session4") == {}


def test_undo_keeps_the_project_as_long_as_it_holds_what_the_learner_made(running: Lab, desk: Workspace) -> None:
    replay(running, desk, STEPS[: ids().index("subnet") + 1])
    network, volume = (desk.learner.sdk.network, desk.learner.sdk.block_storage)
    own = network.create_network(name="own-net")
    disk = volume.create_volume(name="own-volume", size=1)
    volume.wait_for_status(disk, "available", interval=0.2, wait=PATIENCE)
    with pytest.raises(UndoIncomplete, match=r"still holds volume own-volume, network own-net"):
        undo(desk, journal_of(running), STEPS, lambda step, detail: None)
    desk.learner.forget()  # the learner is there still, and can take it away
    desk.learner.delete("block-storage", "volumes", disk.id)
    deadline = time.monotonic() + PATIENCE
    while not desk.admin.gone("block-storage", "volumes", disk.id):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    desk.learner.sdk.network.delete_network(own)
    undo(desk, journal_of(running), STEPS, lambda step, detail: None)
    assert journal_of(running).entries("session4") == {}


@pytest.mark.parametrize("last", ["service-users", "image"])
def test_what_was_applied_up_to_a_step_is_undone_and_the_cloud_is_as_it_was(
    running: Lab, desk: Workspace, last: str
) -> None:
    before = inventory(desk.admin)
    replay(running, desk, STEPS[: ids().index(last) + 1])
    undo(desk, journal_of(running), STEPS, lambda step, detail: None)
    assert_becomes(desk.admin, before)


KILLED = """
import os, signal, sys
from stacklab.cli.main import run
from stacklab.replay.journal import Journal

write, moment = Journal.write, tuple(sys.argv.pop(1).split(":"))

def cut_off(journal, session, step, kind, state, *others, **named):
    if (step, state) == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    write(journal, session, step, kind, state, *others, **named)

Journal.write = cut_off
run(sys.argv[1:])
"""
"""`lab`, ended by kill -9 instead of a certain line of the journal."""


@pytest.mark.parametrize("moment", ["user:begin", "quota:made", "router:made", "server:made"])
def test_killed_before_the_journal_says_so_undo_leaves_the_cloud_as_it_was(
    running: Lab, desk: Workspace, moment: str
) -> None:
    before = inventory(desk.admin)
    child = subprocess.run(
        [sys.executable, "-c", KILLED, moment, "--lab", running.name, "replay", "session4"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL
    undo(open_workspace(running), journal_of(running), STEPS, lambda step, detail: None)
    assert_becomes(desk.admin, before)


def test_a_step_that_was_cut_off_is_done_again(running: Lab, desk: Workspace) -> None:
    replay(running, desk, STEPS[: ids().index("router")])
    journal_of(running).write("session4", "router", "router", "begin")
    desk.learner.sdk.network.create_router(name="lab-router")  # cut off before the gateway and the interface
    replay(running, desk, [SESSION.step("router")])
    assert not_passed(desk, [SESSION.step("router")]) == {}


def ids() -> list[str]:
    """Step ids in order."""
    return [step.id for step in STEPS]


def assert_becomes(admin: Connection, before: dict[str, list[str]], seconds: float = PATIENCE) -> None:
    """The cloud holds what it held before, as soon as it has done what it does after it has answered."""
    deadline = time.monotonic() + seconds
    while inventory(admin) != before and time.monotonic() < deadline:
        time.sleep(0.5)
    assert inventory(admin) == before
