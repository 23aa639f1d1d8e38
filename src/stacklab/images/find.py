"""Choosing the guest image: the user's own, a cached one, the pinned cirros, a tiny Linux built here; in this order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stacklab import places
from stacklab.download import Unreachable, WrongContent, download, sha256_of
from stacklab.errors import DownloadFailed, StageFailed
from stacklab.files import locked, read_json
from stacklab.images.build import build_tiny, recipe_key
from stacklab.images.catalogue import ImageCatalogue, load_catalogue
from stacklab.images.packages import ADVICE
from stacklab.stages import Progress

USUAL_ADVICE = f"try again, or {ADVICE}"

# What the first bytes say. (offset, bytes, Glance's name of the format)
SIGNATURES = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0x8001, b"CD001", "iso"),
    (510, b"\x55\xaa", "raw"),
)
PACKED = {b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"(\xb5/\xfd": "zstd", b"PK\x03\x04": "zip"}


@dataclass(frozen=True)
class GuestImage:
    """A disk that Glance and the emulator understand.

    `login_user`: who the key pair lets in; None where only the user can know (an image of their own).
    `source`: where it came from, in words for a learner.
    """

    path: Path
    disk_format: str
    container_format: str
    login_user: str | None
    source: str
    name: str


def find_image(user: str | None, progress: Progress, *, catalogue: ImageCatalogue | None = None) -> GuestImage:
    """The image to start guests from.

    `user` is a path or URL. Raises DownloadFailed, MissingProgram, UnsupportedMachine, StageFailed or NotEnoughSpace.
    """
    catalogue = catalogue or load_catalogue()
    folder = places.cache_home() / "images"
    with locked(folder / ".lock", wait=True):
        if user is not None:
            return _users(user, folder, catalogue, progress)
        cached = _cached_cirros(folder, catalogue) or _cached_tiny(folder, catalogue)
        if cached:
            return cached
        try:
            return _fetched_cirros(folder, catalogue, progress)
        except Unreachable as error:
            progress(f"{error.message}; building a tiny Linux from this distribution's packages instead")
        return _built_tiny(folder, catalogue, progress)


def disk_format_of(path: Path) -> str:
    """Glance's name of the disk format of a file. Raises WrongContent if it is none."""
    with path.open("rb") as file:
        head = file.read(0x8006)
    for offset, signature, name in SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return name
    for signature, name in PACKED.items():
        if head.startswith(signature):
            raise WrongContent(f"{path.name} is packed with {name}", advice="unpack it first, then give the disk image")
    raise WrongContent(f"{path.name} is not a disk image that can be booted", advice=ADVICE)


def _users(user: str, folder: Path, catalogue: ImageCatalogue, progress: Progress) -> GuestImage:
    url = urlsplit(user)
    if url.scheme in ("http", "https"):
        name = Path(url.path).name or url.hostname or "image"
        path = folder / f"{hashlib.sha256(user.encode()).hexdigest()[:12]}-{name}"
        if path.is_file():
            progress(f"using the copy of {user} fetched earlier ({path}; remove it to fetch it again)")
        else:
            progress(f"fetching {user}")
            download(user, path, progress, advice=USUAL_ADVICE)
        try:
            disk_format = disk_format_of(path)
        except WrongContent:
            path.unlink()
            raise
        return _of_user(path, disk_format, name, user, catalogue)
    path = Path(user).expanduser().resolve()
    if not path.is_file():
        raise DownloadFailed(f"there is no image {user}", advice="give the path or the http(s) URL of a disk image")
    return _of_user(path, disk_format_of(path), path.name, str(path), catalogue)


def _of_user(path: Path, disk_format: str, name: str, source: str, catalogue: ImageCatalogue) -> GuestImage:
    stem = name.rpartition(".")[0] or name
    return GuestImage(path, disk_format, "bare", catalogue.login_for(name), f"given: {source}", stem)


def _cirros(folder: Path, catalogue: ImageCatalogue, source: str) -> GuestImage:
    pinned = catalogue.pinned
    path = folder / f"{pinned.name}-{catalogue.machine}.{pinned.disk_format}"
    return GuestImage(path, pinned.disk_format, "bare", pinned.login, source, pinned.name)


def _cached_cirros(folder: Path, catalogue: ImageCatalogue) -> GuestImage | None:
    """A damaged one, or one of an older pin, is no error of the user's: it is fetched again."""
    pin, image = catalogue.pinned.files.get(catalogue.machine), _cirros(folder, catalogue, "cached")
    return image if pin and image.path.is_file() and sha256_of(image.path) == pin.sha256 else None


def _fetched_cirros(folder: Path, catalogue: ImageCatalogue, progress: Progress) -> GuestImage:
    pin = catalogue.pinned.files.get(catalogue.machine)
    if pin is None:
        raise Unreachable(f"there is no pinned {catalogue.pinned.name} for {catalogue.machine}", advice=ADVICE)
    image = _cirros(folder, catalogue, f"fetched: {pin.url}")
    progress(f"fetching {image.name} ({pin.size >> 20} MB)")
    download(pin.url, image.path, progress, sha256=pin.sha256, advice=USUAL_ADVICE)
    return image


def _tiny_path(folder: Path, catalogue: ImageCatalogue) -> Path:
    return folder / f"{catalogue.tiny.name}-{recipe_key(catalogue)}.img"


def _cached_tiny(folder: Path, catalogue: ImageCatalogue, source: str = "cached") -> GuestImage | None:
    path, tiny = _tiny_path(folder, catalogue), catalogue.tiny
    made = read_json(path.with_suffix(".json"))
    if made is None or not path.is_file() or sha256_of(path) != made["sha256"]:
        return None
    return GuestImage(path, made["disk_format"], "bare", tiny.login, source, tiny.name)


def _built_tiny(folder: Path, catalogue: ImageCatalogue, progress: Progress) -> GuestImage:
    path = _tiny_path(folder, catalogue)
    build_tiny(catalogue, path, progress)
    for old in folder.glob(f"{catalogue.tiny.name}-*"):
        if old.stem != path.stem:
            old.unlink()  # of an earlier recipe
    image = _cached_tiny(folder, catalogue, "built here from this distribution's packages")
    if image is None:
        raise StageFailed(f"{path} is not what was just written there", advice=ADVICE)
    return image
