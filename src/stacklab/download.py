"""A file from the internet: whole and what it should be, or not there at all."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import requests

from stacklab.errors import DownloadFailed, NotEnoughSpace
from stacklab.files import disk_error
from stacklab.stages import Progress

CONNECT_SECONDS = 10
READ_SECONDS = 60
CHUNK = 1 << 18
# git asks it as `sh -c 'f() …; f get'` (gitcredentials(7)): the variables' names are in the arguments, their values are not.
_HELPER = '!f() { echo "username=$LAB_GIT_ACCOUNT"; echo "password=$LAB_GIT_PASSWORD"; }; f'
ADVICE = "try again later, or name another source for it: mirrors: in config.yaml"


class Unreachable(DownloadFailed):
    """The network or the server failed; another source may do."""


class WrongContent(DownloadFailed):
    """What came is not what it should be: never fall back silently on this."""


def sha256_of(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def without_password(url: str) -> str:
    """`url` as it may be shown: an account and its password in it are not ours to print."""
    return re.sub(r"(://)[^/@\s]*@", r"\1", url)


def without_login(*command: str) -> tuple[list[str], dict[str, str]]:
    """A git command (`git`, arguments …) with its http address without the account, and the variables that hold that.

    git gets the account from its environment, for everybody can read its arguments.
    """
    git, *arguments = command
    for at, argument in enumerate(arguments):
        if not argument.startswith(("http://", "https://")):
            continue
        parts = urlsplit(argument)
        if parts.username is not None:
            arguments[at] = without_password(argument)
            login = {"LAB_GIT_ACCOUNT": unquote(parts.username), "LAB_GIT_PASSWORD": unquote(parts.password or "")}
            return [git, "-c", f"credential.helper={_HELPER}", *arguments], login
    return list(command), {}


def download(
    url: str,
    target: Path,
    progress: Progress,
    *,
    sha256: str | None = None,
    ca_file: Path | None = None,
    advice: str = ADVICE,
) -> str:
    """Fetch `url` (http, https or file) into `target`, which appears only when the content is whole; returns its SHA-256.

    What came before an interruption stays beside `target` and is gone on with, if the server says that it is still the same
    file. Two at once are fine: the second waits for the first, then finds the file there. `ca_file`: the certificates to
    trust. Raises Unreachable, WrongContent (also where it has not the checksum `sha256`), NotEnoughSpace.
    """
    part = target.with_name(f".{target.name}.part")
    began = time.time()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _owned(part, progress) as file:
            digest = _made_meanwhile(target, began)
            if digest is not None and sha256 in (None, digest):
                _forget(part)
                return digest
            try:
                digest = _receive(url, file, part, progress, ca_file, advice)
                _compare(digest, sha256, url, advice)
            except (Unreachable, requests.RequestException, KeyboardInterrupt):
                if not _origin(part).exists():
                    _forget(part)  # nobody could say whether it is still the same file
                raise
            except BaseException:
                _forget(part)  # here, while it is ours: whoever waits for it must not lose the one that it makes next
                raise
            _origin(part).unlink(missing_ok=True)
            part.replace(target)
            return digest
    except requests.RequestException as error:  # an OSError too: it has to come first
        message = f"{without_password(url)} could not be fetched: {reason(error)}"
        raise Unreachable(message, advice=advice) from error
    except OSError as error:
        better = disk_error(error, target)
        if isinstance(better, NotEnoughSpace):
            raise better from error
        raise


def _compare(digest: str, sha256: str | None, url: str, advice: str) -> None:
    if sha256 not in (None, digest):
        raise WrongContent(f"{without_password(url)} has SHA-256 {digest}, expected {sha256}", advice=advice)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _origin(part).unlink(missing_ok=True)


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


def _made_meanwhile(target: Path, since: float) -> str | None:
    """The checksum of what somebody else fetched while we waited (whole: that is how it appears)."""
    try:
        return sha256_of(target) if target.stat().st_ctime > since else None
    except FileNotFoundError:
        return None


def _receive(url: str, file: BinaryIO, part: Path, progress: Progress, ca_file: Path | None, advice: str) -> str:
    """Fill the part; its checksum."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if urlsplit(url).scheme == "file":
        _copy(url, file, advice)
        return sha256_of(part)
    validator = _validator(part, url)
    have = part.stat().st_size if validator else 0
    headers = {"Accept-Encoding": "identity"}  # a checksum is that of the file, not of what unpacking makes of it
    if validator:
        # RFC 9110, 13.1.5: the rest if it is still the same file, else the whole
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    with requests.Session() as session:
        session.verify = str(ca_file) if ca_file else True
        with session.get(url, stream=True, headers=headers, timeout=(CONNECT_SECONDS, READ_SECONDS)) as answer:
            if answer.status_code == 416:  # it is another one now
                _forget(part)
                raise Unreachable(f"{without_password(url)} changed while it was fetched", advice=advice)
            answer.raise_for_status()
            if answer.status_code != 206:
                have = 0
                file.truncate(0)
            _remember(part, url, answer)
            length = int(answer.headers.get("Content-Length", 0))
            encoded = "Content-Encoding" in answer.headers  # then the length is not that of what we write
            total = have + length if length and not encoded else None
            _write(answer.iter_content(CHUNK), file, name, have, total, progress)
    done = os.fstat(file.fileno()).st_size
    if total is not None and done != total:
        raise Unreachable(f"{without_password(url)} broke off after {done} of {total} bytes", advice=advice)
    return sha256_of(part)


def _write(
    chunks: Iterable[bytes], file: BinaryIO, name: str, done: int, total: int | None, progress: Progress
) -> None:
    reported = time.monotonic()
    for chunk in chunks:
        file.write(chunk)
        done += len(chunk)
        if time.monotonic() - reported > 1:
            reported = time.monotonic()
            of = f" of {total >> 20}" if total else ""
            progress(f"{name}: {done >> 20}{of} MB")
    file.flush()


def _copy(url: str, file: BinaryIO, advice: str) -> None:
    file.truncate(0)
    try:
        with Path(unquote(urlsplit(url).path)).open("rb") as source:
            shutil.copyfileobj(source, file, CHUNK)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise Unreachable(f"{url} could not be fetched: {error.strerror}", advice=advice) from error
    file.flush()


def _origin(part: Path) -> Path:
    """Where the part is from, and what its server called it: asked for again only where both are the same."""
    return part.with_name(f"{part.name}.from")


def _validator(part: Path, url: str) -> str | None:
    try:
        origin = json.loads(_origin(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(origin["validator"]) if origin.get("url") == url else None


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
