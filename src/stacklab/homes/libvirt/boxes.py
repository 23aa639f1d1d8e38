"""Which box a VM is made from: the profile's, by name and version, or one that the user has."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import unquote

from stacklab.cache import cached_file
from stacklab.deploy.profile.model import Box
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import DownloadFailed


def wanted_box(box: Box, settings: Settings, own: str | None) -> Box:
    """The profile's box, or `own` (a path or URL). Raises DownloadFailed for a file that is not there.

    Without a version it is the newest that Vagrant has or finds; without a URL it comes from where Vagrant looks up names.
    A box of one's own gets a version made of what is in it (of its URL, if it is not here): Vagrant and libvirt keep boxes by
    name and version, and would go on using an older one.
    """
    if own is None:
        kept = cached_file(box.url, box.sha256) if box.url else None  # lab prefetch fetched it
        url = kept.as_uri() if kept else settings.at(box.url) if box.url else None
        # What is fetched by URL has to be called something; by name alone, Vagrant's catalogue says.
        version = box.version or ("0.0.0" if url and not url.endswith(".json") else None)
        return box.model_copy(update={"url": url, "version": version})
    if "://" in own and not own.startswith("file://"):
        version = _version(hashlib.sha256(own.encode()).hexdigest())
        return Box(name=_name(own), version=version, url=settings.at(own))
    path = Path(unquote(own.removeprefix("file://")) if own.startswith("file://") else own).expanduser().absolute()
    if not path.is_file():
        raise DownloadFailed(f"there is no box {path}", advice="--box PATH|URL names a .box file or its URL")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Box(name=_name(path.name), version=_version(digest), url=path.as_uri(), sha256=digest)


def _name(source: str) -> str:
    stem = source.rstrip("/").rpartition("/")[2].removesuffix(".box")
    return "lab/" + (re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "own")


def _version(digest: str) -> str:
    return f"0.0.{int(digest[:8], 16)}"
