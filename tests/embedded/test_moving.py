"""Moving about in the course on a real cloud: goto, reset between sessions, status, sessions from outside."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stacklab.course.load import load_session
from stacklab.course.search import VARIABLE
from stacklab.course.session import Session
from stacklab.errors import CheckpointMissing, NotRunning, NotTrusted
from stacklab.homes.embedded import supervision
from stacklab.homes.embedded.layout import Layout
from stacklab.lab import Lab
from stacklab.records import Records
from stacklab.replay import moving
from stacklab.replay.apply import replay as replay_steps
from stacklab.replay.bringup import reset
from stacklab.replay.check import check_lab
from stacklab.replay.current import begin_session, home_of, journal_of, open_workspace
from stacklab.replay.moving import PREFIX, Arrived, go_back, goto
from stacklab.replay.progress import ProgressFile
from stacklab.replay.trust import remember
from stacklab.replay.undo import session_to_undo, undo_steps
from tests.embedded.conftest import quiet
from tests.embedded.inventory import inventory
from tests.embedded.test_session4 import assert_becomes

TEXT = """\
session: elsewhere
title: A short session
summary: From outside the repository.
exercises:
  - id: first
    title: First
    say: Why.
    steps:
      - {id: network, kind: network, as: admin, say: A., hint: Look at the networks., with: {name: away-net}}
      - id: subnet
        kind: subnet
        as: admin
        say: A.
        hint: Look at the subnets.
        with: {name: away-subnet, network: {step: network}, cidr: 10.9.0.0/24}
      - id: script
        kind: shell
        as: admin
        say: A script.
        hint: Look at the file that it makes.
        with: {what: a file, in: place, run: echo hello > made.txt, check: test -f made.txt, undo: rm -f made.txt}
      - id: router
        kind: router
        as: admin
        say: A.
        hint: Look at the routers.
        with: {name: away-router, external: public, subnets: [{step: subnet}]}
      - {id: last, kind: network, as: admin, say: A., hint: Look at the networks., with: {name: away-last}}
"""
FILE = Path("elsewhere/session.yaml")


@pytest.fixture
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of sessions, on the search path."""
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_text(TEXT, encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


def fresh(lab: Lab) -> None:
    """At the start of session 4, without checkpoints of goto's and with nothing agreed to."""
    reset(lab, quiet, load_session("session4"))
    for name in home_of(lab).checkpoints.names():
        if name.startswith(PREFIX):
            home_of(lab).checkpoints.drop(name, quiet)
    for name in Records(lab).names():
        Records(lab).drop(name)
    (lab.directory / "trust.json").unlink(missing_ok=True)


@pytest.fixture(scope="module", autouse=True)
def put_back(running: Lab) -> Iterator[None]:
    """The cloud is shared."""
    yield
    fresh(running)


@pytest.fixture
def lab(running: Lab, labs: Path) -> Lab:
    """The shared cloud at the start, and the session from outside on the search path."""
    fresh(running)
    return running


@contextmanager
def working(title: str, usual: float | None) -> Iterator[Any]:
    """Nobody watches."""
    yield quiet


def agreed() -> Session:
    """The session from outside, to which somebody has said yes."""
    return replace(load_session("elsewhere"), agreed=True)


def go(lab: Lab, step: str | None) -> Arrived:
    """`lab goto elsewhere --step STEP`, agreed to."""
    return goto(lab, agreed(), step, lambda shown: None, quiet, working)


def done(arrived: Arrived) -> list[str]:
    """The steps that were done for the learner."""
    return [step.step.id for step in arrived.applied]


def passed(lab: Lab) -> set[str]:
    """Steps that are done in the cloud, whatever anybody remembers."""
    session = agreed()
    report = check_lab(lab, session, list(session.steps()), lambda grade: None)
    return {grade.id for grade in report.grades if grade.status == "passed"}


def test_a_checkpoint_that_is_missing_changes_nothing_and_blocks_nothing(lab: Lab) -> None:
    go(lab, "subnet")
    with lab.writing(), pytest.raises(CheckpointMissing):
        go_back(lab, home_of(lab), "at.nowhere", quiet)
    assert lab.record.restoring is None
    assert passed(lab) == {"network"}


def test_a_damaged_checkpoint_is_named_and_the_next_older_one_is_used(lab: Lab) -> None:
    older, newer = str(go(lab, "subnet").saved), str(go(lab, "script").saved)
    database = lab.home_directory / "checkpoints" / newer / "db" / "glance.db"
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])
    arrived = go(lab, "router")
    assert (arrived.checkpoint, done(arrived)) == (older, ["subnet", "script"])
    assert any("db/glance.db" in note for note in arrived.notes)


def test_goto_begins_at_the_nearest_checkpoint_that_an_earlier_one_has_saved(lab: Lab) -> None:
    first = go(lab, "subnet")
    assert (first.step.id, first.checkpoint, done(first)) == ("subnet", "start", ["network"])
    assert first.saved in home_of(lab).checkpoints.names()
    following = ProgressFile(lab).of(load_session("elsewhere")).next
    assert (following and following.id, lab.record.session) == ("subnet", "elsewhere")
    replay_steps(lab, agreed(), [agreed().step("last")], "rest", lambda shown: None, quiet)
    again = go(lab, "subnet")
    assert (again.checkpoint, done(again), again.saved) == (first.saved, [], None)
    assert passed(lab) == {"network"}, "what was made after it is gone"
    further = go(lab, "script")
    assert (further.checkpoint, done(further)) == (first.saved, ["subnet"])
    assert go(lab, "network").checkpoint == "start"
    assert passed(lab) == set()


def test_an_instance_that_went_back_to_before_its_keys_is_logged_in_to_again(lab: Lab) -> None:
    session = load_session("session4")
    login = session.step("login")
    ability = home_of(lab).access().hypervisor
    if not ability.there:
        pytest.skip(f"instances do not run here: {ability.why}")
    for checkpoint in ("start", PREFIX):
        arrived = goto(lab, session, "console", lambda shown: None, quiet, working)
        assert str(arrived.checkpoint).startswith(checkpoint)
        replay_steps(lab, session, [login], "rest", lambda shown: None, quiet)
        assert check_lab(lab, session, [login], lambda grade: None).grades[0].status == "passed"


def test_what_looks_on_while_another_command_goes_back_is_told_so(lab: Lab) -> None:
    hold = f"from stacklab.lab import Lab\nwith Lab({lab.name!r}).writing(): print(flush=True); input()"
    lab.update(restoring="start")
    try:
        with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdin
            assert other.stdout
            other.stdout.readline()
            with pytest.raises(NotRunning, match=rf"\(process {other.pid}\) is under way"):
                open_workspace(lab, load_session("session4"), quiet)
            other.stdin.write(b"\n")
        with lab.writing(), pytest.raises(NotRunning, match="was interrupted"):
            open_workspace(lab, load_session("session4"), quiet)
    finally:
        lab.update(restoring=None)


def test_undo_after_goto_removes_what_the_checkpoint_holds(lab: Lab) -> None:
    admin = open_workspace(lab, load_session("session4"), quiet).admin
    before = inventory(admin)
    go(lab, "last")
    reset(lab, quiet)
    assert journal_of(lab).entries("elsewhere") == {}
    assert done(go(lab, "last")) == ["script"], "a file beside the cloud is in no checkpoint: it is made again"
    assert passed(lab) == {"network", "subnet", "script", "router"}
    session = load_session("elsewhere")
    gone: list[str] = []
    undo_steps(lab, session, list(session.steps()), lambda step, detail: gone.append(step.id))
    assert set(gone) == {"network", "subnet", "script", "router"}
    assert_becomes(admin, before)
    assert list(Path(home_of(lab).site().scratch).rglob("*.txt")) == []


def test_only_a_few_checkpoints_are_kept_and_the_oldest_goes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "KEEP", 2)
    saved = [go(lab, step).saved for step in ("subnet", "script", "router")]
    there = [name for name in home_of(lab).checkpoints.names() if name.startswith(PREFIX)]
    assert sorted(there) == sorted(str(name) for name in saved[1:])
    assert set(Records(lab).names()) == set(there)


@pytest.mark.parametrize(
    ("moment", "way"),
    [
        ("putting back databases", "goto"),
        ("putting back databases", "reset"),
        ("first/subnet", "goto"),
        ("saving the databases", "goto"),
    ],
)
def test_killed_in_the_middle_the_same_goto_or_a_reset_repairs_it(lab: Lab, labs: Path, moment: str, way: str) -> None:
    remember(lab, load_session("elsewhere"))
    kill(lab, moment)
    if moment == "putting back databases":
        with pytest.raises(NotRunning, match="interrupted"):
            open_workspace(lab, load_session("elsewhere"), quiet)
    if way == "reset":
        reset(lab, quiet)
        assert (passed(lab), journal_of(lab).sessions()) == (set(), [])
    else:
        go(lab, "script")
        assert passed(lab) == {"network", "subnet"}
        assert set(journal_of(lab).entries("elsewhere")) == {"network", "subnet"}


def kill(lab: Lab, moment: str) -> None:
    """`lab goto`, ended by kill -9 as soon as it says this."""
    program = str(Path(sys.executable).parent / "lab")
    with subprocess.Popen(
        [program, "--lab", lab.name, "goto", "elsewhere", "--step", "script"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if moment in line:
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.read()
    # The last thing that it does may be over before it is killed; what follows has to be true then as well.
    assert process.returncode == -signal.SIGKILL or moment == "saving the databases", said


@pytest.mark.parametrize("nova", ["alive", "killed"])
def test_one_lab_up_ends_what_an_interrupted_goto_began(nova: str, lab: Lab) -> None:
    remember(lab, load_session("elsewhere"))
    go(lab, "script")
    kill(lab, "putting back databases")
    if nova == "killed":
        states = supervision.services(Layout(lab.home_directory))
        supervision.send(next(state.pid for state in states if state.name == "nova" and state.pid), signal.SIGKILL)
    code, output = lab_says(lab, "up", "session4")
    assert code == 0, output
    open_workspace(lab, load_session("session4"), quiet)
    assert lab.record.restoring is None
    assert passed(lab) == set(journal_of(lab).entries("elsewhere"))


def test_reset_goes_to_another_session_and_the_lab_follows(lab: Lab) -> None:
    go(lab, "script")
    reset(lab, quiet, load_session("session4"))
    assert (lab.record.session, lab.labs) == ("session4", [])
    assert passed(lab) == set()
    code, said = lab_says(lab, "reset", "elsewhere")
    assert (code, lab.record.session) == (0, "elsewhere"), said


# --- sessions from outside -------------------------------------------------------------------------------------------


def test_what_nobody_agreed_to_is_not_run_and_nothing_is_put_back_for_it(lab: Lab) -> None:
    session = load_session("elsewhere")
    steps = list(session.steps())
    with pytest.raises(NotTrusted, match="elsewhere"):
        replay_steps(lab, session, steps, "rest", lambda shown: None, quiet)
    with pytest.raises(NotTrusted):
        check_lab(lab, session, steps, lambda grade: None)
    with pytest.raises(NotTrusted):
        goto(lab, session, "last", lambda shown: None, quiet, working)
    assert (lab.record.session, passed(lab)) == ("session4", set())
    assert list(Path(home_of(lab).site().scratch).rglob("*.txt")) == []


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_a_session_whose_file_is_gone_or_changed_is_undone_as_it_was_applied(lab: Lab, labs: Path, how: str) -> None:
    admin = open_workspace(lab, load_session("session4"), quiet).admin
    before = inventory(admin)
    marker = labs / "not-agreed-to"
    session = agreed()
    begin_session(lab, session)
    replay_steps(lab, session, list(session.steps()), "rest", lambda shown: None, quiet)
    if how == "gone":
        (labs / FILE).unlink()
    else:
        text = (
            TEXT.replace("rm -f made.txt", f"touch {marker}")
            .replace("away-", "other-")
            .replace("id: last", "id: later")
        )
        (labs / FILE).write_text(text, encoding="utf-8")
    left = session_to_undo(lab, "elsewhere")
    undo_steps(lab, left, list(left.steps()), lambda step, detail: None)
    assert_becomes(admin, before)
    assert not marker.exists()
    assert list(Path(home_of(lab).site().scratch).rglob("*.txt")) == []


# --- the command line ------------------------------------------------------------------------------------------------


def lab_says(lab: Lab, *words: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    program = str(Path(sys.executable).parent / "lab")
    line = [program, "--lab", lab.name, *words]
    result = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


def test_goto_says_whose_turn_it_is_and_status_says_where_the_learner_is(lab: Lab) -> None:
    code, said = lab_says(lab, "goto", "elsewhere", "--step", "router")
    assert (code, "not-trusted" in said or "agreed to" in said) == (44, True), said
    code, said = lab_says(lab, "goto", "elsewhere", "--step", "router", "--trust", "--json")
    assert code == 0, said
    arrived = next(json.loads(line) for line in said.splitlines() if '"arrived"' in line)
    assert (arrived["step"], arrived["as"], arrived["exercise"]) == ("router", "admin", "first")
    assert [step["id"] for step in arrived["done"]] == ["network", "subnet", "script"]
    assert "away-router" in arrived["look"]

    code, said = lab_says(lab, "check", "elsewhere/first/last", "--trust")
    assert code == 1, said
    code, said = lab_says(lab, "status")
    assert code == 0
    assert "▸ elsewhere" in said
    assert "✗ first" in said
    assert "3 of 5; failed: last" in said
    assert f"lab --lab {lab.name} show elsewhere/first/router" in said
    assert max(map(len, said.splitlines())) <= 80
    value = json.loads(lab_says(lab, "status", "--json")[1])
    rows = {row["session"]: row for row in value["sessions"]}
    assert (rows["elsewhere"]["passed"], rows["elsewhere"]["failed"], rows["elsewhere"]["total"]) == (3, 1, 5)
    assert (rows["session4"]["passed"], value["next"]) == (0, "router")
    assert value["exercises"][0]["failed"] == ["last"]
