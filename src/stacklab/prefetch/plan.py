"""What a profile's DevStack will fetch: read from the profile, and from DevStack's own stackrc, which is parsed, never run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

from stacklab.deploy.profile.model import Profile
from stacklab.errors import LabError, NotServed

DATA = Path(__file__).parent / "devstack.yaml"

_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=(.*?)\s*(?:#.*)?$")
_VARIABLE = re.compile(r"[$]\{(\w+)(?::?-([^{}$]*))?\}|[$](\w+)")


@dataclass(frozen=True)
class Repository:
    """A repository that is cloned, and the branch, tag or full ref (`refs/…`) of it. `name` is DevStack's word for it."""

    name: str
    url: str
    ref: str


@dataclass(frozen=True)
class PrefetchTarget:
    """Whose Python the packages are for: its version ("3.11") and the glibc that its pip goes by. `abi`: if it is unusual."""

    python: str
    glibc: str
    abi: str = ""


Outcome = Literal["fetched", "updated", "already", "skipped", "failed"]


@dataclass(frozen=True)
class FetchOutcome:
    """What came of one thing that was to be fetched. `part`: git, wheels, files or box; `size` in bytes on this host."""

    part: str
    name: str
    outcome: Outcome
    size: int = 0
    detail: str = ""
    error: LabError | None = None

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        fields = {name: value for name, value in asdict(self).items() if name != "error"}
        return fields | ({"error": self.error.id, "advice": self.error.advice} if self.error else {})


@cache
def facts() -> dict[str, Any]:
    """devstack.yaml (ours, shipped with the package)."""
    data: dict[str, Any] = YAML(typ="safe").load(DATA.read_text(encoding="utf-8"))
    return data


def devstack_of(profile: Profile) -> Repository:
    """DevStack itself: everything else is known only when it is there."""
    return Repository("devstack", profile.devstack.repo, profile.devstack.ref)


def repositories(profile: Profile, services: tuple[str, ...], stackrc: str) -> list[Repository]:
    """What DevStack clones. `stackrc`: that file of DevStack at the profile's ref. Raises UnknownName, NotServed."""
    names = profile.chosen(services)
    values = evaluated(stackrc, _from_local_conf(profile, names))
    prefixes = [*facts()["projects"], *(prefix for name in names for prefix in facts()["services"].get(name, []))]
    cloned = [
        Repository(prefix.lower().replace("_", "-"), values[f"{prefix}_REPO"], values[f"{prefix}_BRANCH"])
        for prefix in prefixes
        if f"{prefix}_REPO" in values and f"{prefix}_BRANCH" in values
    ]
    # the address that local.conf gives (deploy.localconf); without a ref, enable_plugin takes master (functions-common)
    base = str(profile.values.get("git_base", "")).rstrip("/")
    plugins = [(name, profile.services[name]) for name in names if profile.services[name].plugin]
    cloned += [Repository(name, f"{base}/{it.plugin}.git", it.ref or "master") for name, it in plugins]
    return list({(repository.url, repository.ref): repository for repository in cloned}.values())


def _from_local_conf(profile: Profile, services: Iterable[str]) -> dict[str, str]:
    """What local.conf will say of repositories: the same data that its fragments are made from."""
    values = profile.values
    settings = {name.upper(): str(values[name]) for name in ("git_base", "novnc_repo") if name in values}
    branches = values.get("branches")
    if isinstance(branches, dict):
        settings |= branches
    for name in services:
        own = profile.services[name].values
        settings |= {key: value for key, value in own.items() if key.endswith(("_REPO", "_BRANCH"))}
    return settings


def evaluated(stackrc: str, settings: dict[str, str]) -> dict[str, str]:
    """The plain assignments of stackrc, in order, with what local.conf says before them. The first one of a name counts.

    What is not a plain assignment (arrays, commands, conditions) is left out: no value is guessed.
    """
    values = dict(settings)

    def put(match: re.Match[str]) -> str:
        default = match[0] if match[2] is None else match[2]
        return values.get(match[1] or match[3], default)

    for line in stackrc.splitlines():
        match = _ASSIGNMENT.match(line)
        if match is None or match[1] in values or re.search(r"[$][(]|`", match[2]):
            continue
        text, before = match[2].strip("\"'"), ""
        while before != text:  # from the inside out: defaults may hold variables themselves
            before, text = text, _VARIABLE.sub(put, text)
        if "$" not in text:
            values[match[1]] = text
    return values


def target_of(profile: Profile) -> PrefetchTarget:
    """Raises NotServed for a distribution of which we do not know it."""
    known = facts()["distributions"].get(profile.distribution)
    if known is None:
        raise NotServed(
            f"which Python {profile.distribution} has is not known, so its packages cannot be chosen",
            advice=f"add it to {DATA}, or leave them out: --only git,files,box",
        )
    python = str(profile.values.get("python_version") or known["python"])
    return PrefetchTarget(python, known["glibc"], known.get("abi", "") if python == known["python"] else "")
