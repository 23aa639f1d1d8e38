"""Files that a profile puts on the machine: their content, fetched by this host into its cache where it has an address."""

from __future__ import annotations

import re

from stacklab.cache import fetched_file
from stacklab.deploy.profile.model import PlacedFile
from stacklab.deploy.profile.settings import Settings
from stacklab.machines.base import Machine
from stacklab.stages import Progress

_URL = re.compile(r"\b(?:https?|ftp|git)://[^\s\"'<>]+")


def content(placed: PlacedFile, settings: Settings, progress: Progress) -> bytes:
    """What is to be in the file. Addresses inside a text go through the user's mirrors.

    Raises DownloadFailed (also when it is not what it should be), NotEnoughSpace.
    """
    if placed.url is None:
        return mirrored(placed.content or "", settings).encode()
    source, ca_file = settings.at(placed.url), settings.ca_file
    return fetched_file(placed.url, progress, source=source, sha256=placed.sha256, ca_file=ca_file).read_bytes()


def mirrored(text: str, settings: Settings) -> str:
    """`text` with every address in it replaced by the user's mirror of it."""
    return _URL.sub(lambda match: settings.at(match[0]), text)


def is_private(machine: Machine, path: str, text: str, owner: str) -> bool:
    """Whether a file on the machine holds exactly this, and is its owner's alone."""
    mode = machine.run("stat", "-c", "%a %U", path, user="root", check=False).out.split()
    return mode == ["600", owner] and machine.read(path) == text.encode()
