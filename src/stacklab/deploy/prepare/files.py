"""Files that a profile puts on the machine: their content, fetched by this host into its cache where it has an address."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stacklab import cache
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
    return fetched_file(placed.url, settings, progress, sha256=placed.sha256).read_bytes()


def mirrored(text: str, settings: Settings) -> str:
    """`text` with every address in it replaced by the user's mirror of it."""
    return _URL.sub(lambda match: settings.at(match[0]), text)


def is_private(machine: Machine, path: str, text: str, owner: str) -> bool:
    """Whether a file on the machine holds exactly this, and is its owner's alone."""
    mode = machine.run("stat", "-c", "%a %U", path, user="root", check=False).out.split()
    return mode == ["600", owner] and machine.read(path) == text.encode()


def file_path(url: str) -> Path:
    """Where the file of this address is kept; its own name stays, for it may say what kind of file it is."""
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    name = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    return cache.root() / "files" / key / (name or "file")


def kept_file(url: str, sha256: str | None = None) -> Path | None:
    """The kept file of this address if it is whole (and has the checksum), else None."""
    path = file_path(url)
    record = cache.intact(path)
    if record is None or (sha256 is not None and record.sha256 != sha256):
        return None
    return path


def fetched_file(url: str, settings: Settings, progress: Progress, *, sha256: str | None = None) -> Path:
    """The kept file of this address, fetched through the user's mirrors if need be; an interrupted one is gone on with.

    Raises Unreachable, WrongContent, NotEnoughSpace.
    """
    looked = time.time()
    have = kept_file(url, sha256)
    if have is not None:
        return have
    # A damaged one stays until the new one takes its place: another `lab` may have put it right by now.
    path = file_path(url)
    session = None
    if settings.ca_file:
        import requests

        session = requests.Session()
        session.verify = str(settings.ca_file)
    cache.keep(settings.at(url), path, progress, sha256=sha256, resume=True, session=session, since=looked)
    return path
