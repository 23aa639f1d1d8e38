"""What labs share is removed when none needs it: not before, and not while somebody uses it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stacklab.cli.main import run
from stacklab.files import locked, write_json
from stacklab.homes.embedded import software, template
from stacklab.lab import Lab
from stacklab.removal import freed_by_removing
from stacklab.removal import purge as purge_directories
from stacklab.replay.bringup import purge, who_else

pytestmark = pytest.mark.usefixtures("own_directories")


@pytest.fixture
def root(own_directories: Path) -> Path:
    """The directory of the environments, with four of them."""
    for name in ("old", "older", "new", ".new.building"):
        (software.environments() / name / "bin").mkdir(parents=True)
    return software.environments()


def cloud(name: str, **made: str) -> Lab:
    """A lab whose cloud was made from what `made` says."""
    lab = Lab(name)
    lab.update(session="session4", home="embedded")
    write_json(lab.home_directory / "made.json", made)
    return lab


def left(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir()}


@pytest.fixture
def process(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Something that runs from the environment `older`."""
    program = root / "older" / "bin" / "python"
    shutil.copy(shutil.which("sleep") or "", program)
    running = subprocess.Popen([program, "60"])
    # Popen is back as soon as the kernel begins with the new program; on a busy machine its name comes a moment later.
    deadline = time.monotonic() + 10
    while not Path(f"/proc/{running.pid}/cmdline").read_bytes() and time.monotonic() < deadline:
        time.sleep(0.01)
    yield running
    running.kill()
    running.wait()


def test_environments_that_no_cloud_needs_go(root: Path) -> None:
    cloud("one", environment="old")
    assert software.prune_environments(root, keep="new") == [root / "older"]
    assert left(root) == {"old", "new", ".new.building"}


def test_an_environment_that_something_runs_from_stays(root: Path, process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None
    assert software.prune_environments(root, keep="new") == [root / "old"]


def test_an_environment_that_somebody_is_making_stays(root: Path) -> None:
    with locked(root / "old.lock", wait=False):
        assert software.prune_environments(root, keep="new") == [root / "older"]


def test_nothing_goes_while_a_cloud_does_not_say_what_it_needs(root: Path) -> None:
    cloud("one", environment="old")
    cloud("made-by-an-older-lab", requirements="whatever")
    assert software.prune_environments(root, keep="new") == []


def test_clouds_of_other_state_directories_count(
    root: Path, monkeypatch: pytest.MonkeyPatch, own_directories: Path
) -> None:
    far = cloud("far", environment="old")
    software.register(root, far.home_directory)
    monkeypatch.setenv("XDG_STATE_HOME", str(own_directories / "another"))
    assert software.prune_environments(root, keep="new") == [root / "older"]
    assert who_else(Lab("mine")) == [str(far.directory)]
    shutil.rmtree(far.directory)
    assert software.prune_environments(root, keep="new") == [root / "old"]
    assert who_else(Lab("mine")) == []


def test_a_cloud_that_is_gone_leaves_the_roster(root: Path) -> None:
    first, two = cloud("one", environment="old"), cloud("two", environment="old")
    software.register(root, first.home_directory)
    shutil.rmtree(first.directory)
    software.register(root, two.home_directory)
    assert str(first.home_directory) not in (root / software.ROSTER).read_text()


def test_templates_are_copied_from_so_only_the_newest_is_kept(root: Path) -> None:
    for name in ("old", "new", "in-use"):
        (template.templates() / name).mkdir(parents=True)
    with locked(template.templates() / "in-use.lock", wait=False):
        software.prune_templates(template.templates(), keep="new")
    assert left(template.templates()) == {"new", "in-use"}


def test_a_new_environment_removes_what_it_replaces(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_build", lambda draft, progress: (draft / "bin").mkdir(parents=True))
    monkeypatch.setattr(software, "check_space", lambda directory: None)
    told: list[str] = []
    software.install(told.append)
    assert left(root) == {software.key(), ".new.building"}
    assert any(str(root / "older") in line and "no lab needs" in line for line in told)


def test_purge_removes_all_that_labs_share_and_says_how_much(root: Path, own_directories: Path) -> None:
    (root / "old" / "big").write_bytes(os.urandom(3_000_000))
    software.uv_cache().mkdir(parents=True)
    os.link(root / "old" / "big", software.uv_cache() / "big")  # as uv installs
    removed = list(purge(Lab("mine")))
    downloads = f"{software.uv_cache()} (packages that were downloaded for it; 3 MB)"
    assert removed == [f"{root} (the installed OpenStack; 0 MB)", downloads]
    assert not (own_directories / "data" / "stacklab").exists()


def test_purge_leaves_what_is_in_use(root: Path, process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None
    assert list(purge(Lab("mine"))) == []
    assert left(root) == {"old", "older", "new", ".new.building"}


def test_purge_waits_for_the_last_lab(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Lab("mine").update(session="session4")
    cloud("other", environment="old")
    assert run(["--lab", "mine", "destroy", "--yes", "--purge"]) == 0
    assert "needed by other" in capsys.readouterr().out
    assert root.exists()
    assert run(["--lab", "other", "destroy", "--yes", "--purge"]) == 0
    assert f"removed {root}" in capsys.readouterr().out
    assert not root.exists()
    assert run(["--lab", "other", "destroy", "--yes", "--purge"]) == 0  # nothing is left to do, and that is fine


def test_space_that_something_else_still_holds_is_not_counted_as_freed(tmp_path: Path) -> None:
    for name in ("tree/sub", "cache"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "tree/own").write_bytes(os.urandom(100_000))
    os.link(tmp_path / "tree/own", tmp_path / "tree/sub/own-too")
    (tmp_path / "cache/linked").write_bytes(os.urandom(5_000_000))
    os.link(tmp_path / "cache/linked", tmp_path / "tree/linked")
    assert 100_000 <= freed_by_removing(tmp_path / "tree") < 200_000


def test_a_mistyped_name_leaves_no_directory(own_directories: Path) -> None:
    for verb in (["down"], ["reset"], ["restart", "nova"], ["replay"]):
        assert run(["--lab", "intor", *verb]) == 50
    assert not Lab("intor").directory.exists()


def test_a_directory_whose_lock_nobody_holds_is_purged(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / ".lock").touch()
    assert [line.split(" ")[0] for line in purge_directories({images: "images"})] == [str(images)]
    assert not images.exists()
