"""Grading by mutation, for any session: a step's fact is broken; exactly that step, and those that need it, fail."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Collection
from typing import Any

from stacklab.course.load import load_session
from stacklab.course.session import Session
from stacklab.lab import Lab
from stacklab.replay.apply import apply_step
from stacklab.replay.bringup import reset
from stacklab.replay.check import check
from stacklab.replay.context import Desk
from stacklab.replay.current import desk_at, home_of, journal_of
from stacklab.replay.undo import dependants
from tests.embedded.guests import LOGIN_SECONDS, until

Mend = Callable[[], None]
Break = Callable[[Desk], Mend]


def done_session(lab: Lab, name: str) -> Desk:
    """The cloud put back to the start, and the whole session done on it."""
    reset(lab, lambda detail: None)
    session = load_session(name)
    desk = desk_at(home_of(lab).access(), lab, session, lambda text: None)
    for step in session.steps():
        apply_step(desk, journal_of(lab), step, "sdk")
    return desk


def failed(desk: Desk, without: Collection[str] = ()) -> dict[str, str]:
    """Steps that neither passed nor make no sense here, and why; all of them but those `without` which is looked."""
    return {
        grade.id: f"{grade.status}: {grade.actual}"
        for grade in check(desk, [step for step in desk.session.steps() if step.id not in without]).grades
        if grade.status not in ("passed", "not_applicable")
    }


def applicable(desk: Desk) -> set[str]:
    """Ids of the steps that make sense on this cloud."""
    steps = desk.session.steps()
    return {step.id for step in steps if step.kind.applicable(desk.scene(step), step.params) is None}


def find(desk: Desk, step: str) -> dict[str, Any]:
    """The thing of a step."""
    desk.memory.clear()
    chosen = desk.session.step(step)
    answer = chosen.kind.find(desk.scene(chosen), chosen.params)
    assert answer is not None
    thing: dict[str, Any] = answer[0]
    return thing


def ssh(desk: Desk, step: str, line: str) -> list[str]:
    """The command that runs a line of shell inside the instance that a login step logs in to, as that step does it."""
    chosen = desk.session.step(step)
    command = chosen.kind.commands(desk.scene(chosen), chosen.params)[0]
    return [command.program, *command.argv({})[:-1], line]


def in_guest(desk: Desk, step: str, line: str) -> None:
    """Run a line of shell inside the instance; anew where ssh itself fails (255), as it may when the guest is slow."""

    def run() -> bool:
        argv = ssh(desk, step, line)
        done = subprocess.run(argv, check=False, timeout=LOGIN_SECONDS, stdin=subprocess.DEVNULL, capture_output=True)
        assert done.returncode in (0, 255), done.stderr
        return done.returncode == 0

    until(f"'{line}' in the guest", run, LOGIN_SECONDS)
    desk.memory.clear()


def assert_noticed(desk: Desk, step: str, broken: Break, shared: Collection[str] = ()) -> None:
    """`shared`: steps that declare what this one does, too, so that breaking it breaks them.

    Only the step itself is looked at before: what an earlier mutation left broken shows as a failure that is not allowed.
    """
    session: Session = desk.session
    assert check(desk, [session.step(step)]).grades[0].status == "passed"
    mend = broken(desk)
    try:
        found = failed(desk)
    finally:
        mend()
    assert step in found, f"not noticed; failed: {found}"
    assert found[step].startswith("failed")
    allowed = dependants(session, [session.step(one) for one in {step, *shared}])
    assert set(found) <= allowed, found
