"""Every session of the course on the embedded home: replayed, checked, replayed again, undone, reset."""

from __future__ import annotations

import pytest

from stacklab.course.load import load_session, session_names
from stacklab.lab import Lab
from stacklab.replay.apply import apply_step
from stacklab.replay.bringup import reset
from stacklab.replay.check import check
from stacklab.replay.current import home_of, journal_of, workspace_at
from stacklab.replay.undo import undo
from tests.embedded.inventory import inventory
from tests.embedded.test_session4 import assert_becomes

NOT_HERE: dict[str, set[str]] = {
    "session2": {
        *(
            "heat",
            "ceilometer",
            "trove",
            "sahara",
            "ironic",
            "zaqar",
            "manila",
            "designate",
            "barbican",
            "magnum",
            "murano",
        ),
        *("congress", "time", "database", "queue"),
    },
    "session4": {"repair-clock"},
    "session3": {"machine", "clone", "stack", "packstack", "real-names", "at-boot"},
}
"""Steps that make no sense on the embedded home, with QEMU and Apache at hand: they need a machine that DevStack made."""

DEPENDS: dict[str, set[str]] = {
    "session1": {
        *("box", "own-processes", "own-mounts", "own-network", "own-name"),  # namespaces
        *("pids", "memory", "cpu", "limited"),  # control groups
        *("layers", "copy-on-write", "whiteout", "run-it"),  # overlays
    },
}
"""Steps that the kernel or the account that runs the tests may not allow; each says why."""


@pytest.mark.parametrize("name", session_names())
def test_a_session_is_done_graded_undone_and_reset(running: Lab, name: str) -> None:
    reset(running, lambda detail: None)
    session, journal = load_session(name), journal_of(running)
    desk = workspace_at(home_of(running), running, session, lambda text: None)
    before = inventory(desk.admin)

    first = {step.id: apply_step(desk, journal, step, "rest") for step in session.steps()}
    left_out = {one: applied.detail for one, applied in first.items() if applied.outcome == "not_applicable"}
    assert NOT_HERE.get(name, set()) <= set(left_out) <= NOT_HERE.get(name, set()) | DEPENDS.get(name, set()), left_out
    assert all(left_out.values())

    report = check(desk, session.steps())
    assert {grade.id: grade.actual for grade in report.grades if grade.status not in ("passed", "not_applicable")} == {}
    assert {grade.id for grade in report.grades if grade.status == "not_applicable"} == set(left_out)

    made = inventory(desk.admin)
    again = {
        step.id: apply_step(desk, journal, step, "rest").outcome
        for step in session.steps()
        if step.kind.lasting(step.params)
    }
    assert {one for one, outcome in again.items() if outcome == "done"} == set()
    assert inventory(desk.admin) == made

    undo(desk, journal, session.steps(), lambda step, detail: None)
    assert_becomes(desk.admin, before)
    assert journal.entries(name) == {}

    reset(running, lambda detail: None)
    assert_becomes(desk.admin, before)
