"""A class of twenty at once on one cloud: nothing is lost, and no service answers 500."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stacklab.course.load import load_session
from stacklab.course.session import Session
from stacklab.homes.base import Home
from stacklab.kinds.context import Workspace
from stacklab.lab import Lab
from stacklab.replay.apply import apply_step
from stacklab.replay.bringup import reset
from stacklab.replay.check import GradeReport, check
from stacklab.replay.current import home_of, workspace_at
from stacklab.replay.journal import Journal
from stacklab.replay.undo import dependants

LEARNERS = 20
BOOTING = 2
"""As many of them start an instance: what twenty do at once to the services shows without twenty emulated guests."""
GRADED = 4
"""As many are graded at once. What each step made was looked at when it was done, by all twenty."""


def session_of(number: int) -> Session:
    """Session 4 for one of them: a user, a project and a flavor of their own."""
    names = {"learner": f"learner-{number}", "learner_project": f"project-{number}", "flavor": f"flavor-{number}"}
    return load_session("session4", variables=names)


def clouds_for_all(lab: Lab, clouds_file: Path) -> Path:
    """A clouds.yaml with an entry for each."""
    clouds: dict[str, Any] = yaml.safe_load(clouds_file.read_text(encoding="utf-8"))
    for number in range(LEARNERS):
        entry = yaml.safe_load(yaml.safe_dump(clouds["clouds"]["lab-learner"]))
        entry["auth"] |= {"username": f"learner-{number}", "project_name": f"project-{number}"}
        clouds["clouds"][f"learner-{number}"] = entry
    path = lab.directory / "class.yaml"
    path.write_text(yaml.safe_dump(clouds), encoding="utf-8")
    path.chmod(0o600)
    return path


def left_out(session: Session, number: int) -> set[str]:
    """The steps that this learner does not do: what needs an instance; nothing is broken, so there is nothing to repair."""
    repairs = {step.id for step in session.steps() if step.kind.name == "repair"}
    return repairs if number < BOOTING else repairs | dependants(session, [session.step("server")])


def test_twenty_learners_do_session_4_at_once(running: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Twenty at once on a few cores: all is slow, which is not what is tested, and who looks often makes it slower.
    monkeypatch.setattr("stacklab.cloud.connection.TIMEOUT", 600)
    monkeypatch.setattr("stacklab.replay.apply.SETTLE_POLL", 2.0)
    reset(running, lambda detail: None)
    home = home_of(running)
    began = {path: path.stat().st_size for path in logs_of(home) if path.exists()}  # faults of other tests are in there
    access = replace(home.access(), clouds_file=clouds_for_all(running, home.access().clouds_file))

    def learn(number: int) -> Workspace:
        session = session_of(number)
        desk = workspace_at(
            home, running, session, lambda text: None, access=replace(access, learner=f"learner-{number}")
        )
        journal = Journal(tmp_path / f"{number}.jsonl")
        for step in session.steps():
            if step.id not in left_out(session, number):
                apply_step(desk, journal, step, "rest")
        return desk

    def grade(desk: Workspace) -> GradeReport:
        return check(desk, desk.session.steps())

    try:
        with ThreadPoolExecutor(LEARNERS) as pool:
            desks = list(pool.map(learn, range(LEARNERS)))
            reports = list(pool.map(grade, desks[:GRADED]))
        for number, report in enumerate(reports):
            left = {grade.id: (grade.status, grade.actual) for grade in report.grades if grade.status != "passed"}
            # The quota that a fault takes away is that of the project of a lab's one learner, who is none of these.
            repairs = ["repair-quota", "repair-clock"]
            assert [left.pop(name, ("passed", ""))[0] for name in repairs] == ["not_applicable"] * 2, (number, left)
            not_done = {step for step in left_out(session_of(number), number) if not step.startswith("repair")}
            # The administrator sees the instances of all projects, and two learners have one.
            assert not_done - {"admin-view"} <= set(left) <= not_done, (number, left)
            assert {status for status, _ in left.values()} <= {"failed"}, (number, left)
        assert broken_answers(logs_of(home), began) == []
    finally:
        reset(running, lambda detail: None)


def logs_of(home: Home) -> list[Path]:
    """The services' logs."""
    return [Path(log.where) for log in home.logs(None).values()]


def broken_answers(logs: Iterable[Path], began: Mapping[Path, int]) -> list[str]:
    """Lines of the services' logs, each from where it began, that tell of an answer 5xx or an unhandled error."""
    signs = (" status: 50", '" 500 ', '" 503 ', "InternalServerError", "database is locked", "UnexpectedAPIError")
    found = []
    for path in logs:
        if path.exists():
            lines = path.read_bytes()[began.get(path, 0) :].decode(errors="replace").splitlines()
            found += [f"{path.name}: {line[:300]}" for line in lines if any(sign in line for sign in signs)]
    return found
