"""What a foreign session runs is shown and asked for; the answer holds for exactly what was shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import pytest

from stacklab.cli.options import trusted
from stacklab.console import Console
from stacklab.course.load import load_session, read_session, session_names
from stacklab.course.session import Session
from stacklab.errors import NotTrusted
from stacklab.lab import Lab
from stacklab.replay.journal import Journal
from stacklab.replay.trust import is_trusted, remember, require_trusted, scripts
from stacklab.replay.undo import declared, recorded_session
from tests.unit.sessions import written

TEXT = """\
session: foreign
title: A foreign one
summary: It runs things.
exercises:
  - id: first
    title: First
    say: Why.
    steps:
      - {id: network, kind: network, as: admin, say: A., hint: Look at the networks., with: {name: x}}
      - id: script
        kind: shell
        as: admin
        needs: [network]
        say: A script.
        hint: Look at the file that it leaves.
        with:
          what: a file
          in: place
          run: echo hello > made.txt
          check: test -f made.txt
          undo: rm -f made.txt
      - {id: after, kind: network, as: admin, needs: [script], say: A., hint: Look at them., with: {name: y}}
"""


def foreign(tmp_path: Path, text: str = TEXT) -> Session:
    """The session, from outside."""
    return read_session(written(tmp_path, text, "foreign"), foreign=True)


@pytest.fixture
def lab(own_directories: Path) -> Lab:
    """Not up; it only keeps answers."""
    lab = Lab("intro")
    lab.update(session="session4")
    return lab


def test_all_that_runs_is_shown_with_where_and_as_whom_and_every_file_and_url(tmp_path: Path) -> None:
    for source in ("{file: ~/.ssh/id_rsa}", "{url: 'https://example.org/disk.img'}"):
        step = f"{{id: image, kind: image, as: admin, say: A., hint: B., with: {{name: i, source: {source}}}}}"
        script, image = scripts(foreign(tmp_path, TEXT + f"      - {step}\n"))
        assert script.step == "foreign/first/script"
        assert all(
            part in script.text for part in ("echo hello", "test -f", "rm -f", "in place/ below", "as you", "60 s")
        )
        assert any(
            part in image.text for part in (str(Path("~/.ssh/id_rsa").expanduser()), "https://example.org/disk.img")
        )
    text = foreign(tmp_path, TEXT.replace("in: place", "root: true").replace("summary", "vars: {}\nsummary"))
    assert "in the home directory, as root" in scripts(text)[0].text


def test_the_course_s_own_sessions_and_what_only_asks_a_cloud_are_not_asked_for(tmp_path: Path, lab: Lab) -> None:
    assert all(is_trusted(lab, load_session(name)) for name in session_names())
    head = TEXT.partition("      - id: script")[0]
    assert is_trusted(lab, foreign(tmp_path, head))


@pytest.mark.parametrize("change", [("in: place", "in: other"), ("          in: place\n", ""), ("# end", "# the end")])
def test_an_answer_is_kept_per_lab_and_a_change_of_any_byte_asks_again(
    tmp_path: Path, lab: Lab, change: tuple[str, str]
) -> None:
    text = TEXT + "# end\n"
    session = foreign(tmp_path, text)
    with pytest.raises(NotTrusted, match="session 'foreign' is not the course's own") as caught:
        require_trusted(lab, session)
    assert ("--trust" in caught.value.advice, caught.value.exit_code) == (True, 44)
    remember(lab, session)
    require_trusted(lab, foreign(tmp_path, text))
    assert not is_trusted(Lab("other"), session)
    changed = text.replace(*change)
    assert changed != text
    assert not is_trusted(lab, foreign(tmp_path, changed))


def test_a_directory_that_the_configuration_trusts_is_not_asked_about(
    tmp_path: Path, lab: Lab, own_directories: Path
) -> None:
    session = foreign(tmp_path)
    config = own_directories / "config/stacklab/config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f"trust: [{tmp_path / 'elsewhere'}]\n", encoding="utf-8")
    assert not is_trusted(lab, session)
    config.write_text(f"trust: [{tmp_path}]\n", encoding="utf-8")
    assert is_trusted(lab, session)


# --- asking ----------------------------------------------------------------------------------------------------------


def ask(lab: Lab, session: Session, *, as_json: bool = False, trust: bool = False) -> Session:
    """As a verb does."""
    return trusted(Console(as_json=as_json), lab, session, trust=trust)


def test_on_a_terminal_it_is_shown_and_asked_for_and_asked_for_once(
    tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = foreign(tmp_path)
    answers = [False, True]
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(click, "confirm", lambda *words, **more: answers.pop(0))
    with pytest.raises(NotTrusted):
        ask(lab, session)
    shown = capsys.readouterr().out
    assert "echo hello > made.txt" in shown
    assert "rm -f made.txt" in shown
    assert str(session.file) in shown
    ask(lab, session)
    ask(lab, session)
    assert answers == []


def test_what_hides_in_a_script_is_seen_when_it_is_asked_for(
    tmp_path: Path, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TEXT.replace("run: echo hello > made.txt", '"run": "rm -rf ~ #\\r\\e[2K\\u202e true"')
    ask(lab, foreign(tmp_path, text), trust=True)
    shown = capsys.readouterr().out
    assert "rm -rf ~ #" in shown
    assert "\\r" in shown
    assert "\\x1b[2K\\u202e" in shown


@pytest.mark.parametrize("as_json", [False, True])
def test_without_somebody_to_ask_it_is_refused_unless_trusted_for_this_command(
    tmp_path: Path, lab: Lab, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    session = foreign(tmp_path)
    with pytest.raises(NotTrusted):
        ask(lab, session, as_json=as_json)
    assert capsys.readouterr().out == ""
    assert is_trusted(lab, ask(lab, session, as_json=as_json, trust=True))
    shown = capsys.readouterr()
    assert "echo hello" in (shown.err if as_json else shown.out)
    assert not (shown.out if as_json else shown.err)
    with pytest.raises(NotTrusted):
        ask(lab, session, as_json=as_json)


# --- what the journal keeps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", session_names())
def test_the_journal_tells_whose_each_step_is_and_what_it_builds_on(tmp_path: Path, name: str) -> None:
    session, journal = load_session(name), Journal(tmp_path / "journal.jsonl")
    for step in session.steps():
        journal.write(name, step.id, step.kind.name, "begin", declared=declared(session, step))
        journal.write(name, step.id, step.kind.name, "made", {"id": step.id})
    recorded = recorded_session(journal, name)
    assert recorded.learner == session.learner
    assert [step.id for step in recorded.select()] == [
        step.id for exercise in session.exercises for step in exercise.steps
    ]
    for step in recorded.steps():
        meant = session.step(step.id)
        assert (step.kind, step.who, step.exercise) == (meant.kind, meant.who, meant.exercise)
        assert step.needs >= meant.needs


def test_a_journal_of_an_older_lab_can_be_undone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    step = {"id": "network", "exercise": "first", "kind": "network", "as": "learner", "needs": ["x"], "with": {}}
    older = {"learner": ["me", "mine"], "foreign": True, "file": "/gone", "steps": [step]}
    journal.write("foreign", "network", "network", "begin", declared=older)
    recorded = recorded_session(journal, "foreign")
    network = recorded.step("network")
    assert (network.exercise, network.who, network.needs) == ("first", "learner", frozenset({"x"}))
    assert recorded.learner == ("me", "mine")


def test_no_secret_is_in_the_journal(tmp_path: Path) -> None:
    session = load_session("session4")
    assert "secret" not in json.dumps(declared(session, session.step("user")))
