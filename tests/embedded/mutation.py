"""Grading by mutation: independent facts are broken together; just these steps, and those that need them, fail."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from stacklab.course.load import load_session
from stacklab.course.session import Session
from stacklab.kinds.context import Workspace
from stacklab.lab import Lab
from stacklab.replay.apply import apply_step
from stacklab.replay.bringup import reset
from stacklab.replay.check import check
from stacklab.replay.current import home_of, journal_of, workspace_at
from stacklab.replay.undo import dependants
from tests.embedded.guests import LOGIN_SECONDS, until

Mend = Callable[[], None]
Break = Callable[[Workspace], Mend]


def done_session(lab: Lab, name: str) -> Workspace:
    """The cloud put back to the start, and the whole session done on it."""
    reset(lab, lambda detail: None)
    session = load_session(name)
    desk = workspace_at(home_of(lab), lab, session, lambda text: None)
    for step in session.steps():
        apply_step(desk, journal_of(lab), step, "rest")
    return desk


def failed(desk: Workspace, without: Collection[str] = ()) -> dict[str, str]:
    """Steps that neither passed nor make no sense here, and why; all of them but those `without` which is looked."""
    return {
        grade.id: f"{grade.status}: {grade.actual}"
        for grade in check(desk, [step for step in desk.session.steps() if step.id not in without]).grades
        if grade.status not in ("passed", "not_applicable")
    }


def applicable(desk: Workspace) -> set[str]:
    """Ids of the steps that make sense on this cloud."""
    steps = desk.session.steps()
    return {step.id for step in steps if step.kind.applicable(desk.context(step), step.params) is None}


def find(desk: Workspace, step: str) -> dict[str, Any]:
    """The thing of a step."""
    desk.memory.clear()
    chosen = desk.session.step(step)
    answer = chosen.kind.find(desk.context(chosen), chosen.params)
    assert answer is not None
    thing: dict[str, Any] = answer[0]
    return thing


def ssh(desk: Workspace, step: str, line: str) -> list[str]:
    """The command that runs a line of shell inside the instance that a login step logs in to, as that step does it."""
    chosen = desk.session.step(step)
    command = chosen.kind.commands(desk.context(chosen), chosen.params)[0]
    return [command.program, *command.argv({})[:-1], line]


def in_guest(desk: Workspace, step: str, line: str) -> None:
    """Run a line of shell inside the instance; anew where ssh itself fails (255), as it may when the guest is slow."""

    def run() -> bool:
        argv = ssh(desk, step, line)
        done = subprocess.run(argv, check=False, timeout=LOGIN_SECONDS, stdin=subprocess.DEVNULL, capture_output=True)
        assert done.returncode in (0, 255), done.stderr
        return done.returncode == 0

    until(f"'{line}' in the guest", run, LOGIN_SECONDS)
    desk.memory.clear()


@dataclass(frozen=True)
class Mutations:
    """How each step's fact is broken, and which of that can be broken at once.

    `shared`: steps that declare what another one does, too, so that breaking it breaks both. `apart`: steps whose breaks
    work on one and the same thing. `slow`: steps whose check takes seconds; looked at where they are broken only.
    """

    session: Session
    breaks: Mapping[str, Break]
    shared: Mapping[str, Collection[str]] = field(default_factory=dict)
    apart: Collection[str] = ()
    slow: Collection[str] = ()

    def spoiled(self, step: str) -> set[str]:
        """All that may fail when this step's fact is broken."""
        return dependants(self.session, [self.session.step(name) for name in {step, *self.shared.get(step, ())}])

    def rounds(self, steps: Iterable[str] | None = None) -> list[tuple[str, ...]]:
        """The steps in as few rounds as possible: in one round, none fails because of another one's break."""
        rounds: list[list[str]] = []
        for step in self.breaks if steps is None else steps:
            fitting = (chosen for chosen in rounds if all(self._independent(step, other) for other in chosen))
            chosen = next(fitting, None)
            if chosen is None:
                rounds.append([step])
            else:
                chosen.append(step)
        return [tuple(chosen) for chosen in rounds]

    def _independent(self, step: str, other: str) -> bool:
        if step in self.apart and other in self.apart:
            return False
        return step not in self.spoiled(other) and other not in self.spoiled(step)

    def assert_noticed(self, desk: Workspace, steps: tuple[str, ...]) -> None:
        """Break the facts of one round; these steps fail, and nothing but what builds on them is less than well."""
        with ExitStack() as mending:
            for step in steps:
                mending.callback(self.breaks[step](desk))
            grades = failed(desk, set(self.slow) - set(steps))
        for step in steps:
            assert grades.get(step, "not noticed").startswith("failed"), (step, grades)
        assert set(grades) <= {name for step in steps for name in self.spoiled(step)}, grades


def by_names(steps: tuple[str, ...]) -> str:
    """How a round is called in the tests' output."""
    return "+".join(steps)
