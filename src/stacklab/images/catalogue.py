"""images.yaml as typed data: the pinned image, what the tiny one is made of, who to log in as."""

from __future__ import annotations

import platform
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML

HERE = Path(__file__).parent


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PinnedFile(_Part):
    """One file on the internet and what it must be."""

    url: str
    sha256: str
    size: int


class PinnedImage(_Part):
    """An image that somebody else publishes, by machine architecture."""

    name: str
    login: str
    disk_format: str
    files: dict[str, PinnedFile]


class TinyRecipe(_Part):
    """What the tiny Linux is made of."""

    name: str
    login: str
    machines: list[str]
    guest: dict[str, list[str]]
    tools: list[str]
    follow: str
    skip: str
    root_megabytes: int
    modules: list[str]


class ImageCatalogue(_Part):
    """All of images.yaml. `machine` is the architecture that guests on this machine have."""

    pinned: PinnedImage = Field(alias="cirros")
    tiny: TinyRecipe
    logins: dict[str, str]
    machine: str

    def login_for(self, file_name: str) -> str | None:
        """Who to log in as on an image of this file name, or None where the name does not tell."""
        lowered = file_name.lower()
        return next((user for word, user in self.logins.items() if word in lowered), None)


def load_catalogue(machine: str | None = None) -> ImageCatalogue:
    """Read images.yaml (ours, shipped with the package: a wrong one is a defect)."""
    data = YAML(typ="safe").load((HERE / "images.yaml").read_text(encoding="utf-8"))
    return ImageCatalogue.model_validate(data | {"machine": machine or platform.machine()})
