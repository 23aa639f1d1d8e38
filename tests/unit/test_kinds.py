"""What kinds of steps do with files, URLs and answers, without a cloud."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from stacklab.cloud.connection import Connection
from stacklab.course.load import load_session
from stacklab.deploy.localconf.enable import how_to_switch_on
from stacklab.errors import CloudUnreachable, DownloadFailed
from stacklab.kinds import KINDS, client, component, stream, tls_check
from stacklab.kinds.context import Context, OfflineContext
from stacklab.kinds.exchange import Page
from stacklab.kinds.kind import mentions
from stacklab.kinds.large_object import MIB, manifest_of
from stacklab.kinds.narration import Command, Upload
from stacklab.kinds.stream import expanded_pieces, md5_of, pieces_of
from stacklab.replay.assets import PAPER


def table(name: str) -> dict[str, Any]:
    """What that file beside this one says."""
    tables: dict[str, Any] = yaml.safe_load(Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8"))
    return tables


TABLES = table("kinds")


# --- streams -------------------------------------------------------------------------------------------------------


def test_whoever_stops_reading_tells_why_and_not_the_command_that_is_cut_off() -> None:
    with stream.piped((("yes",), ("cat",))) as data:
        assert data.read(4) == b"y\ny\n"


@pytest.mark.parametrize("pipeline", [(("false",),), (("sh", "-c", "echo half; exit 3"), ("cat",))])
def test_a_command_that_fails_is_told_when_its_output_was_read_to_the_end(
    pipeline: tuple[tuple[str, ...], ...],
) -> None:
    with pytest.raises(DownloadFailed, match="ended with status"), stream.piped(pipeline) as data:
        data.read()


def test_segments_cover_a_file_without_gap_and_know_their_sums(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = bytes(range(256)) * (10 * MIB // 256) + b"the rest"
    path.write_bytes(content)
    entries = manifest_of(path, "box", "big", 4)
    assert [entry["size_bytes"] for entry in entries] == [4 * MIB, 4 * MIB, 2 * MIB + 8]
    start = 0
    for entry in entries:
        piece = content[start:][: entry["size_bytes"]]
        assert entry["etag"] == hashlib.md5(piece, usedforsecurity=False).hexdigest()
        start += len(piece)
    names = [entry["path"] for entry in entries]
    assert names == sorted(names)
    assert names[0] == "box/big.segments/0000"
    assert md5_of(pieces_of(path)) == hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_a_compressed_file_that_was_cut_off_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "image.gz"
    path.write_bytes(gzip.compress(bytes(MIB))[:-8])
    with pytest.raises(DownloadFailed, match="cannot expand"):
        md5_of(expanded_pieces(path, "gzip"))


class Site(http.server.BaseHTTPRequestHandler):
    """Answers with a redirect to wherever the path says, else with a few zeros, compressed."""

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = gzip.compress(bytes(3 << 20))
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: Any) -> None:
        """Nothing."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server that is taken for another machine's; `localhost` stays this machine's."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port, really = server.server_port, stream._public_address

    def address(url: str) -> str:
        return "127.0.0.1" if url.startswith(f"http://image.test:{port}") else really(url)

    monkeypatch.setattr(stream, "_public_address", address)
    monkeypatch.setattr("socket.getaddrinfo", resolving(port))
    yield f"http://image.test:{port}"
    server.shutdown()
    server.server_close()


def resolving(port: int) -> Any:
    """A resolver that knows image.test."""
    import socket

    really = socket.getaddrinfo

    def getaddrinfo(host: Any, *words: Any, **more: Any) -> Any:
        return really("127.0.0.1" if host == "image.test" else host, *words, **more)

    return getaddrinfo


def fetched(url: str, *more: tuple[str, ...]) -> bytes:
    """What comes from a URL."""
    with stream.opened(Upload(pipeline=((*stream.FETCH, url), *more))) as data:
        return data.read()


def test_what_a_url_leads_to_is_fetched(site: str) -> None:
    unpacked = fetched(f"{site}/to/{site}/image.gz", ("gunzip", "-c"), stream.AT_MOST)
    assert unpacked == bytes(3 << 20)


@pytest.mark.parametrize(
    "where",
    [
        "http://localhost:9/",
        "http://[::1]:9/",
        "http://169.254.169.254/latest",
        "http://0.0.0.0:9/",
        "file:///etc/passwd",
    ],
)
def test_a_url_never_leads_to_this_machine_not_even_by_a_redirect(site: str, where: str) -> None:
    for url in (where, f"{site}/to/{where}"):
        with pytest.raises(DownloadFailed, match=r"this machine|nothing else is fetched|no answer"):
            fetched(url)


def test_what_becomes_too_much_when_it_is_unpacked_is_refused(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ("sh", "-c", stream.AT_MOST[2].replace(f"{stream.MOST_MIB}M", "1M"))
    monkeypatch.setattr(stream, "AT_MOST", small)
    with pytest.raises(DownloadFailed, match="more than"):
        fetched(f"{site}/image.gz", ("gunzip", "-c"), small)


def test_a_url_is_told_to_whoever_has_to_agree_to_it() -> None:
    kind = KINDS["image"]
    params = kind.params.model_validate({"name": "x", "source": {"url": "https://example.org/i.gz"}, "unpack": "gzip"})
    assert "https://example.org/i.gz" in kind.runs(params)
    assert "MiB" in kind.runs(params)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_key_of_every_kind_is_described_where_it_is_declared(kind: str) -> None:
    schema = KINDS[kind].params.model_json_schema()
    for model in (schema, *schema.get("$defs", {}).values()):
        assert model.get("description"), model["title"]
        assert [key for key, field in model["properties"].items() if not field.get("description")] == [], model["title"]


# --- what is refused when a session is read ------------------------------------------------------------------------


@pytest.mark.parametrize("row", TABLES["refused"], ids=lambda row: f"{row['kind']}: {row['says']}")
def test_values_that_no_cloud_would_take_are_refused_in_words(row: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=re.escape(row["says"])):
        KINDS[row["kind"]].params.model_validate(row["with"])


# --- what is graded, however it was made ---------------------------------------------------------------------------


SSH = {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
PING = {"protocol": "icmp", "port_range_min": None, "port_range_max": None}


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([SSH, PING], []),
        ([SSH | {"protocol": "6"}, PING | {"protocol": "1"}], []),  # by number
        ([SSH | {"remote_ip_prefix": None}, PING], []),
        ([SSH, PING, SSH | {"port_range_min": 80, "port_range_max": 80}], []),  # of the learner's own, beside them
        ([SSH], ["no such rule"]),
        ([SSH | {"remote_ip_prefix": "10.0.0.0/8"}, PING], ["no such rule"]),
        ([SSH | {"direction": "egress"}, PING], ["no such rule"]),
        ([SSH | {"remote_group_id": "itself"}, PING], ["no such rule"]),
        ([SSH, PING | {"protocol": None}], ["more than that: everything from 0.0.0.0/0"] * 2),
        ([SSH | {"port_range_min": 1, "port_range_max": 1023}, PING], ["more than that: tcp 1-1023 from 0.0.0.0/0"]),
        ([SSH | {"port_range_min": 1, "port_range_max": 65535}, PING], ["more than that: tcp from 0.0.0.0/0"]),
    ],
)
def test_a_group_lets_in_what_is_declared_and_no_more_in_whatever_notation(
    rules: list[dict[str, Any]], says: list[str]
) -> None:
    kind, nowhere = KINDS["security-group"], {"direction": "ingress", "ethertype": "IPv4", "remote_group_id": None}
    params = kind.params.model_validate({"name": "x", "rules": [{"protocol": "tcp", "port": 22}, {"protocol": "icmp"}]})
    thing = {"security_group_rules": [nowhere | {"remote_ip_prefix": "0.0.0.0/0"} | rule for rule in rules]}
    context: Any = None
    assert [difference.actual for difference in kind.compare(context, params, thing)] == says


# --- answers -------------------------------------------------------------------------------------------------------


def test_a_listing_is_read_to_its_last_page(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []

    def request(self: Connection, method: str, service: str, path: tuple[str, ...], **more: Any) -> Any:
        query = dict(more["query"])
        asked.append(query)
        start = int(query.get("marker", 0))
        answer: dict[str, Any] = {"images": [{"name": f"image-{number}"} for number in range(start, start + 2)]}
        return answer | ({"next": f"/v2/images?marker={start + 2}"} if start < 4 else {})

    monkeypatch.setattr(Connection, "request", request)
    listed = Connection(Path("clouds.yaml"), "a").listed("image", "images", key="images", owner="p")
    assert [row["name"] for row in listed] == [f"image-{number}" for number in range(6)]
    assert asked == [{"owner": "p"}, {"owner": "p", "marker": "2"}, {"owner": "p", "marker": "4"}]


@pytest.mark.parametrize("row", TABLES["mentions"], ids=lambda row: str(row["output"]))
def test_an_output_shows_words_and_not_parts_of_others(row: dict[str, Any]) -> None:
    assert mentions(row["output"], row["text"]) is row["there"]


def test_a_command_names_who_acts_once_and_nothing_in_its_arguments_changes() -> None:
    command = Command(("server", "create", "--property", "why=openstack rocks", "x"))
    assert command.text("lab-learner") == (
        "openstack --os-cloud lab-learner server create --property 'why=openstack rocks' x"
    )


def test_without_swift_the_table_of_words_has_no_row_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    session = load_session("session1")
    step = next(step for step in session.steps() if step.kind.name == "terms")
    context: Context = OfflineContext(session, step, PAPER, lambda name: "")
    assert len(step.kind.commands(context, step.params)) == len(step.kind.requests(context, step.params)) == 11
    monkeypatch.setattr("stacklab.kinds.terms.without_swift", lambda context: "this cloud has none")
    commands = [command.text() for command in step.kind.commands(context, step.params)]
    assert len(commands) == len(step.kind.requests(context, step.params)) == 10
    assert not any("container" in command for command in commands)


def test_a_keystone_that_does_not_answer_is_not_taken_for_a_fault_of_horizon(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cloud:
        def dashboard(self) -> str:
            return "http://192.0.2.1/dashboard"

        @property
        def admin(self) -> Any:
            raise CloudUnreachable("Keystone does not answer")

    context: Any = Cloud()
    with pytest.raises(CloudUnreachable, match="Keystone"):
        component.horizon_answers(context)


@pytest.mark.parametrize("row", TABLES["versions"], ids=lambda row: str(row["endpoint"]))
def test_a_service_is_asked_for_its_versions_above_version_and_project(row: dict[str, str]) -> None:
    assert component.version_address(row["endpoint"]) == row["asked"]


@pytest.mark.parametrize("row", TABLES["switched on"], ids=lambda row: f"{row['service']} {row['profile']}")
def test_how_a_project_is_switched_on_comes_from_the_profile(row: dict[str, Any]) -> None:
    text = how_to_switch_on(row["service"], profile=row["profile"], session="session2")
    assert [words for words in row["words"] if words not in text] == [], text


def test_a_page_of_horizon_is_read_for_its_form_and_its_cells() -> None:
    page = Page(
        '<form><input type="hidden" name="csrfmiddlewaretoken" value="t"><input name="password" type="password"></form>'
        "<table><tr><td><a>tour-net</a></td><td> Up </td></tr></table><p>not in a cell</p>"
    )
    assert page.hidden == {"csrfmiddlewaretoken": "t"}
    assert page.asks_password
    assert [cell.strip() for cell in page.cells] == ["tour-net", "Up"]


# --- TLS, by the commands that are shown -------------------------------------------------------------------------------


PUBLIC = tls_check.Address(name="horizon", host="192.0.2.7", port="443", path="/dash/", public="https://192.0.2.7")
ANSWERS = table("tls_answers")


@pytest.mark.parametrize(("look", "row"), [(look, row) for look, rows in ANSWERS.items() for row in rows])
def test_what_openssl_curl_and_the_clients_say_of_tls_is_read(look: str, row: dict[str, Any]) -> None:
    result = client.Result(row.get("status", 0), row.get("output", ""), row.get("complaint", ""))
    _, expected = tls_check.looks()[look].read(PUBLIC, result)
    assert (expected is None) == ("expected" not in row)
    assert expected is None or expected.startswith(row["expected"])


def test_an_endpoint_that_stays_plain_in_a_second_region_is_not_hidden_by_the_first() -> None:
    class Admin:
        name = "lab-admin"

        def get(self, service: str, collection: str) -> Any:
            places = {"one": "https://one:5000", "two": "http://two:5000"}
            return {
                "services": [{"id": "k", "name": "keystone", "type": "identity"}],
                "endpoints": [
                    {"id": region, "service_id": "k", "interface": "public", "region_id": region, "url": url}
                    for region, url in places.items()
                ],
            }

    class Cloud:
        admin = Admin()

        def https(self) -> Any:
            return self

        def planned(self, catalogue: Any) -> Any:
            return {}

    kind, context = KINDS["public-endpoints"], Cloud()
    params = kind.params.model_validate({})
    thing = next(iter(kind.find_all(context, params)))  # type: ignore[arg-type]
    assert [difference.field for difference in kind.compare(context, params, thing)] == ["keystone in two"]  # type: ignore[arg-type]
