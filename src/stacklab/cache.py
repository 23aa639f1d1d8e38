"""The cache of files known by their address: what is placed on a machine, and its box; one for all who ask.

$XDG_CACHE_HOME/stacklab/prefetch/files/KEY/NAME, each beside a record of what it is, so a damaged one is noticed before it is
used.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stacklab import places
from stacklab.download import download, sha256_of, without_password
from stacklab.errors import LabDamaged
from stacklab.files import locked, read_json, write_atomic
from stacklab.stages import Progress


def cache_root() -> Path:
    """All that is fetched beforehand: nothing else lies there, so it can be removed as one."""
    return places.cache_home() / "prefetch"


@dataclass(frozen=True)
class FileRecord:
    """What a file was when it came. `url` (without a password) is where it came from."""

    url: str
    sha256: str
    size: int


def cache_path(url: str) -> Path:
    """Where the file of this address is cached; its own name stays, for it may say what kind of file it is."""
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    name = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    return cache_root() / "files" / key / (name or "file")


def cached_file(url: str, sha256: str | None = None) -> Path | None:
    """The cached file of this address if it is what it was when it came (and has the checksum), else None."""
    path = cache_path(url)
    record = _record(path)
    if record is None or (sha256 is not None and record.sha256 != sha256):
        return None
    return path if _digest(path) == record.sha256 else None


def fetched_file(
    url: str, progress: Progress, *, source: str, sha256: str | None = None, ca_file: Path | None = None
) -> Path:
    """The cached file of this address, fetched from `source` (the user's mirror of it, say) if need be.

    Raises Unreachable, WrongContent, NotEnoughSpace.
    """
    path = cache_path(url)
    with locked(
        path.with_name(f".{path.name}.lock"), wait=True
    ):  # until its record is there, too, nobody else fetches it
        if cached_file(url, sha256) is None:
            # A damaged one stays until the new one takes its place.
            digest = download(source, path, progress, sha256=sha256, ca_file=ca_file)
            record = FileRecord(without_password(source), digest, path.stat().st_size)
            write_atomic(_record_path(path), json.dumps(asdict(record)))
    return path


def _record_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lab")


def _record(path: Path) -> FileRecord | None:
    if not path.is_file():
        return None
    try:
        fields = read_json(_record_path(path))
        return FileRecord(fields["url"], fields["sha256"], fields["size"]) if fields else None
    except (LabDamaged, KeyError):
        return None  # a record that cannot be read is none: the file is fetched again


_digests: dict[Path, tuple[tuple[int, int, int], str]] = {}


def _digest(path: Path) -> str:
    """Read once a process and change: a box is large."""
    status = path.stat()
    seen = (status.st_ino, status.st_size, status.st_mtime_ns)
    if path not in _digests or _digests[path][0] != seen:
        _digests[path] = (seen, sha256_of(path))
    return _digests[path][1]
