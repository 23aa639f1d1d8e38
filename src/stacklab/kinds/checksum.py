"""MD5 sums of files and streams, a piece at a time: what Swift writes into an etag and Glance into a checksum."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from stacklab.errors import DownloadFailed

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
