"""What the lab says and refuses where the machine has no finished stack; what its services' journals tell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from stacklab.conditions.systemd import JournalLog
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.profile.load import load_profile
from stacklab.deploy.profile.settings import Settings
from stacklab.deploy.stack.detached import Program, StackRun, State, require_stacked, verdict
from stacklab.deploy.stack.following import follow
from stacklab.errors import CommandFailed, StackFailed
from stacklab.lab import Lab
from stacklab.machines.base import Command, Finished, Machine
from stacklab.machines.output import Output


class FakeMachine(Machine):
    """Answers every command and every script alike; `stop`: Ctrl-C comes at the script of this number."""

    name = "stack@192.0.2.7"

    def __init__(self, out: str = "", err: str = "", status: int = 0, stop: int | None = None) -> None:
        self.answer = Finished("fake", status, out, err)
        self.stop = stop
        self.asked = 0

    def run(
        self,
        *argv: str,
        user: str | None = None,
        given: str | bytes | None = None,
        environment: Mapping[str, str] | None = None,
        seconds: float = 0,
        check: bool = True,
    ) -> Finished:
        return self.answer

    def script(
        self, text: str, *arguments: str, user: str | None = None, seconds: float = 0, check: bool = True
    ) -> Finished:
        self.asked += 1
        if self.asked == self.stop:
            raise KeyboardInterrupt
        return self.answer

    def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes | None:
        if self.stop:
            raise KeyboardInterrupt
        return None

    def _execute(self, command: Command, given: bytes, *, whole: bool = False) -> tuple[int, Output, Output]:
        raise AssertionError(command)


RUNNING = (
    "began.run=1\nbegan.at=1.0\nbegan.boot=b\nbegan.profile=p\nbegan.services=\nbegan.host_ip=192.0.2.7\n"
    "ActiveState=active\nsize=0\nnow=2.0\nboot=b\n"
)
NEVER = "absent=1\n"


def run(program: Program, state: State, started: float | None = 1.0) -> StackRun:
    return StackRun(program, state, "log", started=None if state == "absent" else started, exit_status=2)


@pytest.mark.parametrize(
    ("stack", "unstack", "said", "todo"),
    [
        (run("stack", "absent"), run("unstack", "absent"), "never run", "lab up"),
        (run("stack", "running"), run("unstack", "absent"), "stack.sh is running", "lab attach"),
        (run("stack", "failed"), run("unstack", "running", 2.0), "unstack.sh is running", "lab up"),
        (run("stack", "failed"), run("unstack", "absent"), "failed there with exit status 2", "says why"),
        (run("stack", "vanished"), run("unstack", "done", 0.5), "without an exit status", "lab up"),
        (run("stack", "done"), run("unstack", "done", 2.0), "taken the cloud away", "lab up"),
        (run("stack", "done"), run("unstack", "failed", 2.0), "did not end well", "lab up"),
    ],
)
def test_every_unfinished_stack_is_named_with_what_to_do_next(
    stack: StackRun, unstack: StackRun, said: str, todo: str
) -> None:
    found = verdict(stack, unstack)
    assert found is not None
    assert said in found.said
    assert todo in found.todo


def test_a_stack_after_an_unstack_is_finished() -> None:
    assert verdict(run("stack", "done", 3.0), run("unstack", "done", 2.0)) is None
    assert verdict(run("stack", "done"), run("unstack", "absent")) is None


@pytest.mark.parametrize(("answer", "said"), [(NEVER, "was never run"), (RUNNING, "is running")])
def test_repairing_is_refused_in_one_line_where_nothing_is_finished(answer: str, said: str) -> None:
    with pytest.raises(StackFailed) as caught:
        require_stacked(FakeMachine(answer))
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert "lab " in caught.value.advice


def deployment(machine: FakeMachine) -> Deployment:
    lab = Lab("intro")
    lab.directory.mkdir(parents=True)
    return Deployment(
        lab=lab, profile=load_profile("centos7-pike"), machine=machine, host_ip="192.0.2.7", settings=Settings()
    )


def test_ctrl_c_before_the_first_look_does_not_claim_that_anything_goes_on(own_directories: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        follow(deployment(FakeMachine(NEVER, stop=1)), lambda _: None)
    assert "goes on" not in str(caught.value)
    assert "lab status" in str(caught.value)


def test_ctrl_c_after_it_was_seen_running_says_how_to_come_back(own_directories: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        follow(deployment(FakeMachine(RUNNING, stop=2)), lambda _: None)
    assert "stack.sh goes on on stack@192.0.2.7" in str(caught.value)


def test_a_journal_without_entries_is_empty_and_no_error() -> None:
    log = JournalLog(FakeMachine(status=1), "memcached.service")
    assert log.last(20) == []
    assert log.more() == []


def test_what_journalctl_complains_of_is_shown_once() -> None:
    log = JournalLog(FakeMachine(status=1, err="Failed to seek to cursor: Invalid argument\n"), "memcached.service")
    assert log.last(20) == ["journalctl: Failed to seek to cursor: Invalid argument"]
    assert log.more() == []


def test_a_journalctl_that_cannot_run_is_an_error_with_advice() -> None:
    with pytest.raises(CommandFailed) as caught:
        JournalLog(FakeMachine(status=127, err="journalctl: command not found"), "memcached.service").last(20)
    assert caught.value.advice
