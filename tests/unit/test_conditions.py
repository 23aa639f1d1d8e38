"""What all conditions share: cannot tell is an answer, what is shown runs, the way back is there before anything changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from stacklab.conditions import services, systemd
from stacklab.conditions.condition import Action, Condition, Fault, Finding
from stacklab.conditions.machine import OnDisk
from stacklab.conditions.runner import all_well, repair
from stacklab.conditions.wrongvalue import Value, WrongValue
from stacklab.deploy.profile.load import load_profile
from stacklab.errors import CloudRefused, CommandFailed, HomeUnavailable, MachineUnreachable, ServiceFailed
from stacklab.events import Event, StageEnded
from stacklab.homes.devstack import _service
from stacklab.machines.base import Finished
from stacklab.stages import Progress


def quiet(detail: str) -> None:
    """Nobody listens."""


class Door(Condition):
    """Open or shut; `stuck`: its repair fails."""

    title = "the door is open"
    patience, every = 0, 0

    def __init__(self, id_: str, state: str = "shut", *, stuck: bool = False) -> None:
        self.id, self.door, self.stuck = id_, state, stuck
        self.error: Exception | None = None

    def see(self) -> Finding:
        if self.error:
            raise self.error
        return Finding("good" if self.door == "open" else "bad", f"it is {self.door}")

    def repairing(self) -> Iterable[Action]:
        yield Action(f"open {self.id}", self._open)

    def _open(self) -> None:
        if self.stuck:
            raise CommandFailed(f"{self.id} is stuck")
        self.door = "open"


def test_what_cannot_be_asked_cannot_be_told_but_a_machine_that_is_out_of_reach_is_an_error() -> None:
    door = Door("front")
    door.error = CommandFailed("look failed", said="a line\nno such door")
    assert door.look() == Finding("unknown", "cannot tell: look failed: no such door")
    door.error = CloudRefused("HTTP 503")
    assert door.look() == Finding("unknown", "cannot tell: HTTP 503")
    door.error = MachineUnreachable("there is no way there")
    with pytest.raises(MachineUnreachable):
        door.look()


def test_what_is_good_is_not_touched_and_one_that_fails_does_not_keep_the_next_from_being_tried() -> None:
    doors = [Door("a", "open"), Door("b", stuck=True), Door("c")]
    events: list[Event] = []
    outcomes = repair(doors, events.append)
    assert [(outcome.condition.id, outcome.result, outcome.changed) for outcome in outcomes] == [
        ("a", "already", False),
        ("b", "failed", True),
        ("c", "done", True),
    ]
    assert [event.stage for event in events if isinstance(event, StageEnded)] == ["a", "b", "c"]
    with pytest.raises(ServiceFailed, match="b: b is stuck"):
        all_well(outcomes)
    assert all_well([outcomes[0], outcomes[2]]) == "repaired: c"


# --- faults ---------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As if the program had ended here."""


class Entry(Value):
    """A value in a file of the test's."""

    name = "the entry"

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> str | None:
        return self.path.read_text() if self.path.exists() else None

    def write(self, value: str | None) -> None:
        if value is None:
            self.path.unlink()
        else:
            self.path.write_text(value)


class WrongEntry(WrongValue):
    """A fault of the file."""

    id = "wrong-entry"
    title = "the entry is wrong"
    patience, every = 0, 0

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.restarts = 0

    @property
    def kept(self) -> OnDisk:
        return OnDisk(self.directory / "kept" / "state.json")

    @property
    def value(self) -> Entry:
        return Entry(self.directory / "entry")

    def wrong(self, right: str | None) -> str:
        return f"not {right}"

    def taking_effect(self) -> Iterable[Action]:
        yield Action("restart", self._restart)

    def _restart(self) -> None:
        self.restarts += 1

    def see(self) -> Finding:
        wrong = (self.value.read() or "").startswith("not ")
        return Finding("bad" if wrong else "good", f"the entry is {self.value.read()}")


def dying(after: int) -> Progress:
    """A progress that ends everything when the action of this number (from 0) is about to begin."""
    left = [after]

    def progress(detail: str) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1

    return progress


@pytest.mark.parametrize("point", range(3))
@pytest.mark.parametrize("again", [-1, 0, 1])
def test_killed_at_any_action_of_breaking_or_of_clearing_the_next_clear_brings_back_what_was(
    tmp_path: Path, point: int, again: int
) -> None:
    fault = WrongEntry(tmp_path)
    fault.value.write("right")
    with pytest.raises(Killed):
        fault.inject(dying(point))
    if again >= 0:
        with contextlib.suppress(Killed):
            fault.clear(dying(again))
    fault.clear(quiet)
    assert fault.value.read() == "right"
    assert fault.kept.read() is None


def test_broken_twice_the_way_back_is_still_that_of_the_first_time(tmp_path: Path) -> None:
    fault = WrongEntry(tmp_path)
    fault.value.write("right")
    said: list[str] = []
    fault.inject(said.append)
    assert said[0] == f"keep what the way back needs in {fault.kept.file}"
    fault.inject(quiet)
    assert fault.kept.read() == {"right": "right", "wrong": "not right"}
    fault.value.write("better")  # a learner's own repair stays
    fault.clear(quiet)
    assert fault.value.read() == "better"


def test_symptoms_that_do_not_show_end_with_the_evidence(tmp_path: Path) -> None:
    class Harmless(WrongEntry):
        def wrong(self, right: str | None) -> str:
            return "also right"

    with pytest.raises(ServiceFailed, match=r"symptoms of the fault 'wrong-entry' .* the entry is also right"):
        Harmless(tmp_path).inject(quiet)


def test_what_a_cloud_cannot_have_is_refused_before_anything_is_done() -> None:
    class Nowhere(Fault):
        id = "nowhere"
        title = "nothing"

        def why_not(self) -> str:
            return "there is no such thing"

        def see(self) -> Finding:
            raise AssertionError("nobody looks")

        repairing = breaking = see  # type: ignore[assignment]

    with pytest.raises(HomeUnavailable, match="'nowhere' cannot be had here: there is no such thing"):
        Nowhere().inject(quiet)


# --- systemd, asked in one place ------------------------------------------------------------------------------------

UP = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nMainPID=7\nNRestarts=1\n"
AT_REST = "LoadState=loaded\nActiveState=inactive\nSubState=dead\nUnitFileState=enabled\nTriggeredBy=libvirtd.socket\n"


def answering(units: dict[str, str]) -> Any:
    """A machine whose systemd knows these units; to an alias it answers with the unit's own name."""

    class Systemd:
        def script(self, text: str, *names: str, seconds: float) -> Finished:
            missing = "LoadState=not-found\nActiveState=inactive\n"
            blocks = [f"Id=real-name.service\n{units.get(name, missing)}" for name in names]
            return Finished("", 0, "100.0 1.0\n" + "\n".join(blocks), "")

    return Systemd()


def test_a_unit_that_is_known_by_an_alias_is_found_and_one_at_rest_behind_its_socket_is_well() -> None:
    profile = load_profile("debian12-2026.1")
    names = services.unit_names(profile)
    there = dict.fromkeys(names.values(), UP) | {"libvirtd.service": AT_REST, "libvirtd.socket": UP}
    units = services.units(answering(there), profile)
    assert all(unit.there for unit in units.values())
    states = {name: _service(name, unit) for name, unit in units.items()}
    assert {state.state for state in states.values()} == {"running"}
    assert states["libvirtd"].reason == "at rest until libvirtd.socket is called"
    assert (states["apache2"].pid, states["apache2"].restarts) == (7, 1)
    asleep = services.units(answering(there | {"libvirtd.socket": AT_REST}), profile)["libvirtd"]
    assert not asleep.resting
    assert _service("libvirtd", asleep).state == "stopped"


@pytest.mark.parametrize(
    ("block", "state", "reason"),
    [
        ("LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=signal\n", "failed", "failed (signal)"),
        ("LoadState=loaded\nActiveState=activating\nSubState=start-pre\n", "starting", "activating (start-pre)"),
        ("LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nResult=exit-code\n", "failed", None),
        ("LoadState=not-found\nActiveState=inactive\n", "stopped", "not there"),
    ],
)
def test_status_says_how_a_unit_is_in_a_few_words(block: str, state: str, reason: str | None) -> None:
    (unit,) = systemd.read_units(f"100.0 1.0\n{block}", ["x.service"])
    shown = _service("x", unit)
    assert shown.state == state
    assert reason in (None, shown.reason)
