"""The index that the machine's pip asks: what is kept, and through it, what the host's own index has and is kept then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import canonicalize_name

from stacklab import cache
from stacklab.download import Tee, Unreachable
from stacklab.errors import LabError
from stacklab.prefetch import simple
from stacklab.prefetch.index import Index, Link
from stacklab.prefetch.packages import NotPassed

FRESH = 300.0
"""Seconds for which a page of the host's index is not asked for again: stack.sh asks for the same names many times."""


@dataclass
class PassingIndex:
    """`say`: takes lines for the log. `offline`: only what is kept."""

    index: Index
    say: Callable[[str], None]
    offline: bool = False
    _pages: dict[str, tuple[float, list[Link]]] = field(default_factory=dict)
    _locks: dict[Path, threading.Lock] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def page(self, name: str) -> str:
        """The page of a package. Raises NotPassed: an index answers 404 for what it does not have."""
        lines = simple.entries(name, self._links(name))
        if not lines:
            raise NotPassed(404, f"nothing of {name} is kept, and the host's index has none or cannot be asked")
        return simple.page(canonicalize_name(name), lines)

    def file(self, name: str, file: str, tee: Tee | None) -> Path | None:
        """The file, kept or fetched (and checked against the index's hash); None when `tee` has got it. Raises NotPassed."""
        path = simple.folder(name) / file
        with self._guard:
            lock = self._locks.setdefault(path, threading.Lock())
        with lock:
            if cache.intact(path):
                return path
            if path.exists():
                self.say(f"{path} is damaged: it is fetched again")
                cache.forget(path)
            link = next((one for one in self._links(name) if one.file == file), None)
            if link is None:
                raise NotPassed(404, f"{file} is not kept, and the host's index does not offer it or cannot be asked")
            try:
                cache.keep(
                    link.url, path, self.say, sha256=link.sha256 or None, needs_python=link.needs_python,
                    session=self.index.session, tee=tee,
                )  # fmt: skip
            except LabError as error:
                raise NotPassed(502, error.message) from error
        return None if tee else path

    def _links(self, name: str) -> list[Link]:
        if self.offline:
            return []
        name = canonicalize_name(name)
        since, links = self._pages.get(name, (0.0, []))
        if since and time.monotonic() - since < FRESH:
            return links
        try:
            links = self.index.links(name)
        except Unreachable as error:
            self.say(f"{name}: only what is kept, {error.message}")
            return []
        self._pages[name] = (time.monotonic(), links)
        return links
