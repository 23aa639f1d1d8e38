"""What a session file says under `faults:`, what the lab remembers of it, and the verbs where there is no cloud."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stacklab.cli.main import run
from stacklab.course.load import load_session, session_names
from stacklab.errors import SessionInvalid, UnknownName
from stacklab.kinds import KINDS
from stacklab.lab import Lab
from stacklab.replay import breaking
from stacklab.replay.breaking import Broken
from tests.unit.sessions import lines_with

TABLES = yaml.safe_load(Path(__file__).with_name("session_faults.yaml").read_text(encoding="utf-8"))
GOOD: str = TABLES["good"]


def test_a_fault_has_symptoms_and_a_trail_for_each_sort_of_cloud(write: Any) -> None:
    (case,) = write(GOOD).faults
    assert (case.id, case.breaks, case.step) == ("web", "httpd", "repair-web")
    assert case.symptoms("embedded") == "It is refused here."
    assert [clue.look for clue in case.clues("embedded")] == ["lab status", "lab fix"]
    assert [clue.look for clue in case.clues("devstack")] == ["systemctl status $APACHE", "lab fix"]


@pytest.mark.parametrize("row", TABLES["mistakes"], ids=lambda row: str(row["new"]))
def test_a_mistake_is_answered_with_file_line_key_and_advice(write: Any, row: dict[str, str]) -> None:
    text = GOOD.replace(row["old"], row["new"], 1)
    if row["at"] == "trail:":  # the last clue is true of both
        text = text.replace("means: Done.}", "means: Done., on: devstack}")
    assert text != GOOD
    assert_refused(write, text, **row)


def test_two_faults_cannot_share_a_name(write: Any) -> None:
    assert_refused(write, GOOD + GOOD.partition("faults:\n")[2], at="id: web", says="there is a fault 'web' already")


def assert_refused(write: Any, text: str, at: str, says: str, advises: str = "", **_: str) -> None:
    """The file is refused with these words, and with a line that has `at` in it."""
    with pytest.raises(SessionInvalid) as caught:
        write(text)
    assert says in caught.value.message
    assert advises in caught.value.advice
    places = [f"session.yaml:{number}: " for number in lines_with(text, at)]
    assert any(place in caught.value.message for place in places), caught.value.message


def test_a_fault_of_one_sort_of_cloud_needs_no_trail_on_the_other(write: Any) -> None:
    text = GOOD.replace("    breaks: httpd", "    breaks: httpd\n    on: devstack").replace(
        "      - {look: lab fix,", "      # "
    )
    text = text.replace("      - {look: lab status", "      # {look: lab status")
    assert write(text).faults[0].clues("embedded") == []


def test_every_repair_of_the_course_belongs_to_a_fault() -> None:
    for name in session_names():
        session = load_session(name)
        repairs = {step.id for step in session.steps() if step.kind is KINDS["repair"]}
        assert {case.step for case in session.faults} == repairs
        for case in session.faults:
            assert session.fault(case.id) is case
            with pytest.raises(UnknownName, match="has no fault"):
                session.fault(f"{case.id}-not")


# --- what is remembered ---------------------------------------------------------------------------------------------


@pytest.fixture
def lab(own_directories: Path) -> Lab:
    """A lab that was brought up for session 4, and is gone since."""
    lab = Lab("intro")
    lab.update(session="session4", home="embedded")
    return lab


def broken(name: str, **values: Any) -> Broken:
    """Something that is broken."""
    return Broken("session4", name, name, **{"state": "broken", **values})


def test_what_is_broken_is_remembered_until_it_passes_but_not_while_it_is_being_broken(lab: Lab) -> None:
    session = load_session("session4")
    breaking.record(lab, broken("httpd", state="breaking"))
    breaking.noticed(lab, session, ["repair-httpd"])
    assert [fault.state for fault in breaking.broken_faults(lab)] == ["breaking"]
    breaking.record(lab, broken("httpd"))
    breaking.record(lab, broken("quota"))
    assert [fault.fault for fault in breaking.broken_faults(lab)] == ["httpd", "quota"]
    breaking.noticed(lab, session, ["repair-httpd", "services"])
    assert [fault.fault for fault in breaking.broken_faults(lab)] == ["quota"]
    breaking.forget_all(lab)
    assert breaking.broken_faults(lab) == []


def test_what_was_chosen_at_random_has_no_name() -> None:
    assert breaking.in_words([broken("httpd"), broken("quota", surprise=True)]) == (
        "session4/httpd, something chosen at random"
    )


# --- the verbs, without a cloud -------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", TABLES["nothing is up"], ids=lambda row: str(row["words"]))
def test_nothing_is_broken_outside_of_a_lab(
    row: dict[str, Any], capsys: pytest.CaptureFixture[str], own_directories: Path
) -> None:
    assert run(row["words"].split()) == row["code"]
    assert row["says"] in capsys.readouterr().err
    assert not (own_directories / "state" / "stacklab" / "intro").exists()


@pytest.mark.parametrize("row", TABLES["in a lab"], ids=lambda row: str(row["words"]))
@pytest.mark.usefixtures("lab")
def test_a_mistake_is_one_clear_line(row: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(row["words"].split()) == row["code"]
    assert row["says"] in capsys.readouterr().err


@pytest.mark.usefixtures("lab")
def test_a_bare_hint_speaks_of_the_next_step_where_nothing_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["hint", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "services"


@pytest.mark.usefixtures("lab")
def test_a_step_keeps_its_hint_where_a_fault_has_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["hint", "network", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "network"
    assert run(["hint", "session4/network", "--json"]) == 2
    assert "session4/network is not broken" in capsys.readouterr().err


@pytest.mark.usefixtures("own_directories")
def test_the_list_needs_no_lab(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["faults", "session4", "--json"]) == 0
    row = {"fault": "session4/httpd", "title": "Horizon does not answer", "state": "", "why": "", "on_purpose": False}
    assert row in json.loads(capsys.readouterr().out)["faults"]
    assert run(["show", "session4"]) == 0
    assert "lab break session4/NAME" in capsys.readouterr().out
