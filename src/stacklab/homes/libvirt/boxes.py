"""Which box a VM is made from: the profile's, by name and version, or one that the user has."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from stacklab.cache import cached_file
from stacklab.deploy.profile.model import Box
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import DownloadFailed


@dataclass(frozen=True)
class WantedBox:
    """`version` None: the newest that Vagrant has or finds. `url` None: where Vagrant looks up names."""

    name: str
    version: str | None
    url: str | None
    sha256: str | None


def wanted_box(box: Box, settings: Settings, own: str | None) -> WantedBox:
    """The profile's box, or `own` (a path or URL). Raises DownloadFailed for a file that is not there.

    A box of one's own gets a version made of what is in it (of its URL, if it is not here): Vagrant and libvirt keep boxes by
    name and version, and would go on using an older one.
    """
    if own is None:
        kept = cached_file(box.url, box.sha256) if box.url else None  # lab prefetch fetched it
        url = kept.as_uri() if kept else settings.at(box.url) if box.url else None
        # What is fetched by URL has to be called something; by name alone, Vagrant's catalogue says.
        return WantedBox(
            box.name, box.version or ("0.0.0" if url and not url.endswith(".json") else None), url, box.sha256
        )
    if "://" in own and not own.startswith("file://"):
        return WantedBox(_name(own), _version(hashlib.sha256(own.encode()).hexdigest()), settings.at(own), None)
    path = Path(unquote(own.removeprefix("file://")) if own.startswith("file://") else own).expanduser().absolute()
    if not path.is_file():
        raise DownloadFailed(f"there is no box {path}", advice="--box PATH|URL names a .box file or its URL")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WantedBox(_name(path.name), _version(digest), path.as_uri(), digest)


def _name(source: str) -> str:
    stem = source.rstrip("/").rpartition("/")[2].removesuffix(".box")
    return "lab/" + (re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "own")


def _version(digest: str) -> str:
    return f"0.0.{int(digest[:8], 16)}"
