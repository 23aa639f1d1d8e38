"""Files that a profile puts on the machine: their content, fetched by this host into its cache where it has an address."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from stacklab.cache import fetched_file
from stacklab.deploy.prepare.forms import MachineFile
from stacklab.deploy.prepare.internet import without_account
from stacklab.deploy.profile.model import PlacedFile
from stacklab.deploy.profile.settings import Settings
from stacklab.deploy.stack.detached import STACK_USER
from stacklab.stages import Progress

_URL = re.compile(r"\b(?:https?|ftp|git)://[^\s\"'<>]+")


def placed_files(
    files: Iterable[PlacedFile], settings: Settings, progress: Progress, *, below: str = "/"
) -> list[MachineFile]:
    """As they are to be on the machine; those with a relative path lie `below` that directory, and are the stack user's.

    Raises DownloadFailed (also when one is not what it should be), NotEnoughSpace.
    """
    placed = []
    for file in files:
        data = content(file, settings, progress)
        # Neither apt nor yum takes an account from anywhere else on every release.
        private = file.url is None and without_account(data.decode()) != data.decode()
        path = posixpath.join(below, file.path)  # an absolute path stays what it is
        owner = "root" if path == file.path else STACK_USER
        placed.append(MachineFile(path, data, 0o600 if private else file.mode, owner, file.why))
    return placed


def content(placed: PlacedFile, settings: Settings, progress: Progress) -> bytes:
    """What is to be in the file. Addresses inside a text go through the user's mirrors."""
    if placed.url is None:
        return mirrored(placed.content or "", settings).encode()
    source, ca_file = settings.at(placed.url), settings.ca_file
    return fetched_file(placed.url, progress, source=source, sha256=placed.sha256, ca_file=ca_file).read_bytes()


def mirrored(text: str, settings: Settings) -> str:
    """`text` with every address in it replaced by the user's mirror of it."""
    return _URL.sub(lambda match: settings.at(match[0]), text)
