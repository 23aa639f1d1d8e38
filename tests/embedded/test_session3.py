"""Session 3 on a real cloud: roles, and the two files that the learner writes, graded by breaking each fact of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stacklab.course.load import load_session
from stacklab.homes.embedded import supervision
from stacklab.homes.embedded.home import EmbeddedHome
from stacklab.homes.embedded.services import NAMES
from stacklab.kinds.context import Workspace
from stacklab.kinds.roles import sorting
from stacklab.lab import Lab
from stacklab.replay.apply import apply_step
from stacklab.replay.bringup import reset
from stacklab.replay.check import check_step
from stacklab.replay.current import home_of, journal_of
from stacklab.replay.narrate import narrate
from stacklab.replay.undo import undo
from tests.embedded.guests import PATIENCE
from tests.embedded.mutation import Break, Mend, Mutations, applicable, by_names, done_session, failed

SESSION = load_session("session3")
NOT_HERE = {"machine", "clone", "stack", "packstack", "real-names", "at-boot"}
"""They need a machine that the cloud was deployed on."""


@pytest.fixture(scope="module")
def done(running: Lab) -> Iterator[Workspace]:
    """The whole session, done."""
    yield done_session(running, "session3")
    reset(running, lambda detail: None)


def home(lab: Lab) -> EmbeddedHome:
    found = home_of(lab)
    assert isinstance(found, EmbeddedHome)
    return found


def stopped(name: str) -> Callable[[Lab], Break]:
    """Break by ending one of the cloud's processes."""

    def of(lab: Lab) -> Break:
        def broken(desk: Workspace) -> Mend:
            layout = home(lab).layout
            supervision.end_service(layout, name)

            def mend() -> None:
                supervision.order(layout, "restart", service=name)
                supervision.wait_until_running(layout, lambda detail: None, time.monotonic() + PATIENCE, names=(name,))

            return mend

        return broken

    return of


def until_all_is_well(desk: Workspace, seconds: float = PATIENCE) -> None:
    """A service that has just come back reports to its own list a moment later."""
    deadline = time.monotonic() + seconds
    while failed(desk) and time.monotonic() < deadline:
        time.sleep(0.5)


def edited(step: str, change: Callable[[str], str]) -> Callable[[Lab], Break]:
    """Break by changing the file that a step declares."""

    def of(lab: Lab) -> Break:
        def broken(desk: Workspace) -> Mend:
            path = file_of(desk, step)
            text = path.read_text()
            path.write_text(change(text))
            assert path.read_text() != text, "the change changed nothing"

            def mend() -> None:
                path.write_text(text)

            return mend

        return broken

    return of


def file_of(desk: Workspace, step: str) -> Path:
    return Path(desk.site().scratch) / str(getattr(SESSION.step(step).params, "file"))  # noqa: B009 - of a kind's own


def breaks(lab: Lab) -> dict[str, Break]:
    """How the fact of each step is broken."""
    address = edited("local-conf", lambda text: text.replace("HOST_IP=192.0.2.10", "HOST_IP=192.0.2.11"))
    hosts = edited("answer-file", lambda text: text.replace("HOSTS=192.0.2.10", "HOSTS=192.0.2.9"))
    ended = {"controller": "glance", "network": "neutron", "compute": "nova", "storage": "swift", "horizon": "horizon"}
    return {step: stopped(name)(lab) for step, name in ended.items()} | {
        "local-conf": address(lab),
        "answer-file": hosts(lab),
    }


SHARED = {"network": {"controller"}, "compute": {"controller"}, "horizon": {"controller"}}
ROUNDS = [("controller", "storage", "local-conf", "answer-file"), ("network",), ("compute",), ("horizon",)]


@pytest.mark.parametrize("steps", ROUNDS, ids=by_names)
def test_what_is_broken_fails_its_steps_alone(running: Lab, done: Workspace, steps: tuple[str, ...]) -> None:
    Mutations(SESSION, breaks(running), SHARED).assert_noticed(done, steps)
    until_all_is_well(done)


def test_every_step_that_makes_sense_here_has_a_break(running: Lab, done: Workspace) -> None:
    assert applicable(done) == set(breaks(running)) == {step for steps in ROUNDS for step in steps}
    assert {step.id for step in SESSION.steps()} - applicable(done) == NOT_HERE


def test_a_service_that_does_not_run_is_named(running: Lab, done: Workspace) -> None:
    mend = stopped("swift")(running)(done)
    try:
        grade = check_step(done, SESSION.step("storage"))
    finally:
        mend()
    assert grade.status == "failed"
    assert "swift: expected running, found stopped" in grade.actual


def test_every_process_of_this_home_has_its_role() -> None:
    assert set(NAMES) <= set(sorting().services)


def test_parts_that_share_a_process_are_told_apart_by_their_own_list(done: Workspace) -> None:
    said = {name: check_step(done, SESSION.step(name)).actual for name in ("controller", "compute", "storage")}
    assert "nova-scheduler" in said["controller"]
    assert "nova-compute" not in said["controller"]
    assert "nova-compute" in said["compute"]
    assert "cinder-volume" in said["storage"]


@pytest.mark.parametrize("step", ["local-conf", "answer-file"])
@pytest.mark.parametrize("via", ["rest", "cli"])
def test_a_file_is_written_for_its_owner_alone_and_undone(running: Lab, done: Workspace, step: str, via: str) -> None:
    path = file_of(done, step)
    undo(done, journal_of(running), [SESSION.step(step)], lambda undone, detail: None)
    assert not path.exists()
    assert check_step(done, SESSION.step(step)).status == "failed"
    assert apply_step(done, journal_of(running), SESSION.step(step), via).outcome == "done"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "********" not in path.read_text()
    assert check_step(done, SESSION.step(step)).status == "passed"


def test_a_file_that_the_learner_wrote_is_graded_and_left_alone(running: Lab, done: Workspace) -> None:
    step = SESSION.step("local-conf")
    path = file_of(done, "local-conf")
    undo(done, journal_of(running), [step], lambda undone, detail: None)
    path.parent.mkdir(exist_ok=True)
    passwords = "".join(f"{name}_PASSWORD=mine4me\n" for name in ("ADMIN", "DATABASE", "RABBIT", "SERVICE"))
    path.write_text(f"[[local|localrc]]\n{passwords}HOST_IP=192.0.2.10\n")
    try:
        assert apply_step(done, journal_of(running), step, "rest").outcome == "already"
        path.write_text(path.read_text() + 'LOGFILE="/opt/stack/logs/stack.sh.log\n')
        grade = check_step(done, step)
        assert grade.status == "failed"
        assert "local.conf, line 7" in grade.actual
        undo(done, journal_of(running), [step], lambda undone, detail: None)
        assert path.exists()
    finally:
        path.unlink()
        apply_step(done, journal_of(running), step, "rest")


@pytest.mark.parametrize("step", ["local-conf", "answer-file"])
def test_every_line_is_explained_and_no_password_is_told(done: Workspace, step: str) -> None:
    told = narrate(done, done.offline(SESSION.step(step)), SESSION.step(step))
    lines = [line for line in told["more"] if line and line.strip() and line.lstrip()[0].isdigit()]
    settings = [line for line in lines if "=" in line and "#" not in line]
    assert len([line for line in told["more"] if "↳" in line]) >= len(settings) > 20
    directory, edit = told["commands"]
    assert directory == f"mkdir -p {file_of(done, step).parent}"  # a reset has taken it away
    assert file_of(done, step).as_posix() in edit
    assert "********" in "\n".join(told["more"])
