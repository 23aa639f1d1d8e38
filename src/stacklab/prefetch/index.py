"""The index of Python packages that this host uses: what pip here is configured with, read as PEP 503 says.

https://packaging.python.org/en/latest/specifications/simple-repository-api/ (the HTML form: also directories have it).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import requests
from packaging.utils import canonicalize_name

from stacklab import indexes
from stacklab.deploy.profile.settings import Settings
from stacklab.download import CONNECT_SECONDS, READ_SECONDS, Unreachable, reason, without_password
from stacklab.errors import DownloadFailed

PATIENCE = 60.0
"""Seconds for which an index that did not answer is not asked again: without it every name would wait for it anew."""

ADVICE = "look at: pip config list; or name an index: deploy: pip_index: in config.yaml"


def pips_own() -> str:
    """The index that pip has when nobody configures one: pip is asked, for it is not ours to know. Raises DownloadFailed."""
    ask = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise DownloadFailed(
            "no index of Python packages is configured, and pip is not here to be asked", advice=ADVICE
        )
    return done.stdout.strip()


@dataclass(frozen=True)
class Link:
    """A file that an index offers. `sha256` is empty where the index does not tell it."""

    file: str
    url: str
    sha256: str = ""
    needs_python: str = ""
    yanked: bool = False


@dataclass
class Index:
    """`urls`: simple indexes, all of which are asked, as pip does; `places`: directories with files (find-links)."""

    urls: list[str]
    places: list[Path]
    session: requests.Session
    _silent: dict[str, tuple[float, str]] = field(default_factory=dict)

    @classmethod
    def of_host(cls, settings: Settings, environment: Mapping[str, str] | None = None) -> Index:
        """As pip on this host is configured; `settings.pip_index` stands in the place of all of it."""
        told = indexes.for_uv(os.environ if environment is None else environment)
        session = requests.Session()
        if settings.ca_file or told.get("SSL_CERT_FILE"):
            session.verify = str(settings.ca_file or told["SSL_CERT_FILE"])
        if settings.pip_index:
            return cls([settings.pip_index], [], session)
        first = [] if told.get("UV_NO_INDEX") else [told.get("UV_DEFAULT_INDEX") or pips_own()]
        urls = first + told.get("UV_INDEX", "").split()
        places = [Path(place.removeprefix("file://")) for place in told.get("UV_FIND_LINKS", "").split(",") if place]
        return cls([settings.at(url) for url in urls], [place for place in places if place.is_dir()], session)

    def links(self, name: str) -> list[Link]:
        """All files of a package, from every index; the first index that offers a file counts.

        Raises Unreachable when one of the indexes does not answer: what is known would be a part only.
        """
        name = canonicalize_name(name)
        found: dict[str, Link] = {}
        for place in self.places:
            for path in sorted(place.iterdir()):
                if canonicalize_name(path.name.partition("-")[0]) == name:
                    found.setdefault(path.name, Link(path.name, path.absolute().as_uri()))
        for url in self.urls:
            for link in self._page(f"{url.rstrip('/')}/{name}/"):
                found.setdefault(link.file, link)
        return list(found.values())

    def _page(self, url: str) -> list[Link]:
        host = urlsplit(url).netloc
        since, said = self._silent.get(host, (0.0, ""))
        if since and time.monotonic() - since < PATIENCE:
            raise Unreachable(said, advice=ADVICE)
        if urlsplit(url).scheme == "file":
            return _local_page(Path(unquote(urlsplit(url).path)))
        try:
            answer = self.session.get(url, headers={"Accept": "text/html"}, timeout=(CONNECT_SECONDS, READ_SECONDS))
            if answer.status_code in (404, 410):
                return []
            answer.raise_for_status()
        except requests.RequestException as error:
            said = f"the package index {without_password(url)} could not be read: {reason(error)}"
            self._silent[host] = (time.monotonic(), said)
            raise Unreachable(said, advice=ADVICE) from error
        return parse(answer.text, answer.url)


def _local_page(directory: Path) -> list[Link]:
    page = directory / "index.html"
    if page.is_file():
        return parse(page.read_text(encoding="utf-8"), page.absolute().as_uri())
    if directory.is_dir():
        return [Link(path.name, path.absolute().as_uri()) for path in sorted(directory.iterdir()) if path.is_file()]
    return []


def parse(text: str, base: str) -> list[Link]:
    """The links of a page of a simple index. What is no file of a package is left out."""
    reader = _Anchors()
    reader.feed(text)
    links = []
    for anchor in reader.found:
        url, fragment = urldefrag(urljoin(base, anchor.get("href") or ""))
        file = unquote(urlsplit(url).path).rpartition("/")[2]
        if not file or file.startswith(".") or "/" in file or "\0" in file:
            continue
        kind, _, value = fragment.partition("=")
        links.append(
            Link(
                file,
                url,
                value.lower() if kind == "sha256" else "",
                anchor.get("data-requires-python") or "",
                "data-yanked" in anchor,
            )
        )
    return links


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append(dict(attrs))
