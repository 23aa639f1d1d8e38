"""Files that a profile names by their address, fetched beforehand: what is placed on the machine, and its box."""

from __future__ import annotations

from stacklab.cache import Outcome
from stacklab.deploy.prepare.files import fetched_file, file_path, kept_file
from stacklab.deploy.profile.model import PlacedFile, Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import LabError, NotEnoughSpace
from stacklab.stages import Progress


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
