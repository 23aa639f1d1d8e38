"""What a package needs, read from its file: nothing is installed and nothing of it runs."""

from __future__ import annotations

import re
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

BUILD = ("setuptools", "wheel")
"""What builds a source that does not say it (https://peps.python.org/pep-0518/)."""


@dataclass
class Needs:
    """`run`: Requires-Dist of the package (markers may name extras); `build`: what makes a wheel of a source."""

    run: list[Requirement] = field(default_factory=list)
    build: list[Requirement] = field(default_factory=list)


def needs_of(path: Path) -> Needs:
    """Read a wheel or a source archive; what cannot be read is as if it needed nothing (pip on the machine will tell)."""
    try:
        if path.name.endswith(".whl"):
            with zipfile.ZipFile(path) as archive:
                name = next((one for one in archive.namelist() if one.endswith(".dist-info/METADATA")), None)
                return Needs(_headers(archive.read(name).decode(errors="replace")) if name else [])
        return _of_source(_texts(path))
    except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError):
        return Needs()


def parsed(lines: list[str]) -> list[Requirement]:
    """The requirements among the lines of a requirements file; options and what is no requirement are left out."""
    found = []
    for line in lines:
        text = re.sub(r"(^|\s)#.*$", "", line).strip()
        if not text or text.startswith("-"):
            continue
        try:
            found.append(Requirement(text))
        except InvalidRequirement:
            continue  # an address, or a line older than the rules
    return found


def build_requirements(pyproject: str | None) -> list[Requirement]:
    """What a project is built with."""
    try:
        told = tomllib.loads(pyproject or "").get("build-system", {}).get("requires")
    except tomllib.TOMLDecodeError:
        told = None
    return parsed([str(one) for one in told] if told is not None else list(BUILD))


def _headers(text: str) -> list[Requirement]:
    return parsed([str(line) for line in HeaderParser().parsestr(text).get_all("Requires-Dist") or []])


def _texts(path: Path) -> dict[str, str]:
    """The small files of a source archive that say what it needs, by their names below its directory."""
    wanted = re.compile(r"^[^/]+/(PKG-INFO|pyproject\.toml|[^/]+\.egg-info/requires\.txt)$")
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            found = {name: archive.read(name) for name in archive.namelist() if wanted.match(name)}
    else:
        with tarfile.open(path, "r:*") as archive:
            members = [one for one in archive if one.isfile() and wanted.match(one.name)]
            found = {one.name: file.read() for one in members if (file := archive.extractfile(one))}
    return {name.partition("/")[2]: data.decode(errors="replace") for name, data in found.items()}


def _of_source(texts: dict[str, str]) -> Needs:
    build = build_requirements(texts.get("pyproject.toml"))
    run = _headers(texts.get("PKG-INFO", ""))
    for name, text in texts.items():
        if not run and name.endswith("requires.txt"):
            run = _sections(text)
    return Needs(run, build)


def _sections(text: str) -> list[Requirement]:
    """setuptools' requires.txt: `[extra:marker]` heads what holds only then."""
    found, suffix = [], ""
    for line in text.splitlines():
        head = re.fullmatch(r"\[([^:\]]*):?(.*)\]", line.strip())
        if head:
            conditions = [f'extra == "{head[1]}"'] if head[1] else []
            conditions += [f"({head[2]})"] if head[2] else []
            suffix = f" ; {' and '.join(conditions)}" if conditions else ""
        elif line.strip():
            found += parsed([line.strip() + suffix])
    return found
