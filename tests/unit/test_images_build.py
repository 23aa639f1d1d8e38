"""The tiny image's builder may be run by root: it must never write outside the image's own tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from stacklab.errors import StageFailed
from stacklab.images.build import _inside, recipe_key
from stacklab.images.catalogue import load_catalogue
from stacklab.images.initramfs import loading_order, make_initramfs


@pytest.mark.parametrize(
    "name", ["/lib64/ld-linux-x86-64.so.2", "lib64//etc/../../../x", "../outside", "lib64/../../x"]
)
def test_no_name_leads_out_of_the_tree(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    (root / "lib64").mkdir(parents=True)
    with pytest.raises(StageFailed, match="outside the image"):
        _inside(root, name)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/busybox").symlink_to("/bin/busybox")
    (root / "etc").symlink_to("/etc")
    for name in ("bin/busybox", "etc/passwd"):
        with pytest.raises(StageFailed, match="outside the image"):
            _inside(root, name)
    assert _inside(root, "bin/other") == root / "bin/other"


def test_modules_are_ordered_by_what_they_depend_on(tmp_path: Path) -> None:
    for name, depends in {"virtio_blk": "virtio,virtio_ring", "virtio_ring": "virtio", "virtio": ""}.items():
        (tmp_path / f"{name}.ko").write_bytes(b"elf\0depends=" + depends.encode() + b"\0name=x\0")
    order = [name for name, _ in loading_order(tmp_path, ["virtio-blk", "absent", "virtio_ring"])]
    assert order == ["virtio.ko", "virtio_ring.ko", "virtio_blk.ko"]


def test_the_same_content_makes_the_same_initramfs() -> None:
    made = [make_initramfs(b"busybox", b"#!script", [("a.ko", b"x")]) for _ in range(2)]
    assert made[0] == made[1]


def test_the_key_depends_on_the_machine() -> None:
    assert recipe_key(load_catalogue(machine="x86_64")) != recipe_key(load_catalogue(machine="aarch64"))
