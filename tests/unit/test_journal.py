"""The journal survives being cut off anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stacklab.errors import LabDamaged
from stacklab.files import copy_of
from stacklab.replay.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty one."""
    return Journal(tmp_path / "journal.jsonl")


def test_what_began_is_known_in_that_order_until_it_is_undone(journal: Journal) -> None:
    journal.write("s", "a", "network", "begin")
    assert journal.entries("s")["a"].state == "begin"
    journal.write("s", "a", "network", "made", {"id": "1"})
    assert journal.entries("s")["a"].kept == {"id": "1"}
    journal.write("s", "b", "network", "made", {})
    journal.write("s", "a", "network", "undone")
    journal.write("s", "a", "network", "begin")
    assert list(journal.entries("s")) == ["b", "a"]


def test_sessions_do_not_see_each_other_and_the_one_worked_on_last_is_at_the_end(journal: Journal) -> None:
    journal.write("one", "a", "network", "made", {})
    journal.write("two", "b", "network", "made", {})
    journal.write("gone", "a", "network", "made", {})
    journal.write("gone", "a", "network", "undone")
    journal.write("one", "c", "network", "made", {})
    assert journal.sessions() == ["two", "one"]
    assert list(journal.entries("two")) == ["b"]


def test_cut_off_at_any_byte_it_can_be_read_and_written_on(journal: Journal, tmp_path: Path) -> None:
    journal.write("s", "a", "network", "begin")
    journal.write("s", "a", "network", "made", {"id": "1"})
    whole = journal.path.read_bytes()
    for length in range(len(whole) + 1):
        cut = Journal(tmp_path / f"cut-{length}")
        cut.path.write_bytes(whole[:length])
        before = cut.entries("s")
        assert set(before) <= {"a"}
        cut.write("s", "b", "network", "begin")
        after = cut.entries("s")
        assert "b" in after
        assert set(before) <= set(after)


@pytest.mark.parametrize(
    ("damaged", "says"),
    [
        (lambda text: "nonsense\n", r"journal.jsonl:1 is broken, and so is its copy"),
        (lambda text: "", "is empty, and so is its copy"),
        (lambda text: text.replace('"id": "1"', '"id": "2"'), "journal.jsonl:1 is broken"),
        (lambda text: '{"format": 3, "step": "a"}\n', "newer lab"),
    ],
    ids=["nonsense", "empty", "a wrong letter", "newer"],
)
def test_what_is_broken_twice_or_from_a_newer_lab_is_reported_and_not_believed(
    journal: Journal, damaged: Callable[[str], str], says: str
) -> None:
    journal.write("s", "a", "network", "made", {"id": "1"})
    text = journal.path.read_text()
    for file in (journal.path, copy_of(journal.path)):
        file.write_text(damaged(text))
    with pytest.raises(LabDamaged, match=says):
        journal.entries("s")
    journal.clear()
    assert journal.entries("s") == {}


def test_what_is_written_after_nonsense_does_not_hide_it(journal: Journal) -> None:
    journal.path.write_text("nonsense\n")
    journal.write("s", "a", "network", "begin")
    with pytest.raises(LabDamaged, match=r"journal.jsonl:1 "):
        journal.entries("s")


def test_the_version_before_is_read_and_written_on(journal: Journal) -> None:
    line = {"session": "s", "step": "a", "kind": "network", "state": "made", "at": 1.0, "kept": {"id": "1"}, "old": 1}
    journal.path.write_text(json.dumps(line) + "\n")
    journal.write("s", "b", "network", "begin")
    assert {step: entry.kept for step, entry in journal.entries("s").items()} == {"a": {"id": "1"}, "b": None}
    assert [json.loads(line).get("format", 1) for line in journal.path.read_text().splitlines()] == [1, 2]
