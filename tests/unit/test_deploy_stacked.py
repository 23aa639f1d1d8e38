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
from stacklab.machines.base import Command, Finished, Machine, Output


class FakeMachine(Machine):
    """Answers every command and every script alike; `interrupted`: Ctrl-C comes at the first script."""

    name = "stack@192.0.2.7"

    def __init__(self, out: str = "", err: str = "", status: int = 0, *, interrupted: bool = False) -> None:
        self.answer = Finished("fake", status, out, err)
        self.interrupted = interrupted

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
        if self.interrupted:
            raise KeyboardInterrupt
        return self.answer

    def _execute(self, command: Command, given: bytes, *, whole: bool = False) -> tuple[int, Output, Output]:
        raise AssertionError(command)


RUNNING = (
    "began.run=1\nbegan.at=1.0\nbegan.boot=b\nbegan.profile=p\nbegan.services=\nbegan.host_ip=192.0.2.7\n"
    "ActiveState=active\nnow=2.0\nboot=b\n"
)
NEVER = "absent=1\n"


def run(program: Program, state: State, started: float = 1.0) -> StackRun:
    return StackRun(program, state, started=started, exit_status=2)


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
    unfinished = verdict(stack, unstack)
    assert unfinished is not None
    assert said in unfinished.said
    assert todo in unfinished.todo


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


def test_ctrl_c_says_how_to_come_back_and_does_not_claim_that_anything_runs(own_directories: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        follow(deployment(FakeMachine(interrupted=True)), lambda _: None)
    assert str(caught.value).startswith(
        "stack.sh, where it runs on stack@192.0.2.7, goes on; come back with: lab attach"
    )


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
