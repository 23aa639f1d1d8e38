"""Cinder: volumes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import Name, Params, Ref, Refers, shouted
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.narration import Command, Later, Request
from stacklab.kinds.wait import until

MOST_GIB = 16384
"""More than that is a slip of the pen, not a disk."""


class VolumeParams(Params):
    """A volume."""

    name: Name
    """Its name."""
    size: Annotated[int, Field(ge=1, le=MOST_GIB)]  # GiB
    """How large it is, in GiB."""
    image: Annotated[Ref, Refers("image")] | None = None
    """The image that its content is made from."""


class Volume(Kind[VolumeParams]):
    """A volume: a disk with a life of its own, whatever becomes of the instance that it is attached to."""

    name = "volume"
    params = VolumeParams

    def title(self, p: VolumeParams) -> str:
        return f"volume {p.name} ({p.size} GiB)"

    def horizon(self, p: VolumeParams) -> str:
        return f"Project ▸ Volumes ▸ Volumes ▸ Create Volume: Volume Name {p.name}, Size {p.size} GiB"

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
        return find_volumes(context, p.name)

    def compare(self, context: Context, p: VolumeParams, thing: Thing) -> list[Difference]:
        status = thing["status"] if thing["status"] not in ("available", "in-use") else "usable"
        bootable = "true" if p.image else None
        return differing(
            [("size", p.size, thing["size"]), ("status", "usable", status), ("bootable", bootable, thing["bootable"])]
        )

    def remove(self, context: Context, thing: Thing) -> bool:
        removed = context.admin.delete("block-storage", "volumes", thing["id"])
        if removed:
            path = ("volumes", thing["id"])
            until(
                lambda: context.admin.gone("block-storage", *path), f"volume {thing['name']} to be deleted", seconds=120
            )
        return removed

    def show_command(self, context: Context, p: VolumeParams) -> Command:
        return Command(("volume", "show", p.name))

    def shown(self, thing: Thing) -> str:
        return f"{thing['name']}, {thing['size']} GiB, {thing['status']}"

    def named(self, context: Context, name: str) -> Thing | None:
        return next(iter(find_volumes(context, name)), None)


def find_volumes(context: Context, name: str) -> list[Thing]:
    """Volumes of this name in the project of the one who acts."""
    query = {"all_tenants": "1", "project_id": context.project_id(), "name": name}
    found: list[Thing] = context.admin.listed("block-storage", "volumes", "detail", key="volumes", **query)
    return found


KINDS: list[Kind[Any]] = [Volume()]
