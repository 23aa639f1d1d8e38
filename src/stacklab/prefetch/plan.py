"""What a profile's DevStack will fetch: read from the profile, and from DevStack's own stackrc, which is parsed, never run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ruamel.yaml import YAML

from stacklab.deploy.profile.model import Profile
from stacklab.errors import NotServed
from stacklab.suggest import closest_of

DATA = Path(__file__).parent / "devstack.yaml"

_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=(.*?)\s*(?:#.*)?$")
_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^{}]*))?\}|\$(\w+)")


@dataclass(frozen=True)
class Repository:
    """A repository that is cloned, and the branch, tag or full ref (`refs/…`) of it. `name` is DevStack's word for it."""

    name: str
    url: str
    ref: str


@dataclass(frozen=True)
class Guest:
    """Whose pip chooses the files: its Python ("3.11"), and the glibc that it goes by. `abi`: where it is not the usual one."""

    python: str
    glibc: str
    abi: str = ""


@cache
def facts() -> dict[str, Any]:
    """devstack.yaml (ours, shipped with the package)."""
    found: dict[str, Any] = YAML(typ="safe").load(DATA.read_text(encoding="utf-8"))
    return found


def devstack_of(profile: Profile) -> Repository:
    """DevStack itself: everything else is known only when it is there."""
    return Repository("devstack", profile.devstack.repo, profile.devstack.ref)


def asked_for(profile: Profile, services: tuple[str, ...]) -> list[str]:
    """The services and those that they need. Raises NotServed."""
    wanted: list[str] = []
    todo = list(services)
    while todo:
        name = todo.pop(0)
        if name in wanted:
            continue
        service = profile.services.get(name)
        if service is None or service.refused:
            can = closest_of(name, profile.served, f"services of {profile.name}")
            why = " ".join(service.refused.split()) if service and service.refused else can
            raise NotServed(f"profile {profile.name} does not serve '{name}'", advice=why)
        wanted.append(name)
        todo += service.needs
    return wanted


def repositories(profile: Profile, services: tuple[str, ...], stackrc: str) -> list[Repository]:
    """What DevStack clones. `stackrc`: that file of DevStack at the profile's ref. Raises NotServed."""
    wanted = asked_for(profile, services)
    told = _told(profile, wanted)
    values = evaluated(stackrc, told)
    prefixes = [*facts()["projects"]]
    for name in wanted:
        prefixes += facts()["services"].get(name, [])
    found = [
        Repository(prefix.lower().replace("_", "-"), values[f"{prefix}_REPO"], values[f"{prefix}_BRANCH"])
        for prefix in prefixes
        if f"{prefix}_REPO" in values and f"{prefix}_BRANCH" in values
    ]
    for name in wanted:
        service = profile.services[name]
        if service.plugin:
            # the address that local.conf gives (deploy.localconf); without a ref, enable_plugin takes master (functions-common)
            base = str(profile.values.get("git_base", "")).rstrip("/")
            found.append(Repository(name, f"{base}/{service.plugin}.git", service.ref or "master"))
    return list({(one.url, one.ref): one for one in found}.values())


def _told(profile: Profile, services: list[str]) -> dict[str, str]:
    """What local.conf will say of repositories: the same data that its fragments are made from."""
    told: dict[str, str] = {}
    values = profile.values
    if "git_base" in values:
        told["GIT_BASE"] = str(values["git_base"])
    if "novnc_repo" in values:
        told["NOVNC_REPO"] = str(values["novnc_repo"])
    branches = values.get("branches")
    if isinstance(branches, dict):
        told |= branches
    for name in services:
        told |= {
            key: value for key, value in profile.services[name].values.items() if key.endswith(("_REPO", "_BRANCH"))
        }
    return told


def evaluated(stackrc: str, told: dict[str, str]) -> dict[str, str]:
    """The plain assignments of stackrc, in order, with what local.conf says before them. The first one of a name counts.

    What is not a plain assignment (arrays, commands, conditions) is left out: no value is guessed.
    """
    values = dict(told)
    for line in stackrc.splitlines():
        match = _ASSIGNMENT.match(line)
        if match is None:
            continue
        name, text = match[1], match[2].strip("\"'")
        if name in told or "$(" in text or "`" in text:
            continue
        known = True

        def put(found: re.Match[str]) -> str:
            nonlocal known
            variable, default = found[1] or found[3], found[2]
            if variable in values:
                return values[variable]
            known = known and default is not None
            return default or ""

        before = None
        while before != text:  # defaults may hold variables themselves
            before, text = text, _VARIABLE.sub(put, _inner(text, values))
        if known and name not in values:
            values[name] = text
    return values


def _inner(text: str, values: dict[str, str]) -> str:
    """Variables inside a default first: `${A_REPO:-${GIT_BASE}/a.git}`."""
    return re.sub(r"(?<=:-)\$\{(\w+)\}", lambda found: values.get(found[1], found[0]), text)


def guest_of(profile: Profile) -> Guest:
    """Raises NotServed for a distribution of which we do not know it."""
    known = facts()["distributions"].get(profile.distribution)
    if known is None:
        raise NotServed(
            f"which Python {profile.distribution} has is not known, so its packages cannot be chosen",
            advice=f"add it to {DATA}, or leave them out: --only git,files,box",
        )
    python = str(profile.values.get("python_version") or known["python"])
    return Guest(python, known["glibc"], known.get("abi", "") if python == known["python"] else "")


def package_sources(profile: Profile) -> list[str]:
    """Beginnings of the addresses (`scheme://host/`) that packages are passed on from, and no others."""
    texts = [file.content or "" for file in profile.repositories]
    urls = [url for text in texts for url in re.findall(r"\bhttps?://[^\s\"'<>]+", text)]
    found = [f"{urlsplit(url).scheme}://{urlsplit(url).netloc}/" for url in urls]
    return sorted(set(found))
