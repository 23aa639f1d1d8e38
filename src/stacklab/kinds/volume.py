"""Cinder: volumes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import Ref, Refers, shouted
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.named import NamedKind, NamedParams
from stacklab.kinds.narration import Command, Later, Request

MOST_GIB = 16384
"""More than that is a slip of the pen, not a disk."""


class VolumeParams(NamedParams):
    """A volume."""

    size: Annotated[int, Field(ge=1, le=MOST_GIB)]  # GiB
    """How large it is, in GiB."""
    image: Annotated[Ref, Refers("image")] | None = None
    """The image that its content is made from."""


class Volume(NamedKind[VolumeParams]):
    """A volume: a disk with a life of its own, whatever becomes of the instance that it is attached to."""

    name = "volume"
    params = VolumeParams
    menus = "Project ▸ Volumes ▸ Volumes ▸ Create Volume: Volume Name {name}, Size {size} GiB"
    tells = "{name}, {size} GiB, {status}"
    gone_within = 120

    def title(self, p: VolumeParams) -> str:
        return f"volume {p.name} ({p.size} GiB)"

    def commands(self, context: Context, p: VolumeParams) -> list[Command]:
        image = ("--image", context.name_of(p.image)) if p.image else ()
        return [Command(("volume", "create", "--size", str(p.size), *image, p.name))]

    def requests(self, context: Context, p: VolumeParams) -> list[Request]:
        volume: dict[str, object] = {"name": p.name, "size": p.size}
        if p.image:
            volume["imageRef"] = context.id_of(p.image, "image")
        later = Later(shouted(p.name, "id"))
        return [
            Request("POST", "block-storage", ("volumes",), {"volume": volume}, saves={later.name: ("volume", "id")}),
            Request("GET", "block-storage", ("volumes", later), until=(("volume", "status"), "available")),
        ]

    def find_all(self, context: Context, p: VolumeParams) -> Iterable[Thing]:
        if p.image:
            context.thing(p.image, "image")
        return self.by_name(context, p.name)

    def compare(self, context: Context, p: VolumeParams, thing: Thing) -> list[Difference]:
        status = thing["status"] if thing["status"] not in ("available", "in-use") else "usable"
        bootable = "true" if p.image else None
        return differing(
            [("size", p.size, thing["size"]), ("status", "usable", status), ("bootable", bootable, thing["bootable"])]
        )


KINDS: list[Kind[Any]] = [Volume()]
