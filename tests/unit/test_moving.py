"""Which checkpoint a `lab goto` may begin at, and what is kept with a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stacklab.course.load import read_session
from stacklab.course.session import Session
from stacklab.files import remove_precious
from stacklab.homes.embedded.home import EmbeddedHome
from stacklab.lab import Lab
from stacklab.records import Records
from stacklab.replay.assets import Assets
from stacklab.replay.journal import Journal
from stacklab.replay.moving import checkpoint_name
from stacklab.replay.progress import ProgressFile
from tests.unit.sessions import written

TEXT = """\
session: demo
title: A demonstration
summary: Three steps.
exercises:
  - id: first
    title: First
    say: Why.
    steps:
      - {id: network, kind: network, as: admin, say: A., hint: B., with: {name: x}}
      - {id: subnet, kind: subnet, as: admin, say: A., hint: B., with: {name: y, network: {step: network}, cidr: 10.0.0.0/24}}
      - {id: last, kind: network, as: admin, say: A., hint: B., with: {name: z}}
"""


def session(tmp_path: Path, text: str = TEXT) -> Session:
    """The session of this text."""
    return read_session(written(tmp_path, text))


@pytest.fixture
def lab(own_directories: Path) -> Lab:
    """With a key pair and an image, which steps use."""
    lab = Lab("intro")
    image = own_directories / "image"
    image.write_bytes(b"image")
    lab.update(session="demo", home="embedded", image={"path": str(image), "disk_format": "raw"})
    Assets(lab).public_key.parent.mkdir(parents=True)
    Assets(lab).public_key.write_text("key")
    return lab


def name(lab: Lab, which: Session, count: int, start: str = "start") -> str:
    """Of the checkpoint that holds the first `count` steps."""
    steps = list(which.steps())
    return checkpoint_name(lab, which, start, steps[:count], steps[count])


def test_a_checkpoint_is_named_for_session_and_step_and_any_home_takes_the_name(tmp_path: Path, lab: Lab) -> None:
    checkpoint = name(lab, session(tmp_path), 1)
    assert checkpoint.startswith("at.demo.subnet.")
    EmbeddedHome(lab).checkpoints.drop(checkpoint, lambda detail: None)  # raises for a name that it would not take
    steps = list(session(tmp_path).steps())
    longest = replace(steps[1], id="s" * 60)
    long = checkpoint_name(lab, replace(session(tmp_path), name="n" * 60), "start", steps[:1], longest)
    EmbeddedHome(lab).checkpoints.drop(long, lambda detail: None)


def test_the_same_steps_have_the_same_name_whatever_comes_later_or_is_told(tmp_path: Path, lab: Lab) -> None:
    before = name(lab, session(tmp_path), 2)
    assert name(lab, session(tmp_path), 2) == before
    assert name(lab, session(tmp_path, TEXT.replace("name: z", "name: other")), 2) == before
    assert name(lab, session(tmp_path, TEXT.replace("hint: B.", "hint: Better.")), 2) == before


def test_whatever_came_before_and_is_another_one_makes_another_name(tmp_path: Path, lab: Lab) -> None:
    names = [name(lab, session(tmp_path), 2), name(lab, session(tmp_path), 2, "stacked")]
    texts = (TEXT.replace("name: x", "name: other"), TEXT.replace("as: admin", "as: learner", 1))
    names += [name(lab, session(tmp_path, text), 2) for text in texts]
    changes: list[Callable[[], object]] = [
        lambda: Path(lab.record.image.path if lab.record.image else "").write_bytes(b"another image"),
        lambda: Assets(lab).public_key.write_text("another key"),
        lambda: lab.update(start_of="another"),
    ]
    for change in changes:
        change()
        names.append(name(lab, session(tmp_path), 2))
    assert len(set(names)) == 7


def test_journal_and_progress_go_back_with_a_checkpoint(lab: Lab) -> None:
    journal, progress, records = Journal(lab.journal_file), ProgressFile(lab), Records(lab)
    journal.write("demo", "network", "network", "made", {"id": "1"})
    progress.note("demo", [("network", "passed")])
    saved = lab.journal_file.read_bytes(), (lab.directory / "progress.json").read_bytes()
    records.keep("mine")
    journal.write("demo", "network", "network", "undone")
    progress.forget()
    records.put_back("mine")
    assert (lab.journal_file.read_bytes(), (lab.directory / "progress.json").read_bytes()) == saved
    records.put_back("start")
    assert journal.sessions() == []
    assert not lab.journal_file.exists()
    assert not (lab.directory / "progress.json").exists()


def test_records_that_were_cut_off_count_for_nothing(lab: Lab) -> None:
    records = Records(lab)
    Journal(lab.journal_file).write("demo", "network", "network", "made", {"id": "1"})
    records.keep("mine")
    remove_precious(lab.directory / "saved" / "mine" / "about.json")
    assert records.names() == []
    records.put_back("mine")
    assert not lab.journal_file.exists()
    records.keep("mine")
    assert records.names() == ["mine"]
    records.drop("mine")
    assert records.names() == []
