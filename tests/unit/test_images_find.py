"""Which image is chosen, and what a broken download leaves behind: nothing."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stacklab import download as downloading
from stacklab import places
from stacklab.download import Unreachable, WrongContent, download
from stacklab.errors import DownloadFailed, MissingProgram, NotEnoughSpace, UnsupportedMachine
from stacklab.files import write_json
from stacklab.images import build, find
from stacklab.images.catalogue import ImageCatalogue, PinnedFile, load_catalogue

QCOW2 = b"QFI\xfb" + bytes(2000)
SHA = hashlib.sha256(QCOW2).hexdigest()

pytestmark = pytest.mark.usefixtures("own_directories")


class InternetDouble:
    """A loopback HTTP server in the place of the internet."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.promised: dict[str, int] = {}  # a Content-Length that is not kept
        self.asked: list[str] = []
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                double.asked.append(self.path)
                body = double.content.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(double.promised.get(self.path, len(body or b""))))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Iterator[InternetDouble]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    double = InternetDouble()
    thread = threading.Thread(target=double.server.serve_forever)
    thread.start()
    yield double
    double.server.shutdown()
    thread.join()
    double.server.server_close()


@pytest.fixture
def catalogue(internet: InternetDouble) -> ImageCatalogue:
    """The real one, with the pin pointing at the double."""
    real = load_catalogue(machine="x86_64")
    pin = PinnedFile(url=f"{internet.url}/cirros.img", sha256=SHA, size=len(QCOW2))
    return real.model_copy(update={"pinned": real.pinned.model_copy(update={"files": {"x86_64": pin}})})


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Instead of building an image: note where it should be."""
    calls: list[Path] = []

    def fake(catalogue: ImageCatalogue, target: Path, progress: Callable[[str], None]) -> None:
        calls.append(target)
        target.write_bytes(QCOW2)
        write_json(target.with_suffix(".json"), {"packages": [], "disk_format": "qcow2", "sha256": SHA})

    monkeypatch.setattr(find, "build_tiny", fake)
    return calls


def quiet(line: str) -> None:
    pass


def leftovers() -> list[str]:
    return sorted(path.name for path in (places.cache_home() / "images").glob("*") if path.name != ".lock")


def test_the_users_own_file_comes_first(tmp_path: Path, internet: InternetDouble, catalogue: ImageCatalogue) -> None:
    path = tmp_path / "debian-12-generic.qcow2"
    path.write_bytes(QCOW2)
    image = find.find_image(str(path), quiet, catalogue=catalogue)
    described = (image.path, image.disk_format, image.login_user, image.name)
    assert described == (path, "qcow2", "debian", "debian-12-generic")
    assert internet.asked == []


def test_nobody_knows_the_login_of_an_unknown_image(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    path = tmp_path / "mine.raw"
    path.write_bytes(bytes(510) + b"\x55\xaa")
    image = find.find_image(str(path), quiet, catalogue=catalogue)
    assert (image.login_user, image.disk_format) == (None, "raw")


def test_the_users_url_is_fetched_once(internet: InternetDouble, catalogue: ImageCatalogue) -> None:
    internet.content["/ubuntu.img"] = QCOW2
    first = find.find_image(f"{internet.url}/ubuntu.img", quiet, catalogue=catalogue)
    again = find.find_image(f"{internet.url}/ubuntu.img", quiet, catalogue=catalogue)
    assert first == again
    assert first.login_user == "ubuntu"
    assert internet.asked == ["/ubuntu.img"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "not a disk image"),
        (b"\xfd7zXZ\0" + bytes(99), "packed with xz"),
        (b"", "not a disk"),
    ],
)
def test_what_is_no_disk_is_refused_and_not_kept(
    internet: InternetDouble, catalogue: ImageCatalogue, content: bytes, message: str
) -> None:
    internet.content["/page"] = content
    with pytest.raises(DownloadFailed, match=message):
        find.find_image(f"{internet.url}/page", quiet, catalogue=catalogue)
    assert leftovers() == []


def test_a_users_image_that_is_not_there_is_an_error(internet: InternetDouble, catalogue: ImageCatalogue) -> None:
    with pytest.raises(DownloadFailed, match="no image"):
        find.find_image("/nowhere/image.qcow2", quiet, catalogue=catalogue)
    with pytest.raises(DownloadFailed, match="404"):
        find.find_image(f"{internet.url}/missing.img", quiet, catalogue=catalogue)
    assert leftovers() == []


def test_the_pinned_image_is_fetched_then_cached(
    internet: InternetDouble, catalogue: ImageCatalogue, built: list[Path]
) -> None:
    internet.content["/cirros.img"] = QCOW2
    image = find.find_image(None, quiet, catalogue=catalogue)
    assert image.login_user == "cirros"
    assert find.find_image(None, quiet, catalogue=catalogue).source.startswith("cached")
    assert internet.asked == ["/cirros.img"]
    assert built == []


def test_a_damaged_cached_image_is_fetched_again(
    internet: InternetDouble, catalogue: ImageCatalogue, built: list[Path]
) -> None:
    internet.content["/cirros.img"] = QCOW2
    path = find.find_image(None, quiet, catalogue=catalogue).path
    path.write_bytes(b"damaged")
    assert find.find_image(None, quiet, catalogue=catalogue).path.read_bytes() == QCOW2
    assert len(internet.asked) == 2


def test_a_wrong_checksum_is_an_error_and_never_replaced_by_something_else(
    internet: InternetDouble, catalogue: ImageCatalogue, built: list[Path]
) -> None:
    internet.content["/cirros.img"] = QCOW2 + b"tampered"
    with pytest.raises(WrongContent, match="SHA-256"):
        find.find_image(None, quiet, catalogue=catalogue)
    assert (built, leftovers()) == ([], [])


def test_without_the_internet_one_is_built_with_a_note_and_cached(
    internet: InternetDouble, catalogue: ImageCatalogue, built: list[Path]
) -> None:
    notes: list[str] = []
    image = find.find_image(None, notes.append, catalogue=catalogue)
    assert image.login_user == "lab"
    assert any("404" in note and "tiny Linux" in note for note in notes)
    assert find.find_image(None, quiet, catalogue=catalogue).source.startswith("cached")
    assert len(built) == 1
    assert internet.asked == ["/cirros.img"]


def test_a_download_that_breaks_off_leaves_nothing(internet: InternetDouble, tmp_path: Path) -> None:
    internet.content["/x"], internet.promised["/x"] = QCOW2, 10 * len(QCOW2)
    with pytest.raises(Unreachable):
        download(f"{internet.url}/x", tmp_path / "x", quiet)
    assert list(tmp_path.glob("*x*")) == []


def test_a_full_disk_says_so_and_leaves_nothing(
    internet: InternetDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    internet.content["/x"] = QCOW2

    def full(url: str, file: object, part: Path, *more: object) -> None:
        part.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloading, "_receive", full)
    with pytest.raises(NotEnoughSpace, match="no space left"):
        download(f"{internet.url}/x", tmp_path / "x", quiet)
    assert list(tmp_path.glob("*x*")) == []


def test_where_nothing_can_be_built_the_advice_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalogue: ImageCatalogue
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgram) as missing:
        find.find_image(None, quiet, catalogue=catalogue)
    assert "--image PATH|URL" in missing.value.advice
    monkeypatch.setattr(build, "distribution", lambda: ("fedora", "43"))
    with pytest.raises(MissingProgram, match="fedora") as missing:
        find.find_image(None, quiet, catalogue=catalogue)
    assert "--image PATH|URL" in missing.value.advice
    with pytest.raises(UnsupportedMachine, match="aarch64") as unsupported:
        find.find_image(None, quiet, catalogue=catalogue.model_copy(update={"machine": "aarch64"}))
    assert "--image PATH|URL" in unsupported.value.advice
    assert leftovers() == []
