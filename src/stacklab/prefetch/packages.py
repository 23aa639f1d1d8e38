"""The distribution's packages, passed on and kept: what the machine's apt or yum asks for once is here the second time.

The machine's sources are written as http://CACHE/packages/SCHEME/HOST/… (also where upstream is https: we speak it, so the
machine's old certificates do not matter; the packages' signatures are checked on the machine as ever). apt's way of asking a
proxy (GET http://HOST/…) is answered, too. Only the hosts of the profile are passed on: this is no open proxy.

Not apt-cacher-ng, which does the same for apt: it is a package of Debian's only and knows yum's metadata by file name
patterns, it serves nothing stale unless it is told to be offline, and the same server of ours has to serve git, pip and files
anyway.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import requests

from stacklab import cache
from stacklab.deploy.profile.settings import Settings
from stacklab.download import Received, Tee, Unreachable
from stacklab.files import write_json

PATIENCE = 60.0
"""Seconds for which a host that did not answer is not asked again."""

FOR_GOOD = re.compile(
    r"\.(?:u?deb|d?rpm)$"
    r"|/by-hash/(?:MD5Sum|SHA1|SHA256|SHA512)/[0-9a-f]{32,128}$"  # apt
    r"|/repodata/[0-9a-f]{32,128}-[^/]+$"  # yum: the checksum is part of the name
)
"""What never changes under its address; everything else (the lists) is asked for anew each time."""


class NotPassed(Exception):
    """`status` for the machine, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass(frozen=True)
class Passed:
    """A kept file; `stale`: upstream could not be asked whether it is still the same one."""

    path: Path
    record: cache.Record
    stale: str = ""


def package_path(scheme: str, host: str, path: str) -> Path:
    """Where a package or list is kept; the parts of `path` are plain names (the server has looked)."""
    return cache.root() / "packages" / scheme / host / path


@dataclass
class Packages:
    """`sources`: beginnings of addresses that are passed on; `say`: takes lines for the log."""

    sources: list[str]
    settings: Settings
    session: requests.Session
    say: Callable[[str], None]
    offline: bool = False
    _locks: dict[Path, threading.Lock] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _silent: dict[str, float] = field(default_factory=dict)

    def get(self, scheme: str, host: str, path: str, tee: Tee | None = None) -> Passed | None:
        """The file, kept or fetched; None when `tee` has got it all already, while it came. Raises NotPassed."""
        url = f"{scheme}://{host}/{quote(path, safe='/:~+@!$&()*,;=-._')}"
        if not any(url.startswith(source) for source in self.sources):
            raise NotPassed(403, f"{scheme}://{host}/ is not among the profile's sources of packages")
        kept = package_path(scheme, host, path)
        with self._guard:
            lock = self._locks.setdefault(kept, threading.Lock())
        with lock:
            record = cache.intact(kept)
            if record is None and kept.exists():
                self.say(f"{kept} is damaged: it is fetched again")
                cache.forget(kept)
            if record is not None and FOR_GOOD.search(f"/{path}"):
                return Passed(kept, record)
            return self._asked(url, kept, record, tee)

    def _asked(self, url: str, kept: Path, record: cache.Record | None, tee: Tee | None) -> Passed | None:
        upstream = self.settings.at(url)
        host = urlsplit(upstream).netloc
        known = Received(record.etag, record.modified) if record else None
        counted = _Counted(tee) if tee else None
        try:
            self._may_ask(url, host)
            fresh = cache.keep(upstream, kept, self.say, session=self.session, known=known, tee=counted)
        except Unreachable as error:
            if counted and counted.begun:
                raise
            return self._without(url, kept, record, error, host)
        _gone(kept).unlink(missing_ok=True)
        if fresh is None and record is not None:
            return Passed(kept, record)
        if counted and counted.begun:
            return None
        now = fresh or cache.intact(kept)
        if now is None:
            raise NotPassed(502, f"{url} vanished from the cache while it was fetched")
        return Passed(kept, now)

    def _may_ask(self, url: str, host: str) -> None:
        if self.offline:
            raise Unreachable(f"{url} is not kept, and nothing is fetched offline")
        if time.monotonic() - self._silent.get(host, -PATIENCE) < PATIENCE:
            raise Unreachable(f"{host} did not answer a moment ago")

    def _without(self, url: str, kept: Path, record: cache.Record | None, error: Unreachable, host: str) -> Passed:
        if error.status in (403, 404, 410):  # it answered: there is no such file (any more)
            cache.forget(kept)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(_gone(kept), {"url": url, "status": error.status})
            raise NotPassed(404, f"upstream has no {url}")
        asked = time.monotonic() - self._silent.get(host, -PATIENCE) >= PATIENCE
        if error.status is None and asked and not self.offline:
            self._silent[host] = time.monotonic()
        if record is not None:
            self.say(f"{url}: stale, {error.message}")
            return Passed(kept, record, stale=error.message)
        if _gone(kept).exists():
            raise NotPassed(404, f"upstream had no {url} when it was last asked")
        raise NotPassed(504, f"{url} is not kept: {error.message}")


def _gone(path: Path) -> Path:
    """Remembers that upstream has no such file: apt asks for lists that need not exist."""
    return path.with_name(f".{path.name}.gone{cache.SUFFIX}")


class _Counted:
    """Whether anything was passed on already: then there is no other answer any more."""

    def __init__(self, tee: Tee) -> None:
        self.tee, self.begun = tee, False

    def begin(self, length: int | None) -> None:
        self.begun = True
        self.tee.begin(length)

    def write(self, chunk: bytes) -> None:
        self.tee.write(chunk)
