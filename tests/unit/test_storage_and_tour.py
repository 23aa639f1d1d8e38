"""What session 2's kinds work out without a cloud: addresses, segments, narration on paper, how a project is switched on."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
from pathlib import Path

import pytest

from stacklab.course.load import load_session, read_session
from stacklab.deploy.localconf.enable import how_to_switch_on
from stacklab.errors import DownloadFailed, SessionInvalid
from stacklab.kinds.component import version_address
from stacklab.kinds.context import OfflineContext
from stacklab.kinds.exchange import Page
from stacklab.kinds.large_object import segments_of
from stacklab.kinds.narration import Later, Request, Upload, Word
from stacklab.kinds.stream import expanded_pieces, md5_of, pieces_of
from stacklab.replay.assets import PAPER
from stacklab.replay.narrate import narrate

MIB = 1 << 20


@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [
        ("http://192.0.2.1/identity", "http://192.0.2.1/identity/"),
        ("http://192.0.2.1/identity/v3", "http://192.0.2.1/identity/"),
        ("http://192.0.2.1:8774/v2.1/", "http://192.0.2.1:8774/"),
        ("http://192.0.2.1/volume/v3/$(project_id)s", "http://192.0.2.1/volume/"),
        ("http://192.0.2.1:8004/v1/%(tenant_id)s", "http://192.0.2.1:8004/"),
        ("http://192.0.2.1:8080/v1/AUTH_%(project_id)s", "http://192.0.2.1:8080/info"),
        ("http://192.0.2.1:9696", "http://192.0.2.1:9696/"),
    ],
)
def test_a_service_is_asked_for_its_versions_above_version_and_project(endpoint: str, asked: str) -> None:
    assert version_address(endpoint) == asked


def test_segments_cover_a_file_without_gap_and_know_their_sums(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = bytes(range(256)) * (10 * MIB // 256) + b"the rest"
    path.write_bytes(content)
    parts = segments_of(path, "big", 4)
    assert [(part.start, part.size) for part in parts] == [(0, 4 * MIB), (4 * MIB, 4 * MIB), (8 * MIB, 2 * MIB + 8)]
    for part in parts:
        assert part.etag == hashlib.md5(content[part.start :][: part.size], usedforsecurity=False).hexdigest()
    assert [part.name for part in parts] == sorted(part.name for part in parts)
    assert md5_of(pieces_of(path)) == hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_a_compressed_file_that_was_cut_off_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "image.gz"
    path.write_bytes(gzip.compress(bytes(MIB))[:-8])
    with pytest.raises(DownloadFailed, match="cannot expand"):
        md5_of(expanded_pieces(path, "gzip"))


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


def test_every_step_of_session_2_can_be_told_on_paper() -> None:
    session = load_session("session2")
    for step in session.steps():
        told = narrate(None, OfflineContext(session, step, PAPER, lambda name: ""), step)
        assert told["commands"] or told["requests"] or told["horizon"], step.id


@pytest.mark.parametrize(
    ("service", "profile", "words"),
    [
        ("heat", "debian12-2026.1", ["lab up session2 --with heat", "enable_plugin heat", "stable/2026.1"]),
        ("swift", "centos7-pike", ["--with swift", "enable_service s-proxy", "SWIFT_HASH='********'"]),
        ("sahara", "debian12-2026.1", ["cannot serve sahara", "retired"]),
        ("heat", "centos7-pike-packstack", ["--with heat", "in the answer file: CONFIG_HEAT_INSTALL=y"]),
        ("heat", "", ["--on libvirt --with heat", "debian12-2026.1"]),
        ("ironic", "", ["no profile of lab serves it", "bare-metal"]),
    ],
)
def test_how_a_project_is_switched_on_comes_from_the_profile(service: str, profile: str, words: list[str]) -> None:
    told = how_to_switch_on(service, profile=profile, session="session2")
    assert [word for word in words if word not in told] == [], told


def test_what_a_step_lasts_until_is_a_later_step(tmp_path: Path) -> None:
    session = load_session("session2").file.read_text(encoding="utf-8")
    folder = tmp_path / "session2"
    folder.mkdir()
    (folder / "session.yaml").write_text(session.replace("until: first-gone", "until: volume", 1), encoding="utf-8")
    with pytest.raises(SessionInvalid, match="no later step is called 'volume'"):
        read_session(folder / "session.yaml")


def test_a_page_of_horizon_is_read_for_its_form_and_its_cells() -> None:
    page = Page(
        '<form><input type="hidden" name="csrfmiddlewaretoken" value="t"><input name="password" type="password"></form>'
        "<table><tr><td><a>tour-net</a></td><td> Up </td></tr></table><p>not in a cell</p>"
    )
    assert page.hidden == {"csrfmiddlewaretoken": "t"}
    assert page.asks_password
    assert [cell.strip() for cell in page.cells] == ["tour-net", "Up"]
