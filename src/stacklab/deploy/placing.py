"""Files that a profile puts on the machine: their content, fetched by this host where it has an address."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from stacklab import places
from stacklab.deploy.profile import PlacedFile
from stacklab.deploy.settings import Settings
from stacklab.download import download, sha256_of
from stacklab.stages import Progress

_URL = re.compile(r"\b(?:https?|ftp|git)://[^\s\"'<>]+")


def cached(placed: PlacedFile) -> Path:
    """Where the host keeps what it fetched for `placed` (which must have a `url`)."""
    url = str(placed.url)
    name = url.rstrip("/").rpartition("/")[2]
    return places.cache_home() / "files" / hashlib.sha256(url.encode()).hexdigest()[:12] / (name or "file")


def content(placed: PlacedFile, settings: Settings, progress: Progress) -> bytes:
    """What is to be in the file. Addresses inside a text go through the user's mirrors.

    Raises DownloadFailed (also when it is not what it should be), NotEnoughSpace.
    """
    if placed.url is None:
        return mirrored(placed.content or "", settings).encode()
    target = cached(placed)
    if target.exists() and (placed.sha256 is None or sha256_of(target) == placed.sha256):
        return target.read_bytes()
    target.unlink(missing_ok=True)
    download(settings.at(placed.url), target, progress, sha256=placed.sha256)
    return target.read_bytes()


def mirrored(text: str, settings: Settings) -> str:
    """`text` with every address in it replaced by the user's mirror of it."""
    return _URL.sub(lambda match: settings.at(match[0]), text)
