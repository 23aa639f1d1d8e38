"""Files that a profile names by their address: what is placed on the machine, and its box; one cache for all who ask."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stacklab.deploy.profile.model import PlacedFile, Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import LabError, NotEnoughSpace
from stacklab.prefetch import cache
from stacklab.prefetch.cache import Outcome
from stacklab.stages import Progress


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


def placed_files(profile: Profile) -> list[PlacedFile]:
    """Those that have an address, of the profile and of its variants, each once."""
    variants = [file for variant in profile.variants.values() for file in variant.files]
    return list({str(one.url): one for one in [*profile.repositories, *profile.files, *variants] if one.url}.values())


def fetch(part: str, url: str, sha256: str | None, settings: Settings, progress: Progress) -> Outcome:
    """Fetch one file; what failed is told in the outcome, so that the rest goes on."""
    name = file_path(url).name
    damaged = file_path(url).exists() and kept_file(url, sha256) is None
    before = kept_file(url, sha256)
    progress(name)
    try:
        path = fetched_file(url, settings, progress, sha256=sha256)
    except NotEnoughSpace:
        raise  # nothing that follows would fit either
    except LabError as error:
        return Outcome(part, name, "failed", 0, error.message, error)
    detail = "" if sha256 else "no checksum is known for it"
    if damaged:
        return Outcome(part, name, "updated", path.stat().st_size, "the kept one was damaged, or another one")
    return Outcome(part, name, "already" if before else "fetched", path.stat().st_size, detail)
