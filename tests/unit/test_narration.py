"""What is shown is what is run: commands and requests as values."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacklab.course.load import load_session, session_names
from stacklab.kinds.context import OfflineContext
from stacklab.kinds.narration import Command, Hidden, Later, Request, Upload, Word
from stacklab.replay.assets import PAPER
from stacklab.replay.narrate import narrate

NASTY = st.text(min_size=1, max_size=20).filter(
    lambda text: "\x00" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
)


@given(st.lists(NASTY, min_size=1, max_size=4))
def test_a_shown_command_is_read_by_a_shell_as_the_words_that_are_run(words: list[str]) -> None:
    command = Command(tuple(words))
    assert shlex.split(command.text(), posix=True) == ["openstack", *command.argv({})]


@given(NASTY, NASTY)
def test_a_shown_request_sends_what_a_shell_would_make_of_it(name: str, value: str) -> None:
    request = Request(
        "POST", "network", ("networks",), {name: value, "id": Later("NET_ID"), "password": Hidden("SECRET", "pw")}
    )
    shown = request.text("http://host")
    assert "pw" not in shown.replace(name, "").replace(value, "") or "pw" in json.dumps([name, value])
    body = shown.partition(" -d ")[2]
    script = f"NET_ID=n-1 SECRET=pw; printf %s {body}"
    printed = subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout.decode()
    assert json.loads(printed) == request.content({"NET_ID": "n-1"})


def test_a_variable_is_shown_as_one_and_filled_when_run() -> None:
    command = Command(("server", "add", "floating", "ip", "vm", Later("ADDRESS")))
    assert command.text() == 'openstack server add floating ip vm "$ADDRESS"'
    assert command.argv({"ADDRESS": "172.24.4.9"})[-1] == "172.24.4.9"
    assert command.wants() == {"ADDRESS"}


def test_a_saved_value_is_shown_as_an_assignment() -> None:
    command = Command(("port", "list"), saves="PORT_ID", column="ID")
    assert command.text() == "PORT_ID=$(openstack port list -f value -c ID)"
    assert command.argv({})[-4:] == ["-f", "value", "-c", "ID"]


def test_a_secret_is_never_shown_and_always_sent() -> None:
    hidden = Hidden("LEARNER_PASSWORD", "s3cret")
    request = Request("POST", "identity", ("users",), {"user": {"password": hidden}})
    assert "s3cret" not in request.text("http://host")
    assert "s3cret" not in repr(request)
    assert request.content({})["user"]["password"] == "s3cret"
    command = Command(("user", "create", "--password-prompt", "x"), typed=hidden)
    assert "s3cret" not in command.text()
    assert "s3cret" not in " ".join(command.argv({}))


def test_a_path_segment_cannot_leave_its_place() -> None:
    request = Request("GET", "compute", ("os-keypairs", "a/../b?c"))
    assert request.url("http://host/v2.1", {}) == "http://host/v2.1/os-keypairs/a%2F..%2Fb%3Fc"


def test_an_upload_shows_its_pipeline() -> None:
    upload = Upload(pipeline=(("gunzip", "-c", "my image.gz"),))
    shown = Request("PUT", "image", ("images", Later("ID"), "file"), upload=upload).text("http://host")
    assert shown.startswith("gunzip -c 'my image.gz' | curl")
    assert (
        Request("PUT", "image", ("images", "1", "file"), upload=Upload(file=Path("a b"))).text("x").endswith("-T 'a b'")
    )


def test_a_request_for_a_token_is_a_line_that_keeps_the_header_in_a_variable(tmp_path: Path) -> None:
    request = Request(
        "POST", "identity", (), {"a": 1}, at="http://192.0.2.1/v3/auth/tokens", token=False, saves_header=("TOKEN", "x-s-t")
    )  # fmt: skip
    line = request.text("ignored")
    assert "X-Auth-Token" not in line
    curl = tmp_path / "curl"  # stands in for the answer of a server, headers as curl -D - prints them
    curl.write_text("#!/bin/sh\nprintf 'HTTP/1.1 201 CREATED\\r\\nX-S-T: abc=\\r\\nother: x\\r\\n\\r\\n'\n")
    curl.chmod(0o755)
    told = subprocess.run(
        ["bash", "-c", f'{line}\nprintf %s "$TOKEN"'],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert told.stdout == "abc="


def test_headers_of_a_request_are_shown_as_they_are_sent() -> None:
    extra: dict[str, Word] = {"ETag": Later("MD5"), "X-Object-Meta-Why": "it's"}
    request = Request("PUT", "object-store", ("box", "a b"), extra=extra, upload=Upload(file=Path("f")))
    assert request.wants() == {"MD5"}
    assert request.sent_headers({"MD5": "00"})["ETag"] == "00"
    line = request.text("http://192.0.2.1/v1/AUTH_1")
    assert '-H "ETag: $MD5"' in line
    assert "'X-Object-Meta-Why: it'\"'\"'s'" in line
    assert line.startswith('curl -sS -X PUT "http://192.0.2.1/v1/AUTH_1/box/a%20b"')


@pytest.mark.parametrize("name", session_names())
def test_every_step_can_be_told_without_a_cloud(name: str) -> None:
    session = load_session(name)
    for step in session.steps():
        narrated = narrate(None, OfflineContext(session, step, PAPER, lambda name: "s3cret"), step)
        assert narrated["commands"] or narrated["requests"] or step.kind.own_way, step.id
        assert narrated["horizon"], step.id
        assert "s3cret" not in json.dumps(narrated)
        for line in (*narrated["commands"], *narrated["requests"]):
            assert subprocess.run(["sh", "-n", "-c", line], check=False).returncode == 0, line


@pytest.mark.parametrize("name", ["session1", "session2", "session4"])
def test_every_id_that_a_request_stands_on_is_named_by_an_earlier_one_or_is_none_of_the_sessions(name: str) -> None:
    session = load_session(name)
    known: set[str] = set()
    for step in session.steps():
        offline = OfflineContext(session, step, PAPER, lambda name: "s3cret")
        for line in narrate(None, offline, step)["requests"]:
            sent, _, comment = line.partition("   # ")
            unknown = set(re.findall(r"\$([A-Z_]+_ID)\b", sent)) - known
            # The administrator's network and the services' project are in every cloud.
            assert unknown <= {"PUBLIC_ID", "SERVICE_ID"}, (step.id, line)
            known |= set(re.findall(r"([A-Z_]+_ID) = ", comment))
