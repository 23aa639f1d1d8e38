"""Files that another process may read at any moment: written whole or not at all, one writer at a time.

A file of a lab is of one of three sorts. What is *derivable* can be made again (`read_derivable`: a broken one is as good as
none). What is *precious* cannot: `write_precious` writes it twice, with a version and a checksum, and `read_precious` falls
back to the second copy, which is as old at most as the write that was cut off, and says so. *Checkpoints* have checksums of
their own, which are verified before anything is touched.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stacklab.errors import LabDamaged, NotEnoughSpace


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Replace `path` with `content`, whole or not at all, on disk when this returns. Raises NotEnoughSpace."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
        sync_directory(path.parent)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise disk_error(error, path) from error
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync_directory(path: Path) -> None:
    """What was renamed into this directory keeps its name after a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LabDamaged(f"{path} cannot be read: {error}", advice="put back a copy of it, or move it away") from error


def read_derivable(path: Path) -> dict[str, Any]:
    """The JSON object in a file that can be made again; empty where it is missing or broken."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


# --- what cannot be made again -------------------------------------------------------------------------------------

FORMAT = 2
"""Of precious files. Those of format 1 are the bare content, without version, checksum or second copy: they are read, too."""
_warned: set[Path] = set()


def copy_of(path: Path) -> Path:
    """Where the second copy of a precious file lies."""
    return path.with_name(f"{path.name}.copy")


def write_precious(path: Path, value: object) -> None:
    """Write JSON (0600) with its checksum, twice: one of the two is whole at any moment. Raises NotEnoughSpace."""
    whole = {"format": FORMAT, "sha256": _checksum(value), "content": value}
    for file in (path, copy_of(path)):
        write_json(file, whole, mode=0o600)


def read_precious(path: Path) -> Any:
    """What was written last, or None if nothing was. Raises LabDamaged if both copies are broken."""
    trouble: ValueError | None = None
    for file in (path, copy_of(path)):
        try:
            value = _content(file)
        except FileNotFoundError:
            continue
        except ValueError as error:
            trouble = trouble or error
            continue
        if file != path:
            warn_of(path, "is gone" if trouble is None else f"is broken ({trouble})")
        return value
    if trouble is None:
        return None
    raise LabDamaged(
        f"{path} is broken, and so is its copy: {trouble}",
        advice="put it back, if you keep a copy of your own; else lab destroy removes the lab and all that was made in it",
    ) from trouble


def precious_exists(path: Path) -> bool:
    """Whether it was ever written."""
    return path.exists() or copy_of(path).exists()


def remove_precious(path: Path) -> None:
    """Both copies, the second first: while the first is there nothing is lost."""
    copy_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def repair_precious(path: Path) -> None:
    """Where one of the copies is broken or gone, write both anew. For the one writer; what is beyond repair is left alone."""
    contents = []
    for file in (path, copy_of(path)):
        try:
            contents.append(_content(file))
        except (FileNotFoundError, ValueError):
            continue
    if len(contents) == 1 and precious_exists(path):
        read_precious(path)  # says so
        write_precious(path, contents[0])


def warn_of(path: Path, what: str) -> None:
    """Say once that a precious file was damaged, and that its copy stands in for it."""
    if path not in _warned:
        _warned.add(path)
        logging.getLogger("stacklab").warning("note: %s %s; its copy is used instead, nothing is lost", path, what)


def _content(file: Path) -> Any:
    whole = json.loads(file.read_bytes())
    if not (isinstance(whole, dict) and {"format", "content"} <= whole.keys()):
        return whole  # format 1
    if whole["format"] > FORMAT:
        raise LabDamaged(f"{file} was written by a newer lab", advice="update lab; nothing is broken")
    if whole.get("sha256") != _checksum(whole["content"]):
        raise ValueError("its content does not match its checksum")
    return whole["content"]


def _checksum(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# --- locks ---------------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock file `path`; yields False at once if somebody else does and `wait` is false.

    A flock ends with its process, so a lock is never stale. The file names the holder for the error message.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+", encoding="utf-8")
        except FileNotFoundError:
            continue  # the directory was removed meanwhile
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            if not _still_there(file.fileno(), path):
                continue  # whoever held it has removed it: what is locked is no longer what others see
            file.seek(0)
            file.truncate()
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield True
            return


def _still_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


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
