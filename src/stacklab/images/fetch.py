"""A file from the internet: whole and what it should be, or not there at all."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import requests

from stacklab.errors import DownloadFailed, NotEnoughSpace
from stacklab.files import disk_error
from stacklab.images.packages import ADVICE
from stacklab.stages import Progress

CONNECT_SECONDS = 10
READ_SECONDS = 60
CHUNK = 1 << 18
USUAL_ADVICE = f"try again, or {ADVICE}"


class Unreachable(DownloadFailed):
    """The network or the server failed; another source may do."""


class WrongContent(DownloadFailed):
    """What came is not what it should be: never fall back silently on this."""


def sha256_of(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, target: Path, progress: Progress, *, sha256: str | None = None) -> None:
    """Fetch `url` into `target`, which appears only when the content is whole and has the checksum.

    Raises Unreachable, WrongContent or NotEnoughSpace; none of them leaves a file behind.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _receive(url, part, progress)
        if sha256 is not None:
            found = sha256_of(part)
            if found != sha256:
                raise WrongContent(f"{url} has SHA-256 {found}, expected {sha256}", advice=ADVICE)
        part.replace(target)
    except requests.RequestException as error:  # an OSError too: it has to come first
        raise Unreachable(f"{url} could not be fetched: {_reason(error)}", advice=USUAL_ADVICE) from error
    except OSError as error:
        better = disk_error(error, target)
        if isinstance(better, NotEnoughSpace):
            raise better from error
        raise
    finally:
        part.unlink(missing_ok=True)


def _receive(url: str, part: Path, progress: Progress) -> None:
    name, done, said = url.rpartition("/")[2], 0, time.monotonic()
    with requests.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as answer:
        answer.raise_for_status()
        length = int(answer.headers.get("Content-Length", 0))
        encoded = "Content-Encoding" in answer.headers  # then the length is not that of what we write
        with part.open("wb") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                done += len(chunk)
                if time.monotonic() - said > 1:
                    said = time.monotonic()
                    progress(f"{name}: {done >> 20} of {length >> 20} MB" if length else f"{name}: {done >> 20} MB")
    if length and not encoded and done != length:
        raise Unreachable(f"{url} broke off after {done} of {length} bytes", advice=USUAL_ADVICE)


def _reason(error: requests.RequestException) -> str:
    """The last part of a chain of nested messages says it; the rest is object names."""
    if error.response is not None:
        return f"the server answered {error.response.status_code}"
    last = str(error).rpartition(": ")[2].strip(")'\"")
    return re.sub(r" \(\[Errno -?\d+\] ", ": ", last) or type(error).__name__
