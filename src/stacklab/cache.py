"""Where fetched things are kept, each beside a record of what it is: a damaged one is noticed before it is used.

git/HOST/PATH.git           bare repositories          (mirrors)
simple/NAME/FILE            Python packages            (wheels)
files/KEY/NAME              placed files and boxes     (files)
packages/SCHEME/HOST/PATH   distribution's packages    (packages)
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import requests

from stacklab import places
from stacklab.download import Received, Tee, download, sha256_of, without_password
from stacklab.errors import LabDamaged, LabError
from stacklab.files import disk_error, read_json
from stacklab.stages import Progress

SUFFIX = ".lab"
"""Ends the name of a record, which begins with a dot: no index and no repository has such names."""


def root() -> Path:
    """The whole cache: nothing else lies there, so it can be removed as one."""
    return places.cache_home() / "prefetch"


@dataclass(frozen=True)
class Outcome:
    """What came of one thing that was to be fetched. `part`: git, wheels, files or box; `size` in bytes on this host."""

    part: str
    name: str
    outcome: Literal["fetched", "updated", "already", "skipped", "failed"]
    size: int = 0
    detail: str = ""
    error: LabError | None = None

    def told(self) -> dict[str, Any]:
        """For --json."""
        said = {name: value for name, value in asdict(self).items() if name != "error"}
        return said | ({"error": self.error.id, "advice": self.error.advice} if self.error else {})


@dataclass(frozen=True)
class Record:
    """What a kept file is. `url` (without a password) is where it came from; `needs_python`: what an index said of it."""

    url: str
    sha256: str
    size: int
    etag: str = ""
    modified: str = ""
    needs_python: str = ""


def record_path(path: Path) -> Path:
    return path.with_name(f".{path.name}{SUFFIX}")


def is_ours(name: str) -> bool:
    """Whether a file name is that of a record or of a half-fetched file: nothing to serve."""
    return name.startswith(".") and name.endswith((SUFFIX, ".part", ".part.from"))


def record_of(path: Path) -> Record | None:
    """What the record of a kept file says; None if there is no such file, or nothing is known of it."""
    if not path.is_file():
        return None
    try:
        told = read_json(record_path(path))
        return Record(**told) if told else None
    except (LabDamaged, TypeError):
        return None  # a record that cannot be read is none: the file is fetched again


_verified: dict[Path, tuple[int, int, int]] = {}


def intact(path: Path) -> Record | None:
    """The record of a kept file that is what it was when it came, else None; reads the file once a process and change."""
    record = record_of(path)
    if record is None:
        return None
    status = path.stat()
    seen = (status.st_ino, status.st_size, status.st_mtime_ns)
    if _verified.get(path) != seen:
        if status.st_size != record.size or sha256_of(path) != record.sha256:
            return None
        _verified[path] = seen
    return record


def keep(
    url: str,
    path: Path,
    progress: Progress,
    *,
    sha256: str | None = None,
    resume: bool = False,
    needs_python: str = "",
    session: requests.Session | None = None,
    known: Received | None = None,
    tee: Tee | None = None,
    since: float | None = None,
) -> Record | None:
    """Fetch `url` into the cache as `path`, and record what it is; None if `known` is what is there still.

    Raises what `stacklab.download.download` raises.
    """
    received = download(
        url, path, progress, sha256=sha256, resume=resume, session=session, known=known, tee=tee, since=since
    )
    if received is None:
        return None
    # As it was when it came, not as it is now: the record must never vouch for what happened to the file since.
    digest, size = received.sha256, received.size
    if not digest:
        digest, size = sha256_of(path), path.stat().st_size
    record = Record(without_password(url), digest, size, received.etag, received.modified, needs_python)
    write_quickly(record_path(path), json.dumps(asdict(record)))
    return record


def write_quickly(path: Path, text: str) -> None:
    """Whole or not at all, but not safe from a power cut as `stacklab.files.write_atomic` is: there are hundreds of these, and
    a record that is lost costs one file fetched again."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=SUFFIX)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise disk_error(error, path) from error


def forget(path: Path) -> None:
    """Remove a kept file (a damaged one)."""
    record_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def kept(below: Path) -> Iterator[tuple[Path, Record]]:
    """Every kept file below a directory, with its record; whether it is intact is not looked at."""
    for folder, directories, names in os.walk(below):
        directories.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if not is_ours(name) and (record := record_of(path)):
                yield path, record


def size_of(below: Path) -> int:
    """Bytes of all files below a directory."""
    return sum((Path(folder) / name).lstat().st_size for folder, _, names in os.walk(below) for name in names)
