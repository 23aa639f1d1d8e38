"""Kept Python packages as a simple index (PEP 503): a directory a package, its files, and a page for any web server."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from packaging.utils import canonicalize_name

from stacklab import cache
from stacklab.cache import Record
from stacklab.prefetch.index import Link


def folder(name: str) -> Path:
    """Where the files of a package are kept."""
    return cache.root() / "simple" / canonicalize_name(name)


def kept(name: str) -> dict[str, Record]:
    """The kept files of a package."""
    return {path.name: record for path, record in cache.kept(folder(name)) if path.name != "index.html"}


def names() -> list[str]:
    """The packages of which something is kept."""
    root = cache.root() / "simple"
    return sorted(path.name for path in root.iterdir() if path.is_dir() and kept(path.name)) if root.is_dir() else []


@dataclass(frozen=True)
class Entry:
    """A line of a page."""

    file: str
    sha256: str
    needs_python: str


def entries(name: str, links: Iterable[Link] = ()) -> list[Entry]:
    """What is kept of a package, and what else an index offers of it."""
    found = {link.file: Entry(link.file, link.sha256, link.needs_python) for link in links if not link.yanked}
    for file, record in kept(name).items():
        found[file] = Entry(file, record.sha256, record.needs_python)
    return [found[file] for file in sorted(found)]


def page(name: str, lines: Iterable[Entry]) -> str:
    """The page of one package. Every address is beside the page, so it can be served from anywhere."""
    rows = []
    for one in lines:
        mark = f"#sha256={one.sha256}" if one.sha256 else ""
        needs = f' data-requires-python="{html.escape(one.needs_python)}"' if one.needs_python else ""
        rows.append(f'<a href="{quote(one.file)}{mark}"{needs}>{html.escape(one.file)}</a><br>')
    return _document(f"Links for {name}", rows)


def front_page() -> str:
    """The page of all packages."""
    return _document("Simple index", [f'<a href="{name}/">{name}</a><br>' for name in names()])


def _document(title: str, rows: list[str]) -> str:
    body = "\n".join(rows)
    return f"<!DOCTYPE html>\n<html><head><title>{html.escape(title)}</title></head>\n<body>\n{body}\n</body></html>\n"


def write_pages() -> None:
    """Put the pages into the directories, for a server that is not ours (ours makes them as they are asked for)."""
    for name in names():
        cache.write_quickly(folder(name) / "index.html", page(name, entries(name)))
    if names():
        cache.write_quickly(cache.root() / "simple" / "index.html", front_page())
