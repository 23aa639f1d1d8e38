"""`lab validate`: all that is wrong with a session, with its place; what is bad for learners; what would be run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stacklab.cli.main import run
from stacklab.course.load import load_session, session_names
from stacklab.course.search import own_labs
from stacklab.errors import UnknownName
from stacklab.replay.validate import Problem, ValidationReport, validate
from tests.unit.sessions import GOOD, TABLES, lines_with, written

STEP = "      - {{id: it, as: admin, say: A., hint: Look at what there is of it., {}}}\n"
FAULT = "faults:\n  - {{id: it, title: T, say: S, step: {}, trail: [{{look: a, shows: b, means: c}}], breaks: htpd}}\n"


def report(tmp_path: Path, text: str, name: str = "demo") -> ValidationReport:
    """On one session of this text."""
    (one_report,) = validate(written(tmp_path / "labs", text, name).parent)
    return one_report


def test_a_good_session_has_no_problems(tmp_path: Path) -> None:
    good = report(tmp_path, GOOD)
    assert (good.problems, good.steps, good.scripts) == ([], 2, [])


@pytest.mark.parametrize("name", session_names())
def test_every_session_of_the_course_is_good(name: str) -> None:
    (own,) = validate(own_labs() / name)
    assert [problem.text() for problem in own.problems] == []
    assert own.steps
    assert [step.id for step in load_session(name).steps() if not step.say.endswith((".", "?", ":"))] == []


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace("title: A dem", "titel: A dem")
        .replace("kind: network", "kind: netwrok")
        .replace("        say: A subnet.\n", "")
        .replace("cidr: 10.0.0.0/24", "cidr: ten\n          extra: 1")
        .replace("{var: net}", "{var: nett}")
    )
    problems = {(problem.line, problem.key, problem.problem) for problem in report(tmp_path, text).problems}
    assert problems >= {
        (lines_with(text, "titel")[0], "titel", "there is no such key"),
        (lines_with(text, "kind: netwrok")[0], "exercises.0.steps.0.kind", "there is no kind 'netwrok'"),
        (lines_with(text, "{var: nett}")[0], "exercises.0.steps.0.with.name.var", "there is no variable 'nett'"),
        (lines_with(text, "- id: subnet")[0], "exercises.0.steps.1", "'say' is missing"),
    }
    # What hangs on a mistake is no mistake of its own.
    assert not any("network" in problem and "no earlier step" in problem for _, _, problem in problems)


def test_each_step_with_several_mistakes_has_all_of_them_told(tmp_path: Path) -> None:
    text = GOOD.replace("cidr: 10.0.0.0/24", "cidr: ten\n          extra: 1").replace("name: my-subnet", "name: 7")
    keys = {problem.key for problem in report(tmp_path, text).problems}
    assert keys == {f"exercises.0.steps.1.with.{key}" for key in ("cidr", "extra", "name")}


@pytest.mark.parametrize("row", TABLES["told"], ids=lambda row: f"{row['key']}: {row['says']}")
def test_what_is_bad_is_told_with_its_key_and_line(tmp_path: Path, row: dict[str, str]) -> None:
    text = GOOD.replace(row["old"], row["new"], 1) if "old" in row else GOOD
    text += STEP.format(row["add"]) if "add" in row else ""
    text += FAULT.format(row["fault"]) if "fault" in row else ""
    assert text != GOOD
    (problem,) = [it for it in report(tmp_path, text).problems if it.key == row["key"]]
    assert row["says"] in problem.problem
    assert problem.advice
    assert problem.line


def test_every_script_is_listed_and_nothing_is_run(tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    scripts = {"run": f"touch {marker}", "check": f"test -f {marker} # check", "undo": f"rm {marker} # undo"}
    step = {"id": "s", "kind": "shell", "as": "admin", "say": "A.", "hint": "Look at the file that it makes."}
    step |= {"with": {"what": "a file", "in": "place", **scripts}}  # type: ignore[dict-item]
    listed = report(tmp_path, GOOD + f"      - {json.dumps(step)}\n")
    assert listed.problems == []
    (script,) = listed.scripts
    assert script.step == "demo/first/s"
    assert all(text in script.text for text in scripts.values())
    assert not marker.exists()


def test_all_sessions_of_a_directory_are_read_whatever_is_wrong_with_one(tmp_path: Path) -> None:
    report(tmp_path, GOOD)
    report(tmp_path, "a: [", "broken")
    report(tmp_path, GOOD.replace("session: demo", "session: session4"), "session4")
    (tmp_path / "labs" / "linked").mkdir()
    (tmp_path / "labs" / "linked" / "session.yaml").symlink_to("/etc/passwd")
    (tmp_path / "labs" / "not-a-session").mkdir()
    problems = {it.name: [problem.problem for problem in it.problems] for it in validate(tmp_path / "labs")}
    assert set(problems) == {"demo", "broken", "session4", "linked"}
    assert problems["demo"] == []
    assert problems["broken"]
    assert "leads out" in problems["linked"][0]
    assert "is a session of the course" in problems["session4"][0]
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UnknownName, match="holds no session"):
            validate(path)


@pytest.mark.usefixtures("own_directories")
def test_the_exit_code_says_whether_anything_is_wrong_and_json_has_each_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labs = str(tmp_path / "labs")
    report(tmp_path, GOOD)
    assert run(["validate", labs]) == 0
    assert "✓ demo: 2 steps" in capsys.readouterr().out
    report(tmp_path, GOOD.replace("kind: subnet", "kind: subnt"))
    file, key, problem = f"{labs}/demo/session.yaml", "exercises.0.steps.1.kind", "there is no kind 'subnt'"
    assert run(["validate", labs]) == 40
    assert f"{file}:19: {key}: {problem}" in capsys.readouterr().out
    assert run(["validate", labs, "--json"]) == 40
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert value["good"] is False
    expected = Problem(file, 19, key, problem, "did you mean 'subnet'?")
    assert [Problem(**it) for it in value["sessions"][0]["problems"]] == [expected]
    assert run(["validate", str(tmp_path / "nowhere")]) == 41
