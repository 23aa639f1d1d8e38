"""images.yaml as typed data: the pinned image, what the tiny one is made of, who to log in as."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

HERE = Path(__file__).parent


@dataclass(frozen=True)
class PinnedFile:
    """One file on the internet and what it must be."""

    url: str
    sha256: str
    size: int


@dataclass(frozen=True)
class PinnedImage:
    """An image that somebody else publishes, by machine architecture."""

    name: str
    login: str
    disk_format: str
    files: dict[str, PinnedFile]


@dataclass(frozen=True)
class TinyRecipe:
    """What the tiny Linux is made of."""

    name: str
    login: str
    machines: tuple[str, ...]
    guest: dict[str, tuple[str, ...]]
    tools: tuple[str, ...]
    follow: str
    skip: str
    root_megabytes: int
    modules: tuple[str, ...]


@dataclass(frozen=True)
class ImageCatalogue:
    """All of images.yaml. `machine` is the architecture that guests on this machine have."""

    pinned: PinnedImage
    tiny: TinyRecipe
    logins: dict[str, str]
    machine: str

    def login_for(self, file_name: str) -> str | None:
        """Who to log in as on an image of this file name, or None where the name does not tell."""
        lowered = file_name.lower()
        return next((user for word, user in self.logins.items() if word in lowered), None)


def load_catalogue(path: Path = HERE / "images.yaml", machine: str | None = None) -> ImageCatalogue:
    """Read images.yaml (ours, shipped with the package: a wrong one is a defect and may raise anything)."""
    data: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    pinned, tiny = data["cirros"], data["tiny"]
    return ImageCatalogue(
        pinned=PinnedImage(
            name=pinned["name"],
            login=pinned["login"],
            disk_format=pinned["disk_format"],
            files={name: PinnedFile(**file) for name, file in pinned["files"].items()},
        ),
        tiny=TinyRecipe(
            name=tiny["name"],
            login=tiny["login"],
            machines=tuple(tiny["machines"]),
            guest={name: tuple(packages) for name, packages in tiny["guest"].items()},
            tools=tuple(tiny["tools"]),
            follow=tiny["follow"],
            skip=tiny["skip"],
            root_megabytes=tiny["root_megabytes"],
            modules=tuple(tiny["modules"]),
        ),
        logins=dict(data["logins"]),
        machine=machine or platform.machine(),
    )
