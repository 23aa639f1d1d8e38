"""Bytes on their way from a file, a URL or a compressed stream to the cloud, without a copy on disk, and their MD5 sums."""

from __future__ import annotations

import gzip
import hashlib
import ipaddress
import lzma
import signal
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal
from urllib.parse import urljoin, urlsplit

from stacklab.errors import DownloadFailed, MissingProgram
from stacklab.kinds.narration import Upload

FETCH = ("curl", "-fsSL", "--proto", "=http,https")
"""What a URL is fetched with. It is given where the URL leads to in the end, which has been looked at before."""

MOST_MIB = 3072
"""What comes from a URL may have so many MiB, unpacked: a few of zeros become as many as somebody likes."""

AT_MOST = ("sh", "-c", f"head -c {MOST_MIB}M; test -z \"$(head -c 1 | tr '\\0\\n' xx)\"")
"""Passes so much on, and fails where there is more."""

CUT_OFF = (-signal.SIGPIPE, 23)
"""How a command ends whose output nobody reads any more; 23 is curl's word for it."""

_HOPS = 5
_SECONDS = 30


@contextmanager
def opened(upload: Upload) -> Iterator[IO[bytes]]:
    """The bytes of `upload`. Raises DownloadFailed if a command of its pipeline failed, MissingProgram if one is missing."""
    if upload.file:
        try:
            file = upload.file.open("rb")
        except OSError as error:
            raise DownloadFailed(f"cannot read {upload.file}: {error.strerror}") from error
        with file:
            yield file
        return
    with piped(upload.pipeline) as output:
        yield output


@contextmanager
def piped(pipeline: tuple[tuple[str, ...], ...]) -> Iterator[IO[bytes]]:
    """What a pipeline of commands prints, while they run. Raises DownloadFailed, MissingProgram.

    Whoever reads it may stop before its end. Then that one knows why, and what becomes of the commands tells nothing.
    """
    started: list[subprocess.Popen[bytes]] = []
    source: IO[bytes] | int = subprocess.DEVNULL
    try:
        for argv in pipeline:
            looked_at = _fetching(argv) if argv[: len(FETCH)] == FETCH else argv
            started.append(subprocess.Popen(looked_at, stdin=source, stdout=subprocess.PIPE))
            if not isinstance(source, int):
                source.close()  # the child has it; ours would keep the earlier command from noticing that nobody reads
            output = started[-1].stdout
            assert output is not None  # noqa: S101 -- stdout=PIPE
            source = output
        assert not isinstance(source, int)  # noqa: S101 -- a pipeline has at least one command
        yield source
        whole = source.read(1) == b""
        source.close()
        failed = [(argv, status) for argv, process in zip(pipeline, started, strict=True) if (status := process.wait())]
        if whole and failed:
            # Who was cut off by the failure of a later one is not the cause.
            raise DownloadFailed(
                _failed(*next((process for process in failed if process[1] not in CUT_OFF), failed[0]))
            )
    except FileNotFoundError as error:
        raise MissingProgram(
            f"{error.filename} is not installed", advice="install it and run the step again"
        ) from error
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()


def _failed(argv: tuple[str, ...], status: int) -> str:
    if argv == AT_MOST:
        return f"what comes from the URL has more than {MOST_MIB} MiB, which is more than an image from a URL may have"
    return f"'{' '.join(argv)}' ended with status {status}"


# --- URLs ----------------------------------------------------------------------------------------------------------


def _fetching(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command with the URL's last redirection followed, and the address that was looked at. Raises DownloadFailed."""
    import requests

    url = argv[-1]
    for _ in range(_HOPS):
        parts = urlsplit(url)
        address = _public_address(url)
        try:
            with requests.get(url, stream=True, allow_redirects=False, timeout=_SECONDS) as answer:
                where = answer.headers.get("Location") if answer.is_redirect else None
        except requests.RequestException as error:
            raise DownloadFailed(f"{url}: no answer ({type(error).__name__})") from error
        if where is None:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            shown = f"[{address}]" if ":" in address else address
            pinned = ("--max-redirs", "0", "--resolve", f"{parts.hostname}:{port}:{shown}")
            return (*FETCH, *pinned, url)
        url = urljoin(url, where)
    raise DownloadFailed(f"{argv[-1]} leads on and on ({_HOPS} times)")


def _public_address(url: str) -> str:
    """An address of the URL's host; none of them may be this machine's own. Raises DownloadFailed."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host = None
    if parts.scheme not in ("http", "https") or not host:
        raise DownloadFailed(f"{url} is no http or https address, and nothing else is fetched")
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DownloadFailed(f"{parts.hostname} is not known: {error.strerror}") from error
    addresses = [str(info[4][0]) for info in infos]
    for address in addresses:
        if of_this_machine(address):
            raise DownloadFailed(
                f"{url} leads to {address}, which is this machine: a session may not have its own services read"
            )
    return addresses[0]


def of_this_machine(text: str) -> bool:
    """Whether an address is one that only this machine answers, or that leads to nobody else's web server."""
    address = ipaddress.ip_address(text.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))  # the kernel lets nobody bind to an address of another machine
        except OSError:
            return False
    return True


PIECE = 1 << 20
"""Bytes that are read at once."""


def md5_of(pieces: Iterable[bytes]) -> str:
    """The MD5 of all the pieces together, in hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def pieces_of(path: Path, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """A part of a file, a piece at a time. Raises DownloadFailed if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            left = length
            while piece := file.read(PIECE if left is None else min(PIECE, left)):
                yield piece
                left = None if left is None else left - len(piece)
    except OSError as error:
        raise DownloadFailed(f"cannot read {path}: {error.strerror}") from error


def expanded_pieces(path: Path, packed: Literal["gzip", "xz"]) -> Iterator[bytes]:
    """What is in a compressed file, a piece at a time. Raises DownloadFailed if it cannot be read to its end."""
    try:
        with gzip.open(path, "rb") if packed == "gzip" else lzma.open(path, "rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DownloadFailed(f"cannot expand {path}: {error}") from error
