"""The command line: errors are one line with advice and an exit code; help is quick."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from stacklab.cli.main import ALIASES, DEFECT, VERBS, cli, run
from stacklab.cli.options import Invocation
from stacklab.course.load import load_session
from stacklab.course.search import own_labs
from stacklab.errors import UnknownName
from stacklab.lab import Lab
from stacklab.replay.apply import between


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


@pytest.mark.usefixtures("own_directories")
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["upp"], 2, "did you mean 'up'"),
        (["up", "sesion4"], 41, "did you mean 'session4'"),
        (["status"], 50, "lab up session4"),
        (["check", "session4"], 50, "lab up session4"),
        (["replay", "session4/netwrok"], 41, "did you mean 'network'"),
        (["replay", "session4", "--from", "rooter"], 41, "did you mean 'router'"),
        (["replay", "session4", "--from", "server", "--to", "network"], 41, "comes after"),
        (["replay", "session4", "--via", "telepathy"], 2, "telepathy"),
        (["show", "a/b/c/d"], 41, "lab list"),
        (["hint", "session4/network/rooter"], 41, "did you mean 'router'"),
        (["--lab", "../../etc", "status"], 41, "cannot be a lab's name"),
        (["ssh", "vm"], 50, "lab up session4"),
        (["up", "session4", "--on", "moon"], 22, "embedded"),
        (["destroy", "--yes"], 50, "lab up session4"),
        (["reset"], 50, "lab"),
    ],
)
def test_a_mistake_is_one_clear_line_and_an_exit_code(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    complaint = capsys.readouterr().err
    assert says in complaint
    assert "Traceback" not in complaint


@pytest.mark.usefixtures("own_directories")
def test_an_error_is_json_where_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "session4", "--json"]) == 50
    value = json.loads(capsys.readouterr().out)
    assert value["id"] == "no-lab"
    assert value["exit"] == 50
    assert value["advice"]


@pytest.mark.parametrize(
    ("arguments", "says", "advice"),
    [
        (["check", "session4", "--jsn", "--json"], "--jsn", "lab check --help"),
        (["chek", "session4", "--json"], "did you mean 'check'", "lab --help"),
        (["restart", "--json"], "SERVICE", "lab restart --help"),
    ],
)
def test_wrong_usage_is_json_where_json_was_asked_for(
    arguments: list[str], says: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["id"], told["exit"], told["advice"]) == ("wrong-usage", 2, advice)
    assert says in told["message"]


@pytest.mark.usefixtures("own_directories")
def test_a_session_is_listed_for_scripts_with_what_each_step_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "session4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {step["exercise"] for step in told["steps"]} == {exercise["id"] for exercise in told["exercises"]}
    assert {
        "id": "router",
        "exercise": "network",
        "kind": "router",
        "as": "learner",
        "title": "router lab-router",
    } in told["steps"]
    assert "httpd" in [fault["id"] for fault in told["faults"]]


@pytest.mark.usefixtures("own_directories")
def test_a_dry_run_needs_no_lab(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", "session4", "--dry-run"]) == 0
    assert "openstack --os-cloud lab-learner network create lab-net" in capsys.readouterr().out


def test_a_defect_says_so_and_keeps_the_trace_without_secrets(
    own_directories: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Lab("intro")
    secret = lab.secret("admin")
    lab.update(session="session4")

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError(f"with {secret} in it")

    monkeypatch.setattr(cli, "invoke", broken)
    assert run(["status"]) == DEFECT
    complaint = capsys.readouterr().err
    assert "defect of lab" in complaint
    assert secret not in complaint
    assert secret not in (own_directories / "state/stacklab/defect.txt").read_text()


def test_an_interruption_names_the_command_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "invoke", interrupted)
    assert run(["up", "session4"]) == 130
    assert "lab up session4" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_LAB_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [("lab replay sess", "session4"), ("lab show session4/net", "session4/network"), ("lab hint flo", "floating-ip")],
)
def test_tab_completes_sessions_exercises_and_steps(words: str, expected: str, own_directories: Path) -> None:
    Lab("intro").update(session="session4", home="embedded")
    env = {"_LAB_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "2", "PATH": "/usr/bin:/bin"}
    env |= {"XDG_STATE_HOME": str(own_directories / "state")}
    program = Path(sys.executable).parent / "lab"
    done = subprocess.run([str(program)], env=env, capture_output=True, text=True, check=False)
    assert expected in done.stdout, done.stderr


@pytest.mark.parametrize("words", ["--help", "list", "show session4 --json"])
@pytest.mark.usefixtures("own_directories")
def test_no_room_for_the_output_is_no_defect(words: str) -> None:
    program = Path(sys.executable).parent / "lab"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([program, *words.split()], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 11
    assert done.stderr.splitlines() == [
        "lab: no space left to write the output",
        "     → free some space and run the same command again",
    ]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.usefixtures("own_directories")
def test_a_closed_stream_is_no_defect(closed: str) -> None:
    program = Path(sys.executable).parent / "lab"
    done = subprocess.run(["bash", "-c", f"{program} list {closed}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("own_directories")
def test_an_output_without_our_signs_gets_others() -> None:
    program = Path(sys.executable).parent / "lab"
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([program, "show", "session4/network"], env=ascii_only, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?" in done.stdout


def test_a_place_that_cannot_be_used_is_no_defect(
    own_directories: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_directories / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(own_directories / "file"))
    assert run(["up", "session4", "--on", "embedded"]) == 14
    assert "file/stacklab" in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 1, 21, 23])
def test_a_verbs_own_exit_code_is_the_programs(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(context: click.Context) -> None:
        context.exit(code)

    monkeypatch.setattr(cli, "invoke", ends)
    assert run(["list"]) == code


@pytest.mark.usefixtures("own_directories")
def test_a_reader_that_leaves_is_no_failure_of_a_check() -> None:
    program = Path(sys.executable).parent / "lab"
    line = f"{program} show session4 | head -n 1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    many = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert many.returncode in (0, 141)
    assert many.stderr == ""


@pytest.mark.usefixtures("own_directories")
def test_what_only_asks_leaves_no_directory_behind(own_directories: Path) -> None:
    for words in (["replay", "session4"], ["undo", "session4"], ["reset"], ["down"], ["destroy", "--yes"]):
        assert run(["--lab", "nosuch", *words]) == 50
    assert not (own_directories / "state/stacklab/nosuch").exists()


@pytest.mark.usefixtures("own_directories")
def test_nothing_is_removed_unless_somebody_agrees(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Lab("intro").update(session="session4", home="embedded")
    assert run(["destroy", "--json"]) == 2  # nobody is asked
    for answer, code in (("", 2), ("n\n", 0)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        assert run(["destroy"]) == code
    told = capsys.readouterr()
    assert told.err.count("--yes agrees") == 2
    assert "nothing was removed" in told.out
    assert Lab("intro").remains()
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert run(["destroy"]) == 0
    assert not Lab("intro").remains()


@pytest.mark.parametrize(
    "words",
    [
        "--lab other replay session4", "--lab=other replay session4", "replay session4 --lab other",
        "replay --lab=other session4 --json", "fixes list --lab other", "ssh --lab other vm",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("own_directories")
def test_what_is_advised_for_a_named_lab_names_it(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words.split()) == 50
    said = capsys.readouterr()
    assert "lab --lab other up session4" in said.err
    assert not said.out or json.loads(said.out)["advice"] == "lab --lab other up session4 makes one"
    assert "LAB_NAME" not in os.environ


def test_every_command_that_is_shown_names_lab_and_labs_as_the_line_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_LABS", "")
    invocation = Invocation()
    told = "lab up session4; then ($ lab status), the lab up there, /opt/lab up, slab up, lab --lab y up"
    assert invocation.aimed(told) == told
    monkeypatch.setenv("LAB_NAME", "before")
    invocation.name_lab("x")
    invocation.add_labs((str(tmp_path),))
    aimed = f"lab --lab x --labs {tmp_path}"
    expected = f"{aimed} up session4; then ($ {aimed} status), the lab up there, /opt/lab up, slab up, lab --lab y up"
    assert invocation.aimed(told) == expected
    invocation.console().print("→ lab up starts it")
    invocation.console(as_json=True).result({"look": ["lab show x"]})
    assert capsys.readouterr().out.count(aimed) == 2
    assert os.environ["LAB_NAME"] == "x", "what steps start works on the same lab"


def test_lists_are_in_the_course_s_order(
    own_directories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_LABS", "")
    folder = tmp_path / "labs/a-foreign-one"
    folder.mkdir(parents=True)
    text = (own_labs() / "session4/session.yaml").read_text(encoding="utf-8")
    (folder / "session.yaml").write_text(text.replace("session: session4", "session: a-foreign-one"), encoding="utf-8")
    assert run(["list", "--json", "--labs", str(tmp_path / "labs")]) == 0
    names = [row["session"] for row in json.loads(capsys.readouterr().out)]
    numbered = [name for name in names if name.startswith("session")]
    assert names[: len(numbered)] == sorted(numbered)
    assert names[-1] == "a-foreign-one"


@pytest.mark.parametrize("text", ["router", "network/router", "session4/network/router"])
def test_a_step_is_known_by_its_id_and_by_any_address(text: str) -> None:
    session = load_session("session4")
    assert session.step_at(text).id == "router"
    assert [step.id for step in between(session, list(session.steps()), text, text)] == ["router"]
    with pytest.raises(UnknownName):
        session.step_at(f"nowhere/{text}")


@pytest.mark.usefixtures("own_directories")
def test_an_exercise_in_place_of_a_session_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    Lab("intro").update(session="session4", home="embedded")
    assert run(["check", "network"]) == 41
    assert "did you mean 'session4/network'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["check", "session4/router"], "session4/network/router"),
        (["check", "session3/repair-agent"], "session4/troubleshooting/repair-agent"),
        (["hint", "repair-agent"], "session4/troubleshooting/repair-agent"),
        (["hint", "session1/repair-agent"], "session4/troubleshooting/repair-agent"),
    ],
)
@pytest.mark.usefixtures("own_directories")
def test_a_step_of_another_exercise_or_session_is_pointed_to(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Lab("intro").update(session="session3", home="embedded")
    assert run(words) == 41
    assert f"did you mean '{meant}'?" in capsys.readouterr().err


@pytest.mark.usefixtures("own_directories")
def test_status_shows_the_cloud_even_when_its_session_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    Lab("intro").update(session="gone", home="embedded")
    assert run(["status"]) == 41
    said = capsys.readouterr()
    assert "home embedded" in said.out
    assert "the session 'gone', which this lab is at, is not there any more" in said.err
    assert "lab reset SESSION" in said.err


@pytest.mark.usefixtures("own_directories")
def test_status_and_the_client_say_that_a_reset_was_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    Lab("intro").update(session="session4", home="embedded", restoring="start")
    assert run(["status"]) == 23
    assert "lab reset, or lab up, ends it" in capsys.readouterr().out
    assert run(["openstack", "server", "list"]) == 23
    assert "was interrupted" in capsys.readouterr().err


def test_the_script_of_a_hint_can_be_typed_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    run(["hint", "session1/namespaces/box"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("    look:") + 1].startswith("# on ")
    assert "sh -eu <<'LAB'" in lines
    assert lines[-1] == "LAB"
