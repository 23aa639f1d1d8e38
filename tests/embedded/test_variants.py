"""Kinds said in ways that the course's own sessions do not use, each done in all three ways on a real cloud."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stacklab.course.load import read_session
from stacklab.course.session import Session
from stacklab.errors import DownloadFailed
from stacklab.kinds import stream
from stacklab.lab import Lab
from stacklab.replay.apply import apply_step
from stacklab.replay.bringup import reset
from stacklab.replay.check import check
from stacklab.replay.current import home_of, journal_of, workspace_at
from stacklab.replay.undo import undo
from tests.embedded.inventory import inventory

LABS = Path(__file__).parent / "labs"
CONTENT = b"not a disk that boots, but bytes that can be compared\n" * 40_000
LAB = str(Path(sys.executable).parent / "lab")


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a directory without a word."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
        """Say nothing."""


@pytest.fixture(scope="module")
def internet_double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Stands for the internet: a directory with a file and its packed twin, and the URL on loopback that serves it."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "disk.raw").write_bytes(CONTENT)
    (folder / "disk.raw.gz").write_bytes(gzip.compress(CONTENT))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:  # it is this machine's, and shall be taken for somebody else's
        patch.setattr(stream, "of_this_machine", lambda address: False)
        yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def session_with(folder: Path, url: str) -> Session:
    """The variants, pointed at the files."""
    variables = {
        "file": str(folder / "disk.raw"),
        "packed-file": str(folder / "disk.raw.gz"),
        "url": f"{url}/disk.raw",
        "packed-url": f"{url}/disk.raw.gz",
    }
    return read_session(LABS / "variants" / "session.yaml", variables)


@pytest.mark.parametrize("via", ["rest", "cli"])
def test_every_variant_can_be_done_checked_and_undone(
    running: Lab, internet_double: tuple[Path, str], via: str
) -> None:
    reset(running, lambda detail: None)
    session = session_with(*internet_double)
    desk, journal = workspace_at(home_of(running), running, session, lambda text: None), journal_of(running)
    before = inventory(desk.admin)
    for step in session.steps():
        apply_step(desk, journal, step, via)
    assert {grade.id: grade.actual for grade in check(desk, session.steps()).grades if grade.status != "passed"} == {}
    images = {image["name"]: image for image in desk.admin.get("image", "images")["images"]}
    digest = hashlib.sha512(CONTENT).hexdigest()
    for name in ("v-file", "v-packed", "v-url", "v-packed-url"):
        assert (images[name]["size"], images[name]["os_hash_value"]) == (len(CONTENT), digest), name
    assert (images["v-packed"]["os_type"], images["v-packed"]["hypervisor_type"]) == ("linux", "qemu")
    undo(desk, journal, session.steps(), lambda step, detail: None)
    assert inventory(desk.admin) == before


@pytest.mark.parametrize("via", ["rest", "cli"])
def test_a_source_that_is_not_there_fails_and_undo_cleans_up(
    running: Lab, internet_double: tuple[Path, str], via: str
) -> None:
    reset(running, lambda detail: None)
    folder, url = internet_double
    session = session_with(folder, f"{url}/nowhere")
    desk, journal = workspace_at(home_of(running), running, session, lambda text: None), journal_of(running)
    before = inventory(desk.admin)
    with pytest.raises(DownloadFailed, match="curl"):
        apply_step(desk, journal, session.step("from-url"), via)
    undo(desk, journal, session.steps(), lambda step, detail: None)
    assert inventory(desk.admin) == before


def test_without_qemu_everything_but_the_inside_of_an_instance_is_done(directories: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in ("/usr/sbin", "/usr/bin"):
        for program in Path(folder).iterdir():
            link = programs / program.name
            if not program.name.startswith("qemu-") and not link.is_symlink():
                link.symlink_to(program)
    assert shutil.which("qemu-system-x86_64", path=str(programs)) is None
    environment = os.environ | {"PATH": str(programs), "NO_COLOR": "1"}

    def lab(*words: str) -> str:
        done = subprocess.run(
            [LAB, "--lab", "no-qemu", *words], env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-1500:]}{done.stderr}"
        return done.stdout

    try:
        assert "QEMU" in lab("up", "session4")
        lab("replay", "session4")
        report = json.loads(lab("check", "session4", "--json"))
        left = {step["id"]: step["status"] for step in report["steps"] if step["status"] != "passed"}
        assert left == dict.fromkeys(("console", "login", "repair-clock"), "not_applicable")
    finally:
        lab("destroy", "--yes")
