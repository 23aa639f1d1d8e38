"""Files of a lab that were damaged: what is precious comes back from its copy and says so; the rest is no reason to stop."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from stacklab import files
from stacklab.errors import LabBusy, LabDamaged
from stacklab.files import copy_of, locked, read_derivable, read_precious, write_precious
from stacklab.homes.base import Home
from stacklab.lab import Lab
from stacklab.records import Records
from stacklab.replay.breaking import Broken, broken_faults, record
from stacklab.replay.journal import Journal
from stacklab.replay.moving import go_back
from stacklab.replay.progress import ProgressFile

DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbage": lambda path: path.write_bytes(os.urandom(32) + b"\xff\n" * 20),
    "gone": lambda path: path.unlink(),
}


@pytest.fixture
def lab(own_directories: Path) -> Lab:
    """A lab that has written everything that it ever writes beside its cloud, some of it more than once."""
    lab = Lab("intro")
    lab.update(home="embedded", session="session4")
    lab.secret("admin")
    lab.secret("learner")
    lab.record_stage("ready", "done", 3.0)
    progress, journal = ProgressFile(lab), Journal(lab.journal_file)
    for step in ("network", "subnet"):
        journal.write("session4", step, step, "begin")
        journal.write("session4", step, step, "made", {"id": step})
        progress.note("session4", [(step, "passed")])
    record(lab, Broken("session4", "api-down", "api-down", "broken"))
    Records(lab).keep("at.session4.subnet")
    return lab


def known(lab: Lab) -> list[object]:
    """All that the files say."""
    journal = Journal(lab.journal_file)
    return [
        lab.record,
        sorted(lab.secrets()),
        journal.entries("session4"),
        broken_faults(lab),
        read_precious(lab.directory / "progress.json"),
        Records(lab).names(),
    ]


def precious(lab: Lab) -> list[Path]:
    """Every file of the lab but its locks."""
    return [path for path in sorted(lab.directory.rglob("*")) if path.is_file() and "lock" not in path.name]


@pytest.mark.parametrize("how", DAMAGES)
def test_any_one_file_may_be_damaged_and_nothing_is_lost(lab: Lab, how: str, caplog: pytest.LogCaptureFixture) -> None:
    before = known(lab)
    kept = lab.directory.with_name("kept")
    shutil.copytree(lab.directory, kept)
    for path in precious(lab):
        files._warned.clear()
        caplog.clear()
        DAMAGES[how](path)
        saved = path.is_relative_to(lab.directory / "saved") and path.name not in ("about.json", "about.json.copy")
        expected = [*before[:-1], []] if saved else before
        assert known(lab) == expected, path
        first = path.name in ("lab.json", "secrets.json", "progress.json", "broken.json", "journal.jsonl")
        if first and not saved:
            assert f"{path} is" in caplog.text
        with lab.writing():
            Journal(lab.journal_file).write("other", "step", "network", "begin")
        assert known(lab) == expected, path
        assert not first or saved or path.read_bytes() == copy_of(path).read_bytes(), "the writer repairs it"
        shutil.rmtree(lab.directory)
        shutil.copytree(kept, lab.directory)


@pytest.mark.parametrize("how", ["empty", "half", "garbage"])
def test_what_is_broken_twice_is_named_and_the_advice_says_what_is_lost(lab: Lab, how: str) -> None:
    for name in ("lab.json", "journal.jsonl", "secrets.json"):
        for path in (lab.directory / name, copy_of(lab.directory / name)):
            DAMAGES["garbage" if name == "journal.jsonl" else how](path)
    with pytest.raises(LabDamaged, match=r"lab\.json") as caught:
        _ = lab.record
    assert "copy what you need" in caught.value.advice
    with pytest.raises(LabDamaged, match=r"secrets\.json"):
        lab.secret("admin")
    with pytest.raises(LabDamaged, match=r"journal\.jsonl:1") as caught:
        Journal(lab.journal_file).entries("session4")
    assert "lost" in caught.value.advice


def test_files_of_the_lab_before_are_read_and_become_todays(own_directories: Path) -> None:
    lab = Lab("intro")
    lab.directory.mkdir(parents=True)
    stages = {"ready": {"outcome": "done", "seconds": 2.0, "usual": 2.0, "at": 1}}
    (lab.directory / "lab.json").write_text(json.dumps({"home": "embedded", "stages": stages, "of-old": 1}))
    (lab.directory / "secrets.json").write_text('{"admin": "Geheim"}')
    assert (lab.record.home, lab.usual_seconds("ready"), lab.secret("admin")) == ("embedded", 2.0, "Geheim")
    lab.secret("learner")
    assert lab.secret("admin") == "Geheim"
    assert json.loads(copy_of(lab.directory / "secrets.json").read_text())["format"] == 2


def test_a_file_that_a_newer_lab_wrote_is_not_called_broken(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"format": 99, "content": {}}')
    with pytest.raises(LabDamaged, match="newer lab"):
        read_precious(tmp_path / "x.json")


def test_a_write_that_was_cut_off_leaves_the_generation_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_precious(path, {"at": 1})
    monkeypatch.setattr(files, "write_json", lambda file, whole, mode: file.write_bytes(b'{"format": 2, "cont'))
    with monkeypatch.context() as patch:
        patch.setattr(files, "copy_of", lambda path: path.with_name("cut off before the copy"))
        write_precious(path, {"at": 2})
    assert read_precious(path) == {"at": 1}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", None])
def test_what_can_be_made_again_is_no_reason_to_stop(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    assert read_derivable(tmp_path / "x") == {}


# --- one writer ------------------------------------------------------------------------------------------------------


def test_a_secret_is_made_by_the_one_writer_and_a_reader_writes_nothing(lab: Lab) -> None:
    with (lab.directory / "lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        before = known(lab), sorted(path.name for path in lab.directory.iterdir())
        assert lab.secret("admin")
        with pytest.raises(LabBusy):
            lab.secret("another")
        with pytest.raises(LabBusy):
            lab.update(session="other")
        assert (known(lab), sorted(path.name for path in lab.directory.iterdir())) == before


def test_who_waited_for_a_lock_that_was_removed_meanwhile_locks_the_one_that_is_there(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    path, entered = directory / "lock", threading.Event()

    def wait_for_it() -> None:
        with locked(path, wait=True):
            entered.set()
            with locked(path, wait=False) as twice:
                assert not twice

    with locked(path, wait=True):
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        shutil.rmtree(directory)  # as `lab destroy --purge` does it
    waiting.join(timeout=60)
    assert entered.is_set()
    assert path.exists()


def test_secrets_beyond_repair_are_told_with_what_is_left_before_anything_is_stopped(lab: Lab) -> None:
    for file in (lab.directory / "secrets.json", copy_of(lab.directory / "secrets.json")):
        file.write_text("")

    class Saved:
        saves = True

        def verify(self, name: str) -> None:
            """It is whole."""

    home = SimpleNamespace(checkpoints=Saved())  # nothing of a home is reached but its checkpoint
    with pytest.raises(LabDamaged, match="and so is its copy") as raised:
        go_back(lab, cast(Home, home), "start", lambda detail: None)
    assert "lab destroy" in (raised.value.advice or "")
    assert lab.record.restoring is None
