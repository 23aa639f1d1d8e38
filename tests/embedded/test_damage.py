"""Every file below a lab's directory is damaged, in four ways: the lab comes back, or says which file and what is left.

Files that do not depend on each other are damaged together, each in another way; over four rounds each file meets each way.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stacklab.course.load import load_session
from stacklab.errors import CheckpointBroken, CheckpointMissing, LabDamaged
from stacklab.files import copy_of, read_precious
from stacklab.homes.base import START
from stacklab.homes.embedded.home import EmbeddedHome
from stacklab.homes.plan import Plan
from stacklab.lab import Lab
from stacklab.replay.bringup import bring_up as lab_up
from stacklab.replay.bringup import reset
from stacklab.replay.current import journal_of, open_workspace
from stacklab.replay.moving import goto
from stacklab.stages import run_stages
from tests.embedded.conftest import quiet
from tests.unit.test_state_on_disk import DAMAGES

SESSION, STEP = "session4", "quota"
PRECIOUS = {"lab.json", "secrets.json", "journal.jsonl", "progress.json", "made.json"}


def sort_of(lab: Lab, path: Path) -> str:
    """What a file is; every file that a lab ever writes is of one of these sorts."""
    place = path.relative_to(lab.directory)
    if place.name.removesuffix(".copy") in PRECIOUS and place.parts[0] != "saved":
        return "copy" if place.name.endswith(".copy") else "precious"
    within = place.parts[1] if place.parts[0] == "home" else place.parts[0]
    return {
        "db": "cloud", "nova": "cloud", "swift": "cloud", "images": "cloud", "volumes": "cloud",
        "checkpoints": "checkpoint", "saved": "checkpoint",
        "conf": "derivable", "run": "derivable", "keys": "derivable", "clouds.yaml": "derivable", "logs": "derivable",
        "lock": "derivable", "progress.lock": "derivable", "locks": "derivable", "dashboard": "derivable",
    }[within]  # fmt: skip


def files(lab: Lab, *sorts: str) -> list[Path]:
    """The lab's files of these sorts."""
    return [path for path in sorted(lab.directory.rglob("*")) if path.is_file() and sort_of(lab, path) in sorts]


def damage(paths: list[Path], turn: int) -> None:
    """Each in the way whose turn it is."""
    for number, path in enumerate(paths):
        list(DAMAGES.values())[(number + turn) % len(DAMAGES)](path)


@contextmanager
def working(title: str, usual: float | None) -> Iterator[Any]:
    """Nobody watches."""
    yield quiet


def up(lab: Lab) -> None:
    """`lab up`, which proves that the cloud is usable."""
    lab_up(lab, load_session(SESSION), Plan(), None, lambda event: None)
    assert open_workspace(lab, load_session(SESSION), quiet).admin.get("compute", "flavors")["flavors"]


def work(lab: Lab) -> None:
    """As a learner's: something in the cloud, in the journal, and a checkpoint."""
    goto(lab, load_session(SESSION), STEP, lambda shown: None, quiet, working)


def known(lab: Lab) -> list[object]:
    """What must not be lost."""
    progress = read_precious(lab.directory / "progress.json")
    return [lab.record.home, lab.record.session, sorted(lab.secrets()), journal_of(lab).entries(SESSION), progress]


@pytest.fixture(scope="module")
def lab(directories: Path) -> Iterator[Lab]:
    """A lab of its own, with a learner's work in it."""
    lab = Lab("damaged")
    lab.update(home="embedded")
    home = EmbeddedHome(lab)
    try:
        up(lab)
        work(lab)
        assert known(lab)[3]
        yield lab
    finally:
        home.stop(quiet, patience=0)
        shutil.rmtree(lab.directory)


@pytest.mark.parametrize("turn", range(len(DAMAGES)))
def test_a_lab_that_was_stopped_comes_back_whatever_was_damaged(lab: Lab, turn: int) -> None:
    work(lab)
    before, home = known(lab), EmbeddedHome(lab)
    home.down(quiet)
    damage(files(lab, "derivable", "precious"), turn)
    assert known(lab) == before, "one of two copies is enough"
    if turn:
        with lab.writing():
            journal_of(lab).repair()
            run_stages(lab, [stage for stage in home.stages() if stage.name == "cloud"], lambda event: None)
        assert home.cloud.why_ready(), "all that can be made again is made again"
    else:
        up(lab)  # the whole of it, once: it takes longest
        home.down(quiet)
    assert known(lab) == before
    damage(files(lab, "cloud", "copy"), turn)
    with pytest.raises(LabDamaged, match=r"/db/\w+\.db is damaged") as caught:
        up(lab)
    assert "lab reset" in caught.value.advice
    assert known(lab) == before
    reset(lab, quiet)
    up(lab)
    assert journal_of(lab).entries(SESSION) == {}


def test_a_lab_that_runs_comes_back_whatever_was_damaged(lab: Lab) -> None:
    damage(files(lab, "derivable", "cloud", "copy"), 1)
    reset(lab, quiet)
    up(lab)


def test_every_damage_of_a_checkpoint_is_found_before_anything_is_touched(lab: Lab, tmp_path: Path) -> None:
    home = EmbeddedHome(lab)
    for path in files(lab, "checkpoint"):
        name = path.relative_to(lab.directory).parts[2 if path.is_relative_to(lab.home_directory) else 1]
        if path.is_relative_to(lab.directory / "saved") or path.name.startswith("done.json"):
            continue  # see tests/unit/test_state_on_disk.py
        for how in DAMAGES.values() if path.stat().st_size else ():
            shutil.copy2(path, tmp_path / "whole")
            how(path)
            with pytest.raises(CheckpointBroken, match=path.name):
                home.saved.verify(name)
            shutil.copy2(tmp_path / "whole", path)
        home.saved.verify(name)


def test_a_start_that_is_damaged_is_made_anew(lab: Lab) -> None:
    home, told = EmbeddedHome(lab), list[str]()
    done = home.layout.checkpoints / START / "done.json"
    for path in (done, copy_of(done), home.layout.checkpoints / START / "db" / "glance.db"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointMissing):
        home.saved.verify(START)
    reset(lab, told.append)
    assert any("done.json" in line and "made anew" in line for line in told)
    home.saved.verify(START)
    up(lab)
    work(lab)
