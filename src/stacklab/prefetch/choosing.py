"""Which file of a package pip on the machine would take: by version, Python, platform."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.markers import Marker
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from stacklab.prefetch.index import Link
from stacklab.prefetch.plan import Guest

OLD_NAMES = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}
"""https://peps.python.org/pep-0600/: the names that came before manylinux_2_17 and so on."""


@dataclass(frozen=True)
class Candidate:
    """A file that would do, and its version. `rank`: lower is better among files of one version."""

    version: Version
    rank: int
    link: Link


class Chooser:
    """For one guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        python = tuple(int(part) for part in guest.python.split(".")[:2])
        major, minor = (int(part) for part in guest.glibc.split("."))
        platforms = []
        for age in range(minor, 4, -1):
            platforms.append(f"manylinux_{major}_{age}_x86_64")
            if (major, age) in OLD_NAMES:
                platforms.append(f"{OLD_NAMES[major, age]}_x86_64")
        platforms.append("linux_x86_64")
        short = f"cp{python[0]}{python[1]}"
        tags = [
            *cpython_tags(python, abis=[guest.abi or short], platforms=platforms),
            *compatible_tags(python, interpreter=short, platforms=platforms),
        ]
        self._ranks: dict[Tag, int] = {}
        for number, tag in enumerate(tags):
            self._ranks.setdefault(tag, number)
        self._environment = {
            "implementation_name": "cpython",
            "implementation_version": f"{guest.python}.0",
            "os_name": "posix",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{guest.python}.18",
            "python_version": guest.python,
            "sys_platform": "linux2" if python[0] == 2 else "linux",
        }

    def wants(self, marker: Marker | None, extras: Iterable[str] = ()) -> bool:
        """Whether a marker holds on the guest, with any of the extras that were asked for."""
        if marker is None:
            return True
        return any(marker.evaluate({**self._environment, "extra": extra}) for extra in (*extras, ""))

    def best(self, links: Iterable[Link], versions: SpecifierSet) -> Candidate | None:
        """The newest version that fits, its best wheel, or its source where no wheel fits."""
        found = [one for one in map(self._candidate, links) if one is not None]
        # `===` compares text, and an index has files of 2.0 and 2.0.0: versions are what is meant
        versions = SpecifierSet(str(versions).replace("===", "=="))
        exact = any(one.operator == "==" and not one.version.endswith("*") for one in versions)
        found = [one for one in found if exact or not one.link.yanked]
        fitting = list(versions.filter({one.version for one in found}, prereleases=True if exact else None))
        if not fitting:
            return None
        newest = max(fitting)
        return min((one for one in found if one.version == newest), key=lambda one: one.rank)

    def _candidate(self, link: Link) -> Candidate | None:
        try:
            if link.needs_python and not SpecifierSet(link.needs_python).contains(f"{self.guest.python}.18"):
                return None
        except InvalidSpecifier:
            pass  # as pip does: what cannot be read forbids nothing
        try:
            if link.file.endswith(".whl"):
                _, version, _, tags = parse_wheel_filename(link.file)
                ranks = [self._ranks[tag] for tag in tags if tag in self._ranks]
                return Candidate(version, min(ranks), link) if ranks else None
            if link.file.endswith((".tar.gz", ".zip")):
                return Candidate(_source_version(link.file), 1_000_000 + link.file.endswith(".zip"), link)
        except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
            return None  # older than the rules for names, and never a version that constraints name
        return None


def _source_version(file: str) -> Version:
    """Of functools32-3.2.3-2.tar.gz it is 3.2.3-2, of python-3parclient-4.2.0.tar.gz 4.2.0: old names leave it open."""
    match = re.match(r".+?-(\d.*?)(?:\.tar\.gz|\.zip)$", file)
    try:
        if match:
            return Version(match[1])
    except InvalidVersion:
        pass
    return parse_sdist_filename(file)[1]
