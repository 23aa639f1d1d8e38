"""Files that another process may read at any moment: written whole or not at all, one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stacklab.errors import LabDamaged, NotEnoughSpace


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Replace `path` with `content`, whole or not at all. Raises NotEnoughSpace when the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise disk_error(error, path) from error
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def remove_drafts(directory: Path) -> None:
    """Remove what a writer that was killed left of `write_atomic`, in a directory that nobody else writes to now."""
    for path in directory.glob(".*"):
        if re.fullmatch(r"\..+\.[a-z0-9_]{8}", path.name) and path.is_file():  # tempfile.mkstemp's names
            path.unlink()


def disk_error(error: OSError, path: Path) -> Exception:
    """`error` as the user should see it: a full disk has a name and advice, anything else stays what it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NotEnoughSpace(f"no space left to write {path}", advice="free some space and run the same command again")
    return error


def write_json(path: Path, value: object, *, mode: int = 0o644) -> None:
    """`write_atomic` for JSON."""
    write_atomic(path, json.dumps(value, indent=2) + "\n", mode=mode)


def read_json(path: Path) -> Any:
    """The JSON in `path`, or None if there is no such file. Raises LabDamaged if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LabDamaged(f"{path} cannot be read: {error}", advice="lab destroy, then lab up, starts afresh") from error


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock file `path`; yields False at once if somebody else does and `wait` is false.

    A flock ends with its process, so a lock is never stale. The file names the holder for the error message.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield True


def is_locked(path: Path) -> bool:
    """Whether anybody holds this lock file (this very process, too)."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def lock_holder(path: Path) -> str:
    """The process id that the lock file names ("?" if it names none)."""
    try:
        return path.read_text(encoding="utf-8").strip() or "?"
    except OSError:
        return "?"
