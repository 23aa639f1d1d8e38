"""Make one directory tree like another, copying only what differs: holes stay holes, what never changes is shared.

ext4 has no cheap copies, so a file that is written once and then only read (a Glance image, a Swift object) is
hard-linked; anything else is copied, sharing blocks where the file system can (Btrfs, XFS).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

_NO_CLONES = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM)
FICLONE = 0x40049409  # linux/fs.h: share all blocks with another file
Shareable = Callable[[Path], bool]


def nothing(path: Path) -> bool:
    """No file may be shared."""
    return False


def mirror(source: Path, target: Path, shareable: Shareable = nothing) -> None:
    """`target` becomes what `source` is, empty where there is none; sockets, and files that vanish meanwhile, are left out."""
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    there = {entry.name: entry for entry in os.scandir(target)}
    for entry in os.scandir(source) if source.is_dir() else ():
        present = there.pop(entry.name, None)
        copy = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            if present and not present.is_dir(follow_symlinks=False):
                copy.unlink()
            mirror(Path(entry.path), copy, shareable)
        else:
            if present and present.is_dir(follow_symlinks=False):
                shutil.rmtree(copy)
            _file(Path(entry.path), copy, shareable)
    for entry in there.values():
        remove(Path(entry.path))


def remove(path: Path) -> None:
    """A file or a whole tree; no error if it is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=False)
    else:
        path.unlink(missing_ok=True)


def _file(source: Path, target: Path, shareable: Shareable) -> None:
    try:
        status = source.lstat()
        if stat.S_ISLNK(status.st_mode):
            _replace(target, lambda draft: draft.symlink_to(source.readlink()))
        elif stat.S_ISREG(status.st_mode) and not _same(status, target):
            make = link_or_copy if shareable(source) else copy_sparse
            _replace(target, lambda draft: make(source, draft))
    except FileNotFoundError:
        if source.exists():
            raise


def _same(status: os.stat_result, target: Path) -> bool:
    """Not written since it was copied: a copy keeps the time of its original."""
    try:
        other = target.lstat()
    except FileNotFoundError:
        return False
    if (other.st_dev, other.st_ino) == (status.st_dev, status.st_ino):
        return True
    return stat.S_ISREG(other.st_mode) and (other.st_size, other.st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def _replace(target: Path, make: Callable[[Path], object]) -> None:
    """Under another name first: a reader sees the old file or the new one, never half of it."""
    draft = target.with_name(f".{target.name}.mirror")
    draft.unlink(missing_ok=True)
    try:
        make(draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        copy_sparse(source, target)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy the data and leave the holes; mode and times as well."""
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer, FICLONE, reader.fileno())
        except OSError as error:
            if error.errno not in _NO_CLONES:
                raise
            _copy_data(reader.fileno(), writer.fileno())
    shutil.copystat(source, target)


def _copy_data(reader: int, writer: int) -> None:
    os.ftruncate(writer, os.fstat(reader).st_size)
    for begin, end in _data(reader):
        position = begin
        while position < end:
            copied = os.copy_file_range(reader, writer, end - position, position, position)
            if not copied:
                return  # the file was cut meanwhile
            position += copied


def _data(file: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each part of a file that is no hole."""
    size, end = os.fstat(file).st_size, 0
    while end < size:
        try:
            begin = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # only a hole is left
            raise
        end = os.lseek(file, begin, os.SEEK_HOLE)
        yield begin, end


BLOCK = 1 << 16


def blocks(file: int) -> Iterator[int]:
    """Where the blocks of BLOCK bytes begin that are not holes altogether, each once."""
    after = 0
    for begin, end in _data(file):
        first = max(after, begin // BLOCK * BLOCK)
        yield from range(first, end, BLOCK)
        after = max(after, -(-end // BLOCK) * BLOCK)


def used(tree: Path) -> int:
    """Bytes on disk of the files below `tree`; holes count nothing."""
    total = 0
    for directory, _, names in os.walk(tree):
        for name in names:
            try:
                total += os.lstat(f"{directory}/{name}").st_blocks * 512
            except FileNotFoundError:
                continue
    return total
