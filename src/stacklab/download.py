"""A file from the internet: whole and what it should be, or not there at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

import requests

from stacklab.errors import DownloadFailed, NotEnoughSpace
from stacklab.files import disk_error
from stacklab.stages import Progress

CONNECT_SECONDS = 10
READ_SECONDS = 60
CHUNK = 1 << 18
ADVICE = "try again later, or name another source for it: mirrors: in config.yaml"


class Unreachable(DownloadFailed):
    """The network or the server failed; another source may do. `status`: what the server answered, if it did."""

    def __init__(self, message: str, *, advice: str = "", status: int | None = None) -> None:
        super().__init__(message, advice=advice)
        self.status = status


class WrongContent(DownloadFailed):
    """What came is not what it should be: never fall back silently on this."""


@dataclass(frozen=True)
class Received:
    """What came. `etag`, `modified`: the server's words, with which to ask later whether it is another one now.

    `sha256` and `size` are those of what was received; empty where another `lab` received it.
    """

    etag: str = ""
    modified: str = ""
    sha256: str = ""
    size: int = 0


class Tee(Protocol):
    """Somebody who takes the content while it comes."""

    def begin(self, length: int | None) -> None:
        """The whole content will follow; `length` in bytes, None where the server did not say."""

    def write(self, chunk: bytes) -> None:
        """The next bytes. What goes wrong with them there is no reason to stop here: it must not raise."""


def sha256_of(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def without_password(url: str) -> str:
    """`url` as it may be shown: an account and its password in it are not ours to print."""
    return re.sub(r"(://)[^/@\s]*@", r"\1", url)


def download(
    url: str,
    target: Path,
    progress: Progress,
    *,
    sha256: str | None = None,
    resume: bool = False,
    session: requests.Session | None = None,
    known: Received | None = None,
    tee: Tee | None = None,
    since: float | None = None,
    advice: str = ADVICE,
) -> Received | None:
    """Fetch `url` (http, https or file) into `target`, which appears only when the content is whole and has the checksum.

    Two at once are fine: the second waits for the first, then finds the file there. `resume`: what came before an
    interruption stays beside `target` and is gone on with, if the server says that it is still the same file. `known`: what
    was received with the `target` that is there; if it is still the same it stays, and None is returned. `tee` gets the
    content as it comes, all of it, before its checksum is known. `since`: when it was looked whether `target` is there (in
    seconds since the epoch; else now): one that appeared later is what we want.

    Raises Unreachable, WrongContent or NotEnoughSpace; none leaves a file behind (Unreachable does with `resume`).
    """
    part = target.with_name(f".{target.name}.part")
    wanted = _Wanted(url, resume, session or requests.Session(), advice, known, tee)
    began = time.time() if since is None else since
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _owned(part, progress) as file:
            if _made_meanwhile(target, began, sha256):
                _forget(part)
                return Received()
            received = _fill(wanted, file, part, sha256, progress)
            if received is None:
                _forget(part)
                return None
            _origin(part).unlink(missing_ok=True)
            part.replace(target)
            return received
    except requests.RequestException as error:  # an OSError too: it has to come first
        status = error.response.status_code if error.response is not None else None
        said = f"{without_password(url)} could not be fetched: {reason(error)}"
        raise Unreachable(said, advice=advice, status=status) from error
    except OSError as error:
        better = disk_error(error, target)
        if isinstance(better, NotEnoughSpace):
            raise better from error
        raise


def _fill(wanted: _Wanted, file: BinaryIO, part: Path, sha256: str | None, progress: Progress) -> Received | None:
    """The part is removed here, while it is ours: whoever waits for it must not lose the one that it makes next."""
    try:
        received = _receive(wanted, file, part, progress)
        return received and _verified(wanted, part, received, sha256)
    except (Unreachable, requests.RequestException, KeyboardInterrupt):
        if not wanted.resume:
            _forget(part)
        raise
    except BaseException:
        _forget(part)
        raise


def _verified(wanted: _Wanted, part: Path, received: Received, sha256: str | None) -> Received:
    found = sha256_of(part)
    if sha256 is not None and found != sha256:
        raise WrongContent(
            f"{without_password(wanted.url)} has SHA-256 {found}, expected {sha256}", advice=wanted.advice
        )
    return replace(received, sha256=found, size=part.stat().st_size)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _origin(part).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Wanted:
    url: str
    resume: bool
    session: requests.Session
    advice: str
    known: Received | None
    tee: Tee | None

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.url).path).rpartition("/")[2]

    def headers(self, have: int, validator: str | None) -> dict[str, str]:
        """What is asked for: all of it as it is, the rest of it, or all of it if it is another one."""
        headers = {"Accept-Encoding": "identity"}  # a checksum is that of the file, not of what unpacking makes of it
        if have and validator:
            # RFC 9110, 13.1.5: the rest if it is still the same file, else the whole
            headers |= {"Range": f"bytes={have}-", "If-Range": validator}
        elif self.known and self.known.etag:
            headers["If-None-Match"] = self.known.etag
        elif self.known and self.known.modified:
            headers["If-Modified-Since"] = self.known.modified
        return headers


@contextmanager
def _owned(part: Path, progress: Progress) -> Iterator[BinaryIO]:
    """The file that is being written, ours alone. Its former owner renamed or removed it: then there is a new one to own."""
    while True:
        with part.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress(f"{part.name[1:-5]} is being fetched already; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)  # ends with its process; that one's network waits have deadlines
            try:
                mine = os.fstat(file.fileno()).st_ino == part.stat().st_ino
            except FileNotFoundError:
                mine = False
            if mine:
                yield file
                return


def _made_meanwhile(target: Path, since: float, sha256: str | None) -> bool:
    """Somebody else fetched it while we waited (whole and right: that is how it appears)."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return False
    return status.st_ctime > since and (sha256 is None or sha256_of(target) == sha256)


def _origin(part: Path) -> Path:
    return part.with_name(f"{part.name}.from")


def _receive(wanted: _Wanted, file: BinaryIO, part: Path, progress: Progress) -> Received | None:
    if urlsplit(wanted.url).scheme == "file":
        return _copy(wanted, file)
    validator = _validator(part, wanted.url) if wanted.resume else None
    have = part.stat().st_size if validator else 0
    headers, timeout = wanted.headers(have, validator), (CONNECT_SECONDS, READ_SECONDS)
    with wanted.session.get(wanted.url, stream=True, headers=headers, timeout=timeout) as answer:
        if answer.status_code == 304:
            return None
        if answer.status_code == 416:  # it is another one now
            _forget(part)
            raise Unreachable(f"{without_password(wanted.url)} changed while it was fetched", advice=wanted.advice)
        answer.raise_for_status()
        if answer.status_code != 206:
            have = 0
            file.truncate(0)
        if wanted.resume:
            _remember(part, wanted.url, answer)
        length = int(answer.headers.get("Content-Length", 0))
        encoded = "Content-Encoding" in answer.headers  # then the length is not that of what we write
        total = have + length if length and not encoded else None
        if wanted.tee:
            wanted.tee.begin(total)
            _repeat(part, have, wanted.tee)
        _write(answer.iter_content(CHUNK), file, wanted, (have, total), progress)
    done = os.fstat(file.fileno()).st_size
    if total is not None and done != total:
        said = f"{without_password(wanted.url)} broke off after {done} of {total} bytes"
        raise Unreachable(said, advice=wanted.advice)
    return Received(answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""))


def _repeat(part: Path, size: int, tee: Tee) -> None:
    with part.open("rb") as file:
        while size and (chunk := file.read(min(CHUNK, size))):
            tee.write(chunk)
            size -= len(chunk)


def _write(
    chunks: Iterable[bytes], file: BinaryIO, wanted: _Wanted, sizes: tuple[int, int | None], progress: Progress
) -> None:
    (done, total), said = sizes, time.monotonic()
    for chunk in chunks:
        file.write(chunk)
        if wanted.tee:
            wanted.tee.write(chunk)
        done += len(chunk)
        if time.monotonic() - said > 1:
            said = time.monotonic()
            of = f" of {total >> 20}" if total else ""
            progress(f"{wanted.name}: {done >> 20}{of} MB")
    file.flush()


def _copy(wanted: _Wanted, file: BinaryIO) -> Received:
    file.truncate(0)
    path = Path(unquote(urlsplit(wanted.url).path))
    try:
        source = path.open("rb")
    except OSError as error:
        raise Unreachable(f"{wanted.url} could not be fetched: {error.strerror}", advice=wanted.advice) from error
    with source:
        if wanted.tee:
            wanted.tee.begin(path.stat().st_size)
        _write(iter(lambda: source.read(CHUNK), b""), file, wanted, (0, None), lambda said: None)
    return Received()


def _validator(part: Path, url: str) -> str | None:
    try:
        told = json.loads(_origin(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(told["validator"]) if told.get("url") == url else None


def _remember(part: Path, url: str, answer: requests.Response) -> None:
    tag = answer.headers.get("ETag", "")
    validator = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
    if validator and "Content-Encoding" not in answer.headers:
        _origin(part).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")
    else:
        _origin(part).unlink(missing_ok=True)


def reason(error: requests.RequestException) -> str:
    """Why a request failed, short: the last part of a chain of nested messages says it; the rest is object names."""
    if error.response is not None:
        return f"the server answered {error.response.status_code}"
    short = re.search(r"IncompleteRead\(\d+ bytes read, (\d+) more expected", str(error))
    if short:
        return f"it broke off {short[1]} bytes before its end"
    last = str(error).rpartition(": ")[2].strip(")'\"")
    return re.sub(r" \(\[Errno -?\d+\] ", ": ", last) or type(error).__name__
