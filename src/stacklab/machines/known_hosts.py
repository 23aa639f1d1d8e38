"""The host keys that a lab has seen: a known_hosts file of its own, never the user's."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stacklab.errors import HomeUnavailable
from stacklab.files import locked, write_atomic


@dataclass(frozen=True)
class HostKey:
    """A public host key: its kind (`ssh-ed25519`) and its base64 text, as in a known_hosts or a .pub file."""

    kind: str
    text: str

    @classmethod
    def parse(cls, line: str) -> HostKey:
        """The key in a line `kind base64 [comment]`. Raises HomeUnavailable if it is none."""
        words = line.split()
        try:
            base64.b64decode(words[1], validate=True)
        except (IndexError, binascii.Error) as error:
            raise HomeUnavailable(
                f"{line[:60]!r} is no host key", advice="give it as in a .pub file: ssh-ed25519 AAAA…"
            ) from error
        return cls(words[0], words[1])

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as ssh-keygen -l prints it."""
        digest = hashlib.sha256(base64.b64decode(self.text)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


class KnownHosts:
    """A known_hosts file in OpenSSH's format, one name a line. Safe for several processes; a reader sees it whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, name: str) -> list[HostKey]:
        """The keys pinned for a machine (`host`, or `[host]:port`)."""
        return [HostKey(words[1], words[2]) for words in map(str.split, self._lines()) if _names(words, name)]

    def pin(self, name: str, key: HostKey) -> None:
        """Trust this key, and no other, for this machine from now on."""
        with self._writing() as lines:
            lines[:] = [line for line in lines if not _names(line.split(), name)]
            lines.append(f"{name} {key.kind} {key.text}")

    def forget(self, name: str) -> bool:
        """Trust no key for this machine any more: the next contact is a first one. Says whether one was pinned."""
        if not self.of(name):
            return False
        with self._writing() as lines:
            lines[:] = [line for line in lines if not _names(line.split(), name)]
        return True

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []

    @contextmanager
    def _writing(self) -> Iterator[list[str]]:
        with locked(self.path.with_name(self.path.name + ".lock"), wait=True):
            lines = self._lines()
            yield lines
            write_atomic(self.path, "".join(f"{line}\n" for line in lines), mode=0o600)


def _names(words: list[str], name: str) -> bool:
    return len(words) >= 3 and name in words[0].split(",")
