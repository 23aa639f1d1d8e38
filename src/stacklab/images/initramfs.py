"""The initramfs of the tiny image: a gzipped cpio archive of busybox, drivers and one script."""

from __future__ import annotations

import gzip
import lzma
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def module_name(path: Path) -> str:
    """`virtio-rng` for virtio-rng.ko or virtio-rng.ko.xz."""
    return path.name.split(".ko")[0]


def module_content(path: Path) -> bytes:
    """The plain module: insmod of busybox does not unpack what newer distributions ship packed."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def loading_order(tree: Path, names: Iterable[str]) -> list[tuple[str, bytes]]:
    """(file name, content) of the modules `names` under `tree`, each after what it depends on.

    The package carries no modules.dep (the distribution makes it at installation), but every module names its own
    dependencies. A name that is not there is built into the kernel, or does not exist in this one.
    """
    known = {module_name(path).replace("-", "_"): path for path in tree.rglob("*.ko*")}
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        path = known.get(name.replace("-", "_"))
        if path is None or f"{module_name(path)}.ko" in ordered:
            return
        content = module_content(path)
        match = _DEPENDS.search(content)
        for needed in match.group(1).decode().split(",") if match else ():
            add(needed)
        ordered[f"{module_name(path)}.ko"] = content

    for name in names:
        add(name)
    return list(ordered.items())


def _entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    """One file in "newc" cpio; owner root and no time, so that the same content gives the same archive."""
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)


def _entries(busybox: bytes, script: bytes, modules: list[tuple[str, bytes]]) -> Iterator[tuple[str, int, bytes]]:
    for folder in ("bin", "modules", "dev"):
        yield folder, stat.S_IFDIR | 0o755, b""
    yield "init", stat.S_IFREG | 0o755, script
    yield "bin/busybox", stat.S_IFREG | 0o755, busybox
    yield "modules/order", stat.S_IFREG | 0o644, "".join(f"{name}\n" for name, _ in modules).encode()
    for name, content in modules:
        yield f"modules/{name}", stat.S_IFREG | 0o644, content


def make_initramfs(busybox: bytes, script: bytes, modules: list[tuple[str, bytes]]) -> bytes:
    """The packed archive."""
    entries = [*_entries(busybox, script, modules), ("TRAILER!!!", 0, b"")]
    archive = b"".join(_entry(number, *entry) for number, entry in enumerate(entries, 1))
    return gzip.compress(archive, mtime=0)
