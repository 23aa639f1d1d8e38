"""What is kept, for a person: `lab prefetch --list`."""

from __future__ import annotations

from collections.abc import Iterator

from stacklab import cache
from stacklab.cache import Outcome
from stacklab.prefetch import mirrors, simple


def kept() -> Iterator[Outcome]:
    """Mirrors one by one, Python packages by name, files one by one, packages of distributions by host. Nothing is verified."""
    git = cache.root() / "git"
    for path, refs, size in mirrors.kept():
        yield Outcome("git", str(path.relative_to(git)), "already", size, ", ".join(refs))
    for name in simple.names():
        files = simple.kept(name)
        if files:
            size = sum(record.size for record in files.values())
            yield Outcome("wheels", name, "already", size, ", ".join(sorted(files)))
    for path, record in cache.kept(cache.root() / "files"):
        yield Outcome("files", path.name, "already", record.size, record.url)
    packages = cache.root() / "packages"
    for place in sorted(packages.glob("*/*")):
        found = list(cache.kept(place))
        size = sum(record.size for _, record in found)
        yield Outcome("packages", str(place.relative_to(packages)), "already", size, f"{len(found)} files")
