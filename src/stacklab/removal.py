"""Removing what labs share: not while somebody uses it, and saying what went and how much space that freed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from stacklab.files import locked


def purge(directories: dict[Path, str]) -> Iterator[str]:
    """Remove these directories whole, yielding a line on each that went; one that is in use stays, and no line tells of it."""
    for directory, what in directories.items():
        if not directory.is_dir():
            continue
        with ExitStack() as locks:
            # what somebody makes or waits for at this moment is locked
            files = list(
                directory.glob("*.lock")
            )  # `.lock` too; the same one twice would count as held by somebody else
            free = [locks.enter_context(locked(file, wait=False)) for file in files]
            if not all(free) or any(runs_from(path) for path in directory.iterdir() if path.is_dir()):
                continue
            size = freed_by_removing(directory)
            shutil.rmtree(directory)
        yield f"{directory} ({what}; {size / 1e6:.0f} MB)"


def runs_from(directory: Path) -> bool:
    """Whether a process was started with a program below `directory`."""
    below = os.fsencode(f"{directory}{os.sep}")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "cmdline").read_bytes().startswith(below):
                return True
        except OSError:
            continue  # it ended while we looked
    return False


def freed_by_removing(tree: Path) -> int:
    """Bytes on disk that go with the tree. What is linked to from elsewhere (uv's cache) does not go with it."""
    seen: dict[tuple[int, int], list[int]] = {}
    for folder, _, names in os.walk(tree):
        for name in names:
            status = (Path(folder) / name).lstat()
            seen.setdefault((status.st_dev, status.st_ino), [status.st_nlink, status.st_blocks * 512, 0])[2] += 1
    return sum(size for links, size, here in seen.values() if here == links)
