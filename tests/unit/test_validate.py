"""`lab validate`: all that is wrong with a session, with its place; what is bad for learners; what would be run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stacklab.cli.main import run
from stacklab.course.load import session_names
from stacklab.course.search import VARIABLE, own_labs
from stacklab.errors import UnknownName
from stacklab.replay.validate import ValidationReport, validate

GOOD = """\
session: demo
title: A demonstration
summary: Two steps.
vars:
  net: my-net
exercises:
  - id: first
    title: First
    say: Why.
    steps:
      - id: network
        kind: network
        as: learner
        say: A network.
        hint: Look at the list of networks, as the learner.
        with:
          name: {var: net}
      - id: subnet
        kind: subnet
        as: learner
        say: A subnet.
        hint: It must be on that network, with that range.
        with:
          name: my-subnet
          network: {step: network}
          cidr: 10.0.0.0/24
"""


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")


def report(tmp_path: Path, text: str, name: str = "demo") -> ValidationReport:
    """On one session of this text."""
    folder = tmp_path / "labs" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "session.yaml").write_text(text, encoding="utf-8")
    (found,) = validate(folder)
    return found


def told(found: ValidationReport) -> list[tuple[int | None, str, str]]:
    """Line, key and problem of each."""
    return [(problem.line, problem.key, problem.problem) for problem in found.problems]


def line_of(text: str, part: str) -> int:
    """The line (from 1) on which a part of the text stands first."""
    return text[: text.index(part)].count("\n") + 1


def test_a_good_session_has_no_problems(tmp_path: Path) -> None:
    found = report(tmp_path, GOOD)
    assert (told(found), found.steps, found.scripts) == ([], 2, [])


@pytest.mark.parametrize("name", session_names())
def test_every_session_of_the_course_is_good(name: str) -> None:
    (found,) = validate(own_labs() / name)
    assert [problem.text() for problem in found.problems] == []


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace("title: A dem", "titel: A dem")
        .replace("kind: network", "kind: netwrok")
        .replace("        say: A subnet.\n", "")
        .replace("cidr: 10.0.0.0/24", "cidr: ten\n          extra: 1")
        .replace("{var: net}", "{var: nett}")
    )
    problems = told(report(tmp_path, text))
    expected = {
        (line_of(text, "titel"), "titel", "there is no such key"),
        (line_of(text, "kind: netwrok"), "exercises.0.steps.0.kind", "there is no kind 'netwrok'"),
        (line_of(text, "{var: nett}"), "exercises.0.steps.0.with.name.var", "there is no variable 'nett'"),
        (line_of(text, "- id: subnet"), "exercises.0.steps.1", "'say' is missing"),
    }
    assert expected <= set(problems)
    # What hangs on a mistake is no mistake of its own.
    assert not any("network" in problem and "no earlier step" in problem for _, _, problem in problems)


def test_each_step_with_several_mistakes_has_all_of_them_told(tmp_path: Path) -> None:
    text = GOOD.replace("cidr: 10.0.0.0/24", "cidr: ten\n          extra: 1").replace("name: my-subnet", "name: 7")
    keys = {key for _, key, _ in told(report(tmp_path, text))}
    assert keys == {f"exercises.0.steps.1.with.{key}" for key in ("cidr", "extra", "name")}


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        (
            "hint: Look at the list of networks, as the learner.",
            "hint: Look.",
            "exercises.0.steps.0.hint",
            "helps nobody",
        ),
        ("hint: It must be on that network, with that range.", "hint: A subnet.", "exercises.0.steps.1.hint", "helps"),
        ("  net: my-net", "  net: my-net\n  unused: 1", "vars.unused", "no step uses"),
        ("steps:\n", "steps: []\n    other:\n", "exercises.0.steps", "at least 1"),
        ("say: A network.", 'say: "A \\e[2J network."', "exercises.0.steps.0.say", "control characters"),
        ("say: A network.", 'say: "A \\u202e network."', "exercises.0.steps.0.say", "control characters"),
        ("id: subnet", "id: network", "exercises.0.steps.1.id", "a step 'network' already"),
        ("session: demo", "session: other", "session", "the folder is 'demo'"),
    ],
)
def test_what_is_bad_is_told_with_its_key_and_line(tmp_path: Path, old: str, new: str, key: str, says: str) -> None:
    assert old in GOOD
    found = report(tmp_path, GOOD.replace(old, new, 1))
    (problem,) = [problem for problem in found.problems if problem.key == key]
    assert says in problem.problem
    assert problem.advice
    assert problem.line


def test_a_repair_that_no_fault_needs_is_told(tmp_path: Path) -> None:
    repair = (
        "{id: fixed, kind: repair, as: admin, say: Mend it., hint: Look at what the services say., with: {fault: x}}"
    )
    (problem,) = report(tmp_path, GOOD + f"      - {repair}\n").problems
    assert "no fault of this session" in problem.problem


def test_a_fault_that_no_step_grades_is_told(tmp_path: Path) -> None:
    fault = "faults:\n  - {id: x, title: T, say: S, step: network, trail: [{look: a, shows: b, means: c}]}\n"
    (problem,) = report(tmp_path, GOOD + fault).problems
    assert problem.key == "faults.0.step"
    assert "a repair belongs here" in problem.problem


def test_a_fault_that_no_home_knows_is_told_with_the_closest(tmp_path: Path) -> None:
    repair = (
        "{id: mend, kind: repair, as: admin, say: A., hint: Look at what runs and what does not., with: {fault: htpd}}"
    )
    fault = "faults:\n  - {id: htpd, title: T, say: S, step: mend, trail: [{look: a, shows: b, means: c}]}\n"
    (problem,) = report(tmp_path, GOOD + f"      - {repair}\n" + fault).problems
    assert problem.problem == "no home knows a fault 'htpd'"
    assert "httpd" in problem.advice


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    image = "{id: i, kind: image, as: admin, say: A., hint: Look at the list of images., with: {name: i, source: {file: /no}}}"
    found = report(tmp_path, GOOD + f"      - {image}\n")
    assert [problem.problem for problem in found.problems] == ["there is no file /no"]
    assert "/no" in found.scripts[0].text


def test_every_script_is_listed_and_nothing_is_run(tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    scripts = {"run": f"touch {marker}", "check": f"test -f {marker} # check", "undo": f"rm {marker} # undo"}
    step = {"id": "s", "kind": "shell", "as": "admin", "say": "A.", "hint": "Look at the file that it makes."}
    step |= {"with": {"what": "a file", "in": "place", **scripts}}  # type: ignore[dict-item]
    found = report(tmp_path, GOOD + f"      - {json.dumps(step)}\n")
    assert found.problems == []
    (script,) = found.scripts
    assert script.step == "demo/first/s"
    assert all(text in script.text for text in scripts.values())
    assert not marker.exists()


def test_a_name_of_the_course_is_told(tmp_path: Path) -> None:
    text = GOOD.replace("session: demo", "session: session4")
    (problem,) = report(tmp_path, text, "session4").problems
    assert "is a session of the course" in problem.problem


def test_all_sessions_of_a_directory_are_read_whatever_is_wrong_with_one(tmp_path: Path) -> None:
    report(tmp_path, GOOD)
    report(tmp_path, "a: [", "broken")
    report(tmp_path, GOOD.replace("session: demo", "session: other"), "other")
    (tmp_path / "labs" / "linked").mkdir()
    (tmp_path / "labs" / "linked" / "session.yaml").symlink_to("/etc/passwd")
    (tmp_path / "labs" / "not-a-session").mkdir()
    found = {problem.name: [problem.problem for problem in problem.problems] for problem in validate(tmp_path / "labs")}
    assert set(found) == {"demo", "broken", "other", "linked"}
    assert (found["demo"], found["other"]) == ([], [])
    assert "leads out" in found["linked"][0]
    assert found["broken"]


def test_where_there_is_no_session_it_says_so(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UnknownName, match="holds no session"):
            validate(path)


# --- the command line ------------------------------------------------------------------------------------------------


def written(tmp_path: Path, text: str) -> str:
    report(tmp_path, text)
    return str(tmp_path / "labs")


@pytest.mark.usefixtures("own_directories")
def test_the_exit_code_says_whether_anything_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", written(tmp_path, GOOD)]) == 0
    assert "✓ demo: 2 steps" in capsys.readouterr().out
    assert run(["validate", written(tmp_path, GOOD.replace("as: learner", "as: lerner"))]) == 40
    shown = capsys.readouterr().out
    assert shown.count("'admin' or 'learner'") == 2
    assert str(tmp_path / "labs/demo/session.yaml:13: ") in shown
    assert run(["validate", str(tmp_path / "nowhere")]) == 41


@pytest.mark.usefixtures("own_directories")
def test_json_has_each_part_of_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labs = written(tmp_path, GOOD.replace("kind: subnet", "kind: subnt"))
    assert run(["validate", labs, "--json"]) == 40
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert value["good"] is False
    assert value["sessions"][0]["problems"] == [
        {
            "file": f"{labs}/demo/session.yaml",
            "line": 19,
            "key": "exercises.0.steps.1.kind",
            "problem": "there is no kind 'subnt'",
            "advice": "did you mean 'subnet'?",
        }
    ]
