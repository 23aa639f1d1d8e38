"""Names of packages by the distribution's package manager (packages.yaml), and what installs them."""

from __future__ import annotations

import functools
import platform
import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stacklab.conditions.remedy import Remedy

DATA = Path(__file__).with_name("packages.yaml")


@functools.cache
def data() -> dict[str, Any]:
    """packages.yaml."""
    content: dict[str, Any] = YAML(typ="safe").load(DATA.read_text(encoding="utf-8"))
    return content


def manager() -> str | None:
    """This machine's package manager, or None if it has none that we know."""
    return next((name for name in data()["managers"] if shutil.which(name)), None)


def names(group: str, of: str, architecture: str | None = None) -> list[str]:
    """The packages of a group (python, guests, vm) as the manager `of` calls them."""
    entry = data()["managers"][of]
    machine = architecture or platform.machine()
    spelt = entry.get("qemu", {})
    qemu = spelt.get(machine, spelt.get("other", machine))
    return [name.format(qemu=qemu) for name in entry["groups"][group]]


def install(group: str) -> tuple[Remedy | str, ...]:
    """What installs a group here: commands, or a line where no manager is known."""
    of = manager()
    if of is None:
        return (f"install with this machine's package manager: {' '.join(names(group, 'apt-get'))} (Debian's names)",)
    entry = data()["managers"][of]
    update = [Remedy(tuple(entry["update"]), root=True, installs=True, optional=True)] if "update" in entry else []
    return (*update, Remedy((*entry["install"], *names(group, of)), root=True, installs=True))
