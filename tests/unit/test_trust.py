"""What a foreign session runs is shown and asked for; the answer holds for exactly what was shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import pytest

from stacklab.cli.options import Context
from stacklab.cli.trusting import agreement
from stacklab.console import Console
from stacklab.course.load import load_session, read_session, session_names
from stacklab.course.session import Session
from stacklab.errors import NotTrusted
from stacklab.lab import Lab
from stacklab.replay.consent import refuse_foreign, to_agree_to
from stacklab.replay.journal import Journal
from stacklab.replay.remembered import declared, remembered_session
from stacklab.replay.trust import Trust
from stacklab.replay.undo import known_session

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
    path = tmp_path / "foreign" / "session.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return read_session(path, foreign=True)


@pytest.fixture
def lab(own_directories: Path) -> Lab:
    """Not up; it only keeps answers."""
    return Lab("intro")


def test_only_what_runs_on_a_machine_is_asked_for_with_all_that_is_looked_at_on_the_way(tmp_path: Path) -> None:
    session = foreign(tmp_path)
    assert to_agree_to(session, [session.step("network")]) == []
    for step in ("script", "after"):  # whoever checks `after` looks at what it builds on
        (found,) = to_agree_to(session, [session.step(step)])
        assert found.step.id == "script"
        assert all(part in found.text for part in ("echo hello", "test -f", "rm -f"))


def test_a_file_of_the_learner_s_that_an_image_is_made_of_is_asked_for(tmp_path: Path) -> None:
    source = "{id: image, kind: image, as: admin, say: A., hint: B., with: {name: i, source: {file: ~/.ssh/id_rsa}}}"
    session = foreign(tmp_path, TEXT + f"      - {source}\n")
    (found,) = to_agree_to(session, [session.step("image")])
    assert str(Path("~/.ssh/id_rsa").expanduser()) in found.text


def test_the_course_s_own_sessions_are_not_asked_for() -> None:
    for name in session_names():
        session = load_session(name)
        assert to_agree_to(session, session.steps()) == []
        for step in session.steps():
            refuse_foreign(session, step)


def test_nothing_is_agreed_to_where_nobody_was_asked(tmp_path: Path) -> None:
    session = foreign(tmp_path)
    refuse_foreign(session, session.step("network"))
    with pytest.raises(NotTrusted, match="step script: session 'foreign' is not the course's own") as caught:
        refuse_foreign(session, session.step("script"))
    assert "--trust" in caught.value.advice
    assert caught.value.exit_code == 44


def test_an_answer_is_kept_per_lab_and_a_changed_script_asks_again(tmp_path: Path, lab: Lab) -> None:
    session = foreign(tmp_path)
    (found,) = Trust(lab).unknown(to_agree_to(session, session.steps()))
    Trust(lab).accept(found)
    Trust(lab).agreed(session, session.step("script"))
    with pytest.raises(NotTrusted):
        Trust(Lab("other")).agreed(session, session.step("script"))
    for part in ("echo hello", "test -f made", "rm -f made"):
        changed = foreign(tmp_path, TEXT.replace(part, f"true; {part}"))
        with pytest.raises(NotTrusted):
            Trust(lab).agreed(changed, changed.step("script"))
    words = foreign(tmp_path, TEXT.replace("A script.", "The same, told better."))
    Trust(lab).agreed(words, words.step("script"))


def test_what_is_accepted_once_is_not_kept(tmp_path: Path, lab: Lab) -> None:
    session, trust = foreign(tmp_path), Trust(lab)
    (found,) = to_agree_to(session, session.steps())
    trust.accept(found, once=True)
    trust.agreed(session, session.step("script"))
    with pytest.raises(NotTrusted):
        Trust(lab).agreed(session, session.step("script"))


# --- asking ----------------------------------------------------------------------------------------------------------


def ask(lab: Lab, session: Session, *, as_json: bool = False, trust: bool = False, needed: bool = True) -> None:
    """As a verb does it, then run the script's step."""
    console, steps = Console(as_json=as_json), list(session.steps())
    allowed = agreement(Context(lab.name), console, session, steps, trust=trust, needed=needed)
    allowed(session, session.step("script"))


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
    ask(lab, session, as_json=as_json, trust=True)
    said = capsys.readouterr()
    assert "echo hello" in (said.err if as_json else said.out)
    assert not (said.out if as_json else said.err)
    with pytest.raises(NotTrusted):
        ask(lab, session, as_json=as_json)


def test_a_check_may_go_on_without_an_answer(tmp_path: Path, lab: Lab) -> None:
    session = foreign(tmp_path)
    allowed = agreement(Context(lab.name), Console(), session, session.steps(), trust=False, needed=False)
    allowed(session, session.step("network"))
    with pytest.raises(NotTrusted):
        allowed(session, session.step("script"))


# --- what the journal remembers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", session_names())
def test_every_step_comes_back_from_the_journal_as_it_was_declared(tmp_path: Path, name: str) -> None:
    session, journal = load_session(name), Journal(tmp_path / "journal.jsonl")
    for step in session.steps():
        journal.write(name, step.id, step.kind.name, "begin", declared=declared(session, step))
        journal.write(name, step.id, step.kind.name, "made", {"id": step.id})
    remembered = remembered_session(journal, name)
    assert remembered is not None
    assert remembered.learner == session.learner
    assert {step.id for step in remembered.steps()} == {step.id for step in session.steps()}
    for step in remembered.steps():
        meant = session.step(step.id)
        assert (step.kind, step.params, step.who, step.needs) == (meant.kind, meant.params, meant.who, meant.needs)
        assert (step.exercise, step.until) == (meant.exercise, meant.until)


def test_a_changed_file_does_not_change_what_is_undone(tmp_path: Path, lab: Lab) -> None:
    journal, before = Journal(lab.journal_file), foreign(tmp_path)
    script = before.step("script")
    journal.write("foreign", "script", "shell", "begin", declared=declared(before, script))
    changed = foreign(tmp_path, TEXT.replace("rm -f made.txt", "rm -rf ~").replace("id: after", "id: later"))
    known = known_session(changed, journal)
    assert known.step("script").params == script.params
    assert known.step("later").id == "later"
    assert known.foreign
    (found,) = to_agree_to(known, [known.step("script")])
    assert "rm -rf" not in found.text


def test_no_secret_is_in_what_the_journal_remembers(tmp_path: Path) -> None:
    session = load_session("session4")
    assert '"secret": "learner"' in json.dumps(declared(session, session.step("user")))
