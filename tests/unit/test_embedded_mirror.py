"""Making one tree like another: what a restore rests on."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from stacklab.homes.embedded import mirror

Tree = dict[str, bytes]
TREES = st.dictionaries(st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a", "f"]), st.binary(max_size=20))


def write(root: Path, tree: Tree) -> None:
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read(root: Path) -> Tree:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@given(saved=TREES, changed=TREES)
def test_whatever_was_there_the_saved_tree_comes_back(saved: Tree, changed: Tree) -> None:
    with tempfile.TemporaryDirectory() as name:
        live, kept = Path(name) / "live", Path(name) / "kept"
        live.mkdir()
        write(live, saved)
        mirror.mirror(live, kept)
        mirror.remove(live)
        live.mkdir()
        write(live, changed)
        mirror.mirror(kept, live)
        assert read(live) == saved


def test_holes_stay_holes(tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    with (live / "volume").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(500 << 20)
        file.write(b"data in the middle")
    mirror.mirror(live, tmp_path / "kept")
    copy = tmp_path / "kept" / "volume"
    assert copy.stat().st_size == 1 << 30
    assert copy.stat().st_blocks * 512 < 1 << 20
    with copy.open("rb") as file:
        file.seek(500 << 20)
        assert file.read(18) == b"data in the middle"


def test_a_file_that_changed_comes_back_and_one_that_did_not_is_left_alone(tmp_path: Path) -> None:
    live, kept = tmp_path / "live", tmp_path / "kept"
    live.mkdir()
    write(live, {"same": b"1", "other": b"2"})
    mirror.mirror(live, kept)
    before = (live / "same").stat().st_ino
    (live / "other").write_bytes(b"3")
    mirror.mirror(kept, live)
    assert (live / "other").read_bytes() == b"2"
    assert (live / "same").stat().st_ino == before


def test_what_never_changes_is_shared_and_its_removal_does_not_reach_the_copy(tmp_path: Path) -> None:
    live, kept = tmp_path / "live", tmp_path / "kept"
    live.mkdir()
    write(live, {"image": b"x" * 1000})
    mirror.mirror(live, kept, lambda path: True)
    assert (live / "image").stat().st_ino == (kept / "image").stat().st_ino
    (live / "image").unlink()
    mirror.mirror(kept, live, lambda path: True)
    assert (live / "image").read_bytes() == b"x" * 1000


def test_sockets_are_left_out(tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    here = Path.cwd()
    os.chdir(live)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("qmp")
    finally:
        os.chdir(here)
    mirror.mirror(live, tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []
    mirror.mirror(tmp_path / "kept", live)
    assert list(live.iterdir()) == []


def test_a_directory_takes_the_place_of_a_file_and_a_file_that_of_a_directory(tmp_path: Path) -> None:
    kept, live = tmp_path / "kept", tmp_path / "live"
    write(kept, {"a/x": b"1", "b": b"2"})
    write(live, {"a": b"0", "b/x": b"0"})
    mirror.mirror(kept, live)
    assert read(live) == {"a/x": b"1", "b": b"2"}
