"""Swift: containers, and objects in them.

Everything belongs to a project's account, and is looked at as one of its users: unlike elsewhere, an administrator of the
cloud may not look into another project's account (docs.openstack.org/swift, "overview_auth": only ResellerAdmin may).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from stacklab.errors import CloudRefused, StepFailed
from stacklab.kinds.component import lacking
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import AssetRef, Id, Name, Params, Ref, Refers
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.narration import Command, Later, Request, Upload, Word
from stacklab.kinds.stream import md5_of, pieces_of

ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
Metadata = dict[Id, Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[\x20-\x7e]+$")]]


def without_swift(context: Context) -> str | None:
    """Why steps about objects make no sense on this cloud, or None."""
    return lacking(context, "Swift", ("object-store",), "swift")


def headers_of(context: Context, *path: str) -> dict[str, str] | None:
    """What a HEAD of a container or an object says, header names in small letters; None if there is none."""
    try:
        answer = context.user.fetch("HEAD", context.user.address("object-store", *path))
    except CloudRefused as error:
        if error.status == 404:
            return None
        raise
    return {name.lower(): value for name, value in answer.headers.items()}


def names_in(context: Context, container: str) -> set[str] | None:
    """The names of a container's objects; None if there is no such container."""
    try:
        answer = context.user.fetch("GET", context.user.address("object-store", container), query={"format": "json"})
    except CloudRefused as error:
        if error.status == 404:
            return None
        raise
    return {row["name"] for row in answer.json() if "name" in row}


def metadata_headers(thing: str, metadata: Metadata) -> dict[str, Word]:
    """Metadata as the headers that carry it. `thing`: Container or Object."""
    return {f"X-{thing}-Meta-{key.title()}": value for key, value in metadata.items()}


def metadata_differences(thing: str, metadata: Metadata, headers: dict[str, str]) -> list[Difference]:
    """Where metadata is not as declared."""
    return differing(
        (f"metadata {key}", value, headers.get(f"x-{thing}-meta-{key}", "none")) for key, value in metadata.items()
    )


class ContainerParams(Params):
    """A container, with its metadata."""

    name: Name
    """Its name."""
    metadata: Metadata = {}
    """Facts about it, by their names."""


class Container(Kind[ContainerParams]):
    """A container: what Swift calls the places that objects lie in (S3: a bucket)."""

    name = "container"
    params = ContainerParams

    def title(self, p: ContainerParams) -> str:
        return f"container {p.name}"

    def horizon(self, p: ContainerParams) -> str:
        return f"Project ▸ Object Store ▸ Containers ▸ + Container: Container Name {p.name}"

    def commands(self, context: Context, p: ContainerParams) -> list[Command]:
        properties = tuple(word for pair in p.metadata.items() for word in ("--property", "=".join(pair)))
        tagged = [Command(("container", "set", *properties, p.name))] if properties else []
        return [Command(("container", "create", p.name)), *tagged]

    def requests(self, context: Context, p: ContainerParams) -> list[Request]:
        return [Request("PUT", "object-store", (p.name,), extra=metadata_headers("Container", p.metadata))]

    def find_all(self, context: Context, p: ContainerParams) -> Iterable[Thing]:
        headers = headers_of(context, p.name)
        return [] if headers is None else [{"name": p.name, "headers": headers}]

    def compare(self, context: Context, p: ContainerParams, thing: Thing) -> list[Difference]:
        return metadata_differences("container", p.metadata, thing["headers"])

    def remove(self, context: Context, thing: Thing) -> bool:
        return removed(context, thing["name"])

    def show_command(self, context: Context, p: ContainerParams) -> Command:
        return Command(("container", "show", p.name))

    def shown(self, thing: Thing) -> str:
        headers = thing["headers"]
        count, size = headers.get("x-container-object-count", "?"), headers.get("x-container-bytes-used", "?")
        return f"{thing['name']} holds {count} objects, {size} bytes"

    def applicable(self, context: Context, p: ContainerParams) -> str | None:
        return without_swift(context)

    def named(self, context: Context, name: str) -> Thing | None:
        return next(iter(self.find_all(context, ContainerParams(name=name))), None)


def removed(context: Context, *path: str) -> bool:
    """DELETE a container or an object; False if it was not there any more. Raises CloudRefused, also for a container that holds
    something."""
    try:
        context.user.fetch("DELETE", context.user.address("object-store", *path))
    except CloudRefused as error:
        if error.status == 404:
            return False
        raise
    return True


def container_name(context: Context, ref: Ref) -> str:
    """The name of the container that a reference means. Raises Absent if it is not there."""
    return str(context.thing(ref, "container")["name"])


class ObjectParams(Params):
    """A file that becomes an object."""

    container: Annotated[Ref, Refers("container")]
    """Where it lies."""
    name: ObjectName
    """Its name."""
    source: AssetRef
    """The file that becomes the object."""
    metadata: Metadata = {}
    """Facts about it, by their names."""


class Object(Kind[ObjectParams]):
    """An object: a file with its metadata, whole or not at all. Its etag is the MD5 of what is in it."""

    name = "object"
    params = ObjectParams

    def title(self, p: ObjectParams) -> str:
        return f"object {p.name}"

    def horizon(self, p: ObjectParams) -> str:
        return f"Project ▸ Object Store ▸ Containers ▸ (the container) ▸ upload: File, File Name {p.name}"

    def commands(self, context: Context, p: ObjectParams) -> list[Command]:
        box, file = context.name_of(p.container), str(context.asset(p.source).path)
        properties = tuple(word for pair in p.metadata.items() for word in ("--property", "=".join(pair)))
        tagged = [Command(("object", "set", *properties, box, p.name))] if properties else []
        return [Command(("object", "create", "--name", p.name, box, file)), *tagged]

    def requests(self, context: Context, p: ObjectParams) -> list[Request]:
        path = context.asset(p.source).path
        extra = {"ETag": _etag(path), **metadata_headers("Object", p.metadata)}
        where = (context.name_of(p.container), p.name)
        return [Request("PUT", "object-store", where, upload=Upload(file=path), extra=extra)]

    def find_all(self, context: Context, p: ObjectParams) -> Iterable[Thing]:
        box = container_name(context, p.container)
        headers = headers_of(context, box, p.name)
        if headers is None:
            return []
        body = md5_of(context.user.stream("object-store", box, p.name))
        return [{"name": p.name, "container": box, "etag": headers["etag"].strip('"'), "md5": body, "headers": headers}]

    def compare(self, context: Context, p: ObjectParams, thing: Thing) -> list[Difference]:
        wanted = md5_of(pieces_of(context.asset(p.source).path))
        differences = differing([("etag", wanted, thing["etag"]), ("MD5 of what was read back", wanted, thing["md5"])])
        return differences + metadata_differences("object", p.metadata, thing["headers"])

    def undo_data(self, context: Context, p: ObjectParams, thing: Thing) -> Thing:
        return {key: thing[key] for key in ("name", "container", "etag")}

    def remove(self, context: Context, thing: Thing) -> bool:
        headers = headers_of(context, thing["container"], thing["name"])
        # The learner may have put something else in its place: that is not ours.
        if headers is None or headers["etag"].strip('"') != thing["etag"]:
            return False
        return removed(context, thing["container"], thing["name"])

    def show_command(self, context: Context, p: ObjectParams) -> Command:
        return Command(("object", "show", context.name_of(p.container), p.name))

    def shown(self, thing: Thing) -> str:
        return f"{thing['name']}: {thing['headers'].get('content-length')} bytes, etag and what was read back {thing['md5']}"

    def applicable(self, context: Context, p: ObjectParams) -> str | None:
        return without_swift(context)

    def expected(self, p: ObjectParams) -> str:
        return f"object {p.name} has the file's MD5 as its etag, and is read back whole"


def _etag(path: Path) -> Word:
    """A file's MD5; on paper, where there is no file, a variable for it."""
    return md5_of(pieces_of(path)) if path.exists() else Later("MD5")


def put(context: Context, where: tuple[str, str], path: Path, *, headers: dict[str, str] | None = None) -> str:
    """Put a file as an object and return its etag. Swift compares it with the etag that we send; we with the one it answers.

    Raises CloudRefused (422 if it got something else than was sent), StepFailed.
    """
    etag = md5_of(pieces_of(path))
    with path.open("rb") as data:
        answer = context.user.fetch(
            "PUT", context.user.address("object-store", *where), headers={"ETag": etag, **(headers or {})}, data=data
        )
    answered = str(answer.headers.get("Etag", "")).strip('"')
    if answered != etag:
        raise StepFailed(f"{'/'.join(where)} was stored with the etag {answered}, but the MD5 of {path} is {etag}")
    return etag


class DeletionParams(Params):
    """An object that is put, and deleted again."""

    container: Annotated[Ref, Refers("container")]
    """Where it lay."""
    name: ObjectName
    """Its name."""
    source: AssetRef
    """The file that became the object."""
    keeps: list[Annotated[Ref, Refers("object", "large-object")]] = Field(default=[])
    """Objects of that container that stay."""


class Deletion(Kind[DeletionParams]):
    """An object comes and goes. What is left of it is that it is not there: nothing remembers a deleted object."""

    name = "deletion"
    params = DeletionParams
    leaves = False

    def title(self, p: DeletionParams) -> str:
        return f"object {p.name} put and deleted"

    def horizon(self, p: DeletionParams) -> str:
        return f"Project ▸ Object Store ▸ Containers ▸ (the container) ▸ ({p.name}'s menu) Delete"

    def commands(self, context: Context, p: DeletionParams) -> list[Command]:
        box, file = context.name_of(p.container), str(context.asset(p.source).path)
        return [
            Command(("object", "create", "--name", p.name, box, file)),
            Command(("object", "list", box)),
            Command(("object", "delete", box, p.name)),
            Command(("object", "list", box)),
        ]

    def requests(self, context: Context, p: DeletionParams) -> list[Request]:
        box = context.name_of(p.container)
        listing = Request("GET", "object-store", (box,), query={"format": "json"})
        path = context.asset(p.source).path
        return [
            Request("PUT", "object-store", (box, p.name), upload=Upload(file=path), extra={"ETag": _etag(path)}),
            listing,
            Request("DELETE", "object-store", (box, p.name)),
            listing,
        ]

    def find_all(self, context: Context, p: DeletionParams) -> Iterable[Thing]:
        box = container_name(context, p.container)
        names = names_in(context, box)
        if names is None:
            raise Absent(f"container {box}")
        there = headers_of(context, box, p.name) is not None
        return [{"name": p.name, "names": names, "there": there}]

    def compare(self, context: Context, p: DeletionParams, thing: Thing) -> list[Difference]:
        names = thing["names"]
        rows = [
            Difference("objects", f"{name} is listed", _listing(names))
            for name in map(context.name_of, p.keeps)
            if name not in names
        ]
        if thing["there"]:
            rows.append(Difference("GET", "404: it is deleted", f"{p.name} can still be read"))
        if p.name in names:
            rows.append(Difference("objects", f"{p.name} is not listed", _listing(names)))
        return rows

    def shown(self, thing: Thing) -> str:
        return f"{thing['name']} is gone; the container holds {_listing(thing['names'])}"

    def show_command(self, context: Context, p: DeletionParams) -> Command:
        return Command(("object", "list", context.name_of(p.container)))

    def applicable(self, context: Context, p: DeletionParams) -> str | None:
        return without_swift(context)

    def expected(self, p: DeletionParams) -> str:
        return f"object {p.name} is neither listed nor there"


def _listing(names: set[str] | None) -> str:
    return ", ".join(sorted(names or ())) or "nothing"


KINDS: list[Kind[Any]] = [Container(), Object(), Deletion()]
