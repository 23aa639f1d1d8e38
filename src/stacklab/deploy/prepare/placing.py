"""Files that a profile puts on the machine: their content, fetched by this host where it has an address."""

from __future__ import annotations

import re
from pathlib import Path

from stacklab.deploy.profile.model import PlacedFile
from stacklab.deploy.profile.settings import Settings
from stacklab.prefetch.files import fetched_file, file_path
from stacklab.stages import Progress

_URL = re.compile(r"\b(?:https?|ftp|git)://[^\s\"'<>]+")


def cached(placed: PlacedFile) -> Path:
    """Where the host keeps what it fetched for `placed` (which must have a `url`); `lab prefetch` puts it there, too."""
    return file_path(str(placed.url))


def content(placed: PlacedFile, settings: Settings, progress: Progress) -> bytes:
    """What is to be in the file. Addresses inside a text go through the user's mirrors.

    Raises DownloadFailed (also when it is not what it should be), NotEnoughSpace.
    """
    if placed.url is None:
        return mirrored(placed.content or "", settings).encode()
    return fetched_file(placed.url, settings, progress, sha256=placed.sha256).read_bytes()


def mirrored(text: str, settings: Settings) -> str:
    """`text` with every address in it replaced by the user's mirror of it."""
    return _URL.sub(lambda match: settings.at(match[0]), text)
