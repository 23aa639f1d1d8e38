"""The command line: errors are one line with advice and an exit code; help is quick; what is shown works where it is typed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from stacklab.cli.main import ALIASES, DEFECT, VERBS, cli, run
from stacklab.cli.options import Invocation
from stacklab.course.load import load_session
from stacklab.errors import UnknownName
from stacklab.lab import Lab

PROGRAM = Path(sys.executable).parent / "lab"
HERE = pytest.mark.usefixtures("own_directories")


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of bash, in which $LAB is the program."""
    env = {**os.environ, "LAB": str(PROGRAM), **environment}
    return subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True, check=False)


def test_every_verb_has_help_and_its_one_line_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in [*VERBS, *ALIASES]:
        assert run([verb, "--help"]) == 0
        assert "Usage: lab" in capsys.readouterr().out


def test_help_does_not_load_what_it_does_not_need() -> None:
    code = (
        "import sys; from stacklab.cli.main import run; run(['--help']);"
        "heavy = {'openstack', 'pydantic', 'ruamel', 'rich', 'requests', 'jinja2'} & set(sys.modules);"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


NO_LAB = [
    ("upp", 2, "did you mean 'up'"),
    ("up sesion4", 41, "did you mean 'session4'"),
    ("status", 50, "lab up session4"),
    ("check session4", 50, "lab up session4"),
    ("replay session4/netwrok", 41, "did you mean 'network'"),
    ("replay session4 --via telepathy", 2, "telepathy"),
    ("show a/b/c/d", 41, "lab list"),
    ("hint session4/network/rooter", 41, "did you mean 'router'"),
    ("--lab ../../etc status", 41, "cannot be a lab's name"),
    ("ssh vm", 50, "lab up session4"),
    ("up session4 --on moon", 22, "embedded"),
    ("destroy --yes", 50, "lab up session4"),
    ("reset", 50, "lab"),
    ("recover", 50, "lab up session4"),
    ("fixes apply", 2, "ID"),
    ("prefetch", 2, "PROFILE"),
]
SESSION_3_IS_UP = [
    ("check network", 41, "did you mean 'session3/roles/network'?"),
    ("check session4/router", 41, "did you mean 'session4/network/router'?"),
    ("check session3/repair-agent", 41, "did you mean 'session4/troubleshooting/repair-agent'?"),
    ("hint repair-agent", 41, "did you mean 'session4/troubleshooting/repair-agent'?"),
    ("hint session1/repair-agent", 41, "did you mean 'session4/troubleshooting/repair-agent'?"),
    ("restart nofoo", 41, "there is no service 'nofoo'"),
    ("restart horizn", 41, "did you mean 'horizon'?"),
]


@HERE
@pytest.mark.parametrize(("words", "code", "says"), [*NO_LAB, *SESSION_3_IS_UP])
def test_a_mistake_is_one_clear_line_and_an_exit_code(
    words: str, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if (words, code, says) in SESSION_3_IS_UP:
        Lab("intro").update(session="session3", home="embedded")
    assert run(words.split()) == code
    shown = capsys.readouterr()
    assert shown.out == "", "nothing is begun"
    assert says in shown.err
    assert "Traceback" not in shown.err


@HERE
@pytest.mark.parametrize(
    ("words", "name", "code", "says", "advice"),
    [
        ("check session4 --json", "no-lab", 50, "no lab", "lab up session4 makes one"),
        ("check session4 --jsn --json", "wrong-usage", 2, "--jsn", "lab check --help"),
        ("chek session4 --json", "wrong-usage", 2, "did you mean 'check'", "lab --help"),
        ("restart --json", "wrong-usage", 2, "SERVICE", "lab restart --help"),
    ],
)
def test_an_error_is_json_where_json_was_asked_for(
    words: str, name: str, code: int, says: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words.split()) == code
    value = json.loads(capsys.readouterr().out)
    assert (value["id"], value["exit"], value["advice"]) == (name, code, advice)
    assert says in value["message"]


@HERE
def test_a_session_is_listed_for_scripts_with_what_each_step_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "session4", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert {step["exercise"] for step in value["steps"]} == {exercise["id"] for exercise in value["exercises"]}
    router = {"id": "router", "exercise": "network", "kind": "router", "as": "learner", "title": "router lab-router"}
    assert router in value["steps"]
    assert "httpd" in [fault["id"] for fault in value["faults"]]


def test_the_script_of_a_hint_can_be_typed_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    run(["hint", "session1/namespaces/box"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("    look:") + 1].startswith("# on ")
    assert "sh -eu <<'LAB'" in lines
    assert lines[-1] == "LAB"


@pytest.mark.parametrize("text", ["router", "network/router", "session4/network/router"])
def test_a_step_is_known_by_its_id_and_by_any_address(text: str) -> None:
    session = load_session("session4")
    assert session.step_at(text).id == "router"
    with pytest.raises(UnknownName):
        session.step_at(f"nowhere/{text}")


# --- how a command ends ----------------------------------------------------------------------------------------------


def ending(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Any verb ends so."""

    def ends(context: click.Context) -> None:
        raise error

    monkeypatch.setattr(cli, "invoke", ends)


def test_a_defect_says_so_and_keeps_the_trace_without_secrets(
    own_directories: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Lab("intro").update(session="session4")
    secret = Lab("intro").secret("admin")
    ending(monkeypatch, RuntimeError(f"with {secret} in it"))
    assert run(["status"]) == DEFECT
    complaint = capsys.readouterr().err
    assert "defect of lab" in complaint
    assert secret not in complaint
    assert secret not in (own_directories / "state/stacklab/defect.txt").read_text()


def test_an_interruption_names_the_command_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ending(monkeypatch, KeyboardInterrupt())
    assert run(["up", "session4"]) == 130
    assert "lab up session4" in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 21])
def test_a_verbs_own_exit_code_is_the_programs(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ending(monkeypatch, click.exceptions.Exit(code))
    assert run(["list"]) == code


NO_ROOM = "lab: no space left to write the output\n     → free some space and run the same command again\n"


@HERE
@pytest.mark.parametrize(
    ("line", "codes", "says"),
    [
        ("$LAB --help >/dev/full", {11}, NO_ROOM),
        ("$LAB show session4 --json >/dev/full", {11}, NO_ROOM),
        ("$LAB list <&-", {0}, ""),
        ("$LAB list >&-", {0}, ""),
        ("$LAB list <&- >&- 2>&-", {0}, ""),
        ("PYTHONIOENCODING=ascii PYTHONUTF8=0 $LAB show session4/network | grep -q '?'", {0}, ""),
        ("$LAB show session4 | head -n 1 >/dev/null; exit ${PIPESTATUS[0]}", {0, 141}, ""),
    ],
)
def test_an_output_that_is_full_closed_left_or_without_our_signs_is_no_defect(
    line: str, codes: set[int], says: str
) -> None:
    done = shell(line)
    assert done.returncode in codes
    assert done.stderr == says


def test_a_place_that_cannot_be_used_is_no_defect(
    own_directories: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_directories / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(own_directories / "file"))
    assert run(["up", "session4", "--on", "embedded"]) == 14
    assert "file/stacklab" in capsys.readouterr().err


# --- completion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("lab che", "check"),
        ("lab replay sess", "session4"),
        ("lab show session4/net", "session4/network"),
        ("lab hint flo", "floating-ip"),
        ("lab break session4/ht", "session4/httpd"),
        ("lab logs key", "keystone"),
    ],
)
def test_tab_completes_verbs_sessions_exercises_steps_and_services(
    words: str, expected: str, own_directories: Path
) -> None:
    Lab("intro").update(session="session4", home="embedded")
    line = 'eval "$($LAB completion bash)"; type _lab_completion >/dev/null && _LAB_COMPLETE=bash_complete $LAB'
    done = shell(line, COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    assert expected in done.stdout, done.stderr


# --- which lab -------------------------------------------------------------------------------------------------------


@HERE
def test_what_only_asks_leaves_no_directory_behind(own_directories: Path) -> None:
    for words in ("replay session4", "undo session4", "reset", "down", "destroy --yes"):
        assert run(["--lab", "nosuch", *words.split()]) == 50
    assert not (own_directories / "state/stacklab/nosuch").exists()


@HERE
def test_nothing_is_removed_unless_somebody_agrees(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Lab("intro").update(session="session4", home="embedded")
    assert run(["destroy", "--json"]) == 2  # nobody is asked
    for answer, code in (("", 2), ("n\n", 0)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        assert run(["destroy"]) == code
    shown = capsys.readouterr()
    assert shown.err.count("--yes agrees") == 2
    assert "nothing was removed" in shown.out
    assert Lab("intro").remains()
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert run(["destroy"]) == 0
    assert not Lab("intro").remains()


@HERE
@pytest.mark.parametrize(
    "words",
    [
        "--lab other replay session4", "--lab=other replay session4", "replay session4 --lab other",
        "replay --lab=other session4 --json", "fixes list --lab other", "ssh --lab other vm",
    ],
)  # fmt: skip
def test_what_is_advised_for_a_named_lab_names_it(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words.split()) == 50
    shown = capsys.readouterr()
    assert "lab --lab other up session4" in shown.err
    assert not shown.out or json.loads(shown.out)["advice"] == "lab --lab other up session4 makes one"
    assert "LAB_NAME" not in os.environ


def test_every_command_that_is_shown_names_lab_and_labs_as_the_line_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_LABS", "")
    invocation = Invocation()
    text = "lab up session4; then ($ lab status), the lab up there, /opt/lab up, slab up, lab --lab y up"
    assert invocation.aimed(text) == text
    monkeypatch.setenv("LAB_NAME", "before")
    invocation.name_lab("x")
    invocation.add_labs((str(tmp_path),))
    aimed = f"lab --lab x --labs {tmp_path}"
    expected = f"{aimed} up session4; then ($ {aimed} status), the lab up there, /opt/lab up, slab up, lab --lab y up"
    assert invocation.aimed(text) == expected
    invocation.console.print("→ lab up starts it")
    invocation.console.as_json = True
    invocation.console.result({"look": ["lab show x"]})
    assert capsys.readouterr().out.count(aimed) == 2
    assert os.environ["LAB_NAME"] == "x", "what steps start works on the same lab"


# --- status ----------------------------------------------------------------------------------------------------------


@HERE
@pytest.mark.parametrize(
    ("words", "record", "code", "says"),
    [
        ("status", {"session": "gone"}, 41, ["home embedded", "the session 'gone', which this lab is at", "lab reset"]),
        ("status", {"session": "session4", "restoring": "start"}, 23, ["lab reset, or lab up, ends it"]),
        ("openstack server list", {"session": "session4", "restoring": "start"}, 23, ["was interrupted"]),
    ],
)
def test_a_session_that_is_gone_and_a_reset_that_was_interrupted_are_said(
    words: str, record: dict[str, Any], code: int, says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Lab("intro").update(home="embedded", **record)
    assert run(words.split()) == code
    shown = capsys.readouterr()
    assert [text for text in says if text not in shown.out + shown.err] == []
