"""The host keys that a lab has seen: a known_hosts file of its own, never the user's."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from stacklab.files import locked, write_atomic


@dataclass(frozen=True)
class HostKey:
    """A public host key: its kind (`ssh-ed25519`) and its base64 text, as in a known_hosts or a .pub file."""

    kind: str
    text: str

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as ssh-keygen -l prints it."""
        digest = hashlib.sha256(base64.b64decode(self.text)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


class KnownHosts:
    """A known_hosts file in OpenSSH's format. Safe for several processes; a reader sees it whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, name: str) -> list[HostKey]:
        """The keys pinned for a machine (`host`, or `[host]:port`)."""
        return [HostKey(words[1], words[2]) for words in map(str.split, self._lines()) if _names(words, name)]

    def pin(self, name: str, key: HostKey) -> None:
        """Trust this key, and no other, for this machine from now on."""
        self._replace(name, [f"{name} {key.kind} {key.text}"])

    def forget(self, name: str) -> bool:
        """Trust no key for this machine any more: the next contact is a first one. Says whether one was pinned."""
        return self._replace(name, [])

    def _replace(self, name: str, lines: list[str]) -> bool:
        """Put these lines in the place of those of a machine; says whether that changed anything."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_name(self.path.name + ".lock"), wait=True):
            before = self._lines()
            after = [*(line for line in before if not _names(line.split(), name)), *lines]
            if after != before:
                write_atomic(self.path, "".join(f"{line}\n" for line in after), mode=0o600)
        return after != before

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []


def _names(words: list[str], name: str) -> bool:
    return len(words) >= 3 and name in words[0].split(",")
