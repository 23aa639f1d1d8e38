"""Sessions outside the repository: where they are found, whose name it is, and what they may not do to whoever reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stacklab.cli.main import run
from stacklab.course.load import load_session, read_session, session_names
from stacklab.course.search import VARIABLE
from stacklab.deploy.profile.load import load_profile
from stacklab.errors import SessionInvalid, UnknownName
from stacklab.lab import Lab
from stacklab.replay.current import begin_session, session_of
from tests.unit.sessions import written

TEXT = """\
session: {name}
title: {title}
summary: Elsewhere.
exercises:
  - id: first
    title: First
    say: Why.
    steps:
      - {{id: network, kind: network, as: learner, say: A., hint: Look at the list of networks., with: {{name: x}}}}
"""
NAME = "elsewhere"


def make(labs: Path, name: str = NAME, title: str = "A foreign session") -> Path:
    """A good session below `labs`; the directory."""
    return written(labs, TEXT.format(name=name, title=title), name).parent.parent


def name_directories(monkeypatch: pytest.MonkeyPatch, *labs: Path) -> None:
    """As a user's shell does."""
    monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, labs)))


def test_a_named_directory_s_sessions_are_found_and_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName):
        load_session(NAME)
    name_directories(monkeypatch, make(tmp_path))
    session = load_session(NAME)
    assert (session.foreign, session.file) == (True, tmp_path / NAME / "session.yaml")
    assert NAME in session_names()
    assert not load_session("session4").foreign


def test_a_named_directory_that_is_none_is_said_where_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name_directories(monkeypatch, tmp_path / "gone")
    told = f"LAB_LABS names {tmp_path / 'gone'}: there is no such directory"
    with pytest.raises(UnknownName) as caught:
        load_session(NAME)
    assert told in caught.value.message
    assert run(["list"]) == 0
    assert told in capsys.readouterr().err


def test_a_name_of_the_course_is_refused_elsewhere_and_nothing_is_shadowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_directories(monkeypatch, make(tmp_path, "session4"))
    with pytest.raises(SessionInvalid, match="'session4' is a session of the course") as caught:
        load_session("session4")
    assert str(tmp_path / "session4") in caught.value.message
    assert "rename" in caught.value.advice


def test_a_name_that_two_directories_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    name_directories(monkeypatch, first, second)
    with pytest.raises(SessionInvalid, match=f"is in {first}, too"):
        load_session(NAME)


def test_the_same_directory_named_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labs = make(tmp_path / "labs")
    (tmp_path / "link").symlink_to(labs)
    name_directories(monkeypatch, labs, labs, tmp_path / "link")
    assert load_session(NAME).foreign


@pytest.mark.usefixtures("own_directories")
def test_a_lab_remembers_where_its_session_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labs, lab = make(tmp_path / "labs"), Lab("intro")
    name_directories(monkeypatch, labs)
    begin_session(lab, load_session(NAME))
    name_directories(monkeypatch)
    assert session_of(lab, None).file == labs / NAME / "session.yaml"
    assert session_of(lab, None).foreign
    begin_session(lab, load_session("session4"))
    with pytest.raises(UnknownName):
        session_of(lab, NAME)


@pytest.mark.usefixtures("own_directories")
def test_what_is_named_now_is_meant_rather_than_what_the_lab_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, lab = make(tmp_path / "old"), make(tmp_path / "new"), Lab("intro")
    name_directories(monkeypatch, old)
    begin_session(lab, load_session(NAME))
    name_directories(monkeypatch, new)
    assert session_of(lab, NAME).file.is_relative_to(new)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_link_that_leads_out_of_the_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: str
) -> None:
    outside, labs = make(tmp_path / "outside"), tmp_path / "labs"
    labs.mkdir()
    if linked == "folder":
        (labs / NAME).symlink_to(outside / NAME)
    else:
        (labs / NAME).mkdir()
        (labs / NAME / "session.yaml").symlink_to(outside / NAME / "session.yaml")
    name_directories(monkeypatch, labs)
    with pytest.raises(SessionInvalid, match="a link leads out"):
        load_session(NAME)


@pytest.mark.parametrize("what", ["pipe", "device", "directory", "huge", "loop"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    path = tmp_path / NAME / "session.yaml"
    path.parent.mkdir()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "directory":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path)
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    with pytest.raises(SessionInvalid) as caught:
        read_session(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("name", ["-oProxyCommand=x", "--file=id", "a\\x9b2J", "a/b"])
def test_a_name_is_no_option_and_no_path(tmp_path: Path, name: str) -> None:
    text = TEXT.format(name="demo", title="Named").replace("{name: x}", f'{{name: "{name}"}}')
    with pytest.raises(SessionInvalid, match="name"):
        read_session(written(tmp_path, text))


def test_a_session_of_thousands_of_steps_is_read_or_refused(tmp_path: Path) -> None:
    head, step = TEXT.format(name="demo", title="Long").split("      - ")

    def steps(count: int) -> str:
        return head + "".join(f"      - {step}".replace("id: network", f"id: network-{at}") for at in range(count))

    assert len(list(read_session(written(tmp_path, steps(2000))).steps())) == 2000
    with pytest.raises(SessionInvalid, match="larger than"):
        read_session(written(tmp_path, steps(12000)))


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_directories")
def test_lab_list_says_where_foreign_sessions_come_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labs, more = make(tmp_path / "labs"), make(tmp_path / "more", "second")
    named = ["--labs", str(labs), "--labs", str(more), "list"]
    assert run(named) == 0
    shown = capsys.readouterr().out
    assert next(line for line in shown.splitlines() if line.startswith(NAME)).endswith(str(labs))
    assert run([*named, "--json"]) == 0
    rows = {row["session"]: row["from"] for row in json.loads(capsys.readouterr().out)}
    assert (rows[NAME], rows["second"], rows["session4"]) == (str(labs), str(more), None)


@pytest.mark.usefixtures("own_directories")
def test_a_directory_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--labs", str(tmp_path / "nowhere"), "list"]) == 41
    assert "no such directory" in capsys.readouterr().err


@pytest.mark.usefixtures("own_directories")
def test_advice_names_the_directories_that_the_command_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labs = make(tmp_path / "labs")
    assert run(["--labs", str(labs), "check", NAME]) == 50
    assert f"lab --labs {labs} up" in capsys.readouterr().err


@pytest.mark.parametrize("named_by", ["option", "variable", "lab"])
def test_tab_completes_a_foreign_session(own_directories: Path, monkeypatch: pytest.MonkeyPatch, named_by: str) -> None:
    labs = make(own_directories / "labs")
    if named_by == "lab":
        name_directories(monkeypatch, labs)
        begin_session(Lab("intro"), load_session(NAME))
        name_directories(monkeypatch)
    env = {"_LAB_COMPLETE": "bash_complete", "PATH": "/usr/bin:/bin", "XDG_STATE_HOME": str(own_directories / "state")}
    before = f"lab --labs {labs}" if named_by == "option" else "lab"
    env |= {VARIABLE: str(labs)} if named_by == "variable" else {}
    program = Path(sys.executable).parent / "lab"
    for words, expected in ((f"{before} show else", NAME), (f"{before} show {NAME}/f", f"{NAME}/first")):
        line = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        done = subprocess.run([str(program)], env=env | line, capture_output=True, text=True, check=False)
        assert expected in done.stdout, (words, done.stderr)


@pytest.mark.usefixtures("own_directories")
@pytest.mark.parametrize(
    "title",
    [
        '"\\e[2J\\e[31mred\\e]0;title\\a\\x9b5n\\r\\b"',
        '"left\\u202eright\\u200b"',
        '"\\U000e0041\\u2066"',
        '"\\eP1;2|x\\e\\\\ \\e(0"',
    ],
)
def test_what_a_session_says_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str], title: str) -> None:
    labs = make(tmp_path / "labs", title=title)
    for words in (["list"], ["show", NAME], ["validate", str(labs)], ["list", "--json"], ["check", f"{NAME}/\x1b[2J"]):
        run(["--labs", str(labs), *words])
        said = capsys.readouterr()
        for text in (said.out, said.err):
            assert all(sign in "\n\t" or sign.isprintable() for sign in text), (words, text)


@pytest.mark.usefixtures("own_directories")
def test_a_cloud_that_names_the_project_of_its_services_otherwise_is_asked_for_that_one() -> None:
    lab = Lab("intro")
    lab.update(session="session4")
    assert session_of(lab, None).step("service-users").params.model_dump()["of"] == "service"
    lab.update(service_project=load_profile("centos7-pike-packstack").cloud.service_project)
    assert session_of(lab, None).step("service-users").params.model_dump()["of"] == "services"
    assert session_of(lab, "session2").step("service-users").params.model_dump()["of"] == "services"
