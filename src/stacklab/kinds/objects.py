"""Swift: containers, and objects in them.

Everything belongs to a project's account, and is looked at as one of its users: unlike elsewhere, an administrator of the
cloud may not look into another project's account (docs.openstack.org/swift, "overview_auth": only ResellerAdmin may).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, StringConstraints

from stacklab.cloud.connection import unless_absent
from stacklab.kinds.component import lacking
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import AssetRef, Id, Name, Params, Ref, Refers
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.narration import Command, Later, Request, Upload, Word
from stacklab.kinds.stream import md5_of, pieces_of

ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
Metadata = dict[Id, Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[\x20-\x7e]+$")]]
P = TypeVar("P", bound=Params)


def without_swift(context: Context) -> str | None:
    """Why steps about objects make no sense on this cloud, or None."""
    return lacking(context, "Swift", ("object-store",), "swift")


class SwiftKind(Kind[P]):
    """Something in a project's account, where the cloud has Swift."""

    def applicable(self, context: Context, p: P) -> str | None:
        return without_swift(context)


def headers_of(context: Context, *path: str) -> dict[str, str] | None:
    """What a HEAD of a container or an object says, header names in small letters; None if there is none."""
    user = context.user
    answer = unless_absent(lambda: user.fetch("HEAD", user.address("object-store", *path)))
    if answer is None:
        return None
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return headers | {"etag": headers.get("etag", "").strip('"')}


def names_in(context: Context, container: str) -> set[str] | None:
    """The names of a container's objects; None if there is no such container."""
    rows = unless_absent(lambda: context.user.get("object-store", container, format="json"))
    return None if rows is None else {row["name"] for row in rows if "name" in row}


# --- metadata ------------------------------------------------------------------------------------------------------


def tagging(thing: str, metadata: Metadata, *words: str) -> list[Command]:
    """The command that gives a container or an object its metadata, if it has any. `words`: which one."""
    properties = tuple(word for pair in metadata.items() for word in ("--property", "=".join(pair)))
    return [Command((thing, "set", *properties, *words))] if properties else []


def metadata_headers(thing: str, metadata: Metadata) -> dict[str, Word]:
    """Metadata as the headers that carry it."""
    return {f"X-{thing.title()}-Meta-{key.title()}": value for key, value in metadata.items()}


def metadata_differences(thing: str, metadata: Metadata, headers: dict[str, str]) -> list[Difference]:
    """Where metadata is not as declared."""
    return differing(
        (f"metadata {key}", value, headers.get(f"x-{thing}-meta-{key}", "none")) for key, value in metadata.items()
    )


# --- containers ----------------------------------------------------------------------------------------------------


class ContainerParams(Params):
    """A container, with its metadata."""

    name: Name
    """Its name."""
    metadata: Metadata = {}
    """Facts about it, by their names."""


class Container(SwiftKind[ContainerParams]):
    """A container: what Swift calls the places that objects lie in (S3: a bucket)."""

    name = "container"
    params = ContainerParams
    words = "container {name}"
    menus = "Project ▸ Object Store ▸ Containers ▸ + Container: Container Name {name}"

    def commands(self, context: Context, p: ContainerParams) -> list[Command]:
        return [Command(("container", "create", p.name)), *tagging("container", p.metadata, p.name)]

    def requests(self, context: Context, p: ContainerParams) -> list[Request]:
        return [Request("PUT", "object-store", (p.name,), extra=metadata_headers("container", p.metadata))]

    def find_all(self, context: Context, p: ContainerParams) -> Iterable[Thing]:
        headers = headers_of(context, p.name)
        return [] if headers is None else [{"name": p.name, "headers": headers}]

    def compare(self, context: Context, p: ContainerParams, thing: Thing) -> list[Difference]:
        return metadata_differences("container", p.metadata, thing["headers"])

    def remove(self, context: Context, thing: Thing) -> bool:
        return context.user.delete("object-store", thing["name"])

    def show_command(self, context: Context, p: ContainerParams) -> Command:
        return Command(("container", "show", p.name))

    def shown(self, thing: Thing) -> str:
        headers = thing["headers"]
        count, size = headers.get("x-container-object-count", "?"), headers.get("x-container-bytes-used", "?")
        return f"{thing['name']} holds {count} objects, {size} bytes"

    def named(self, context: Context, name: str) -> Thing | None:
        return next(iter(self.find_all(context, ContainerParams(name=name))), None)


# --- objects -------------------------------------------------------------------------------------------------------


class FileParams(Params):
    """A file that becomes an object."""

    container: Annotated[Ref, Refers("container")]
    """Where it lies."""
    name: ObjectName
    """Its name."""
    source: AssetRef
    """The file that becomes the object."""


F = TypeVar("F", bound=FileParams)


class FileKind(SwiftKind[F]):
    """Something that becomes of a file in a container."""

    def container_and_file(self, context: Context, p: F) -> tuple[str, Path]:
        """The container's name, whether it is there or not, and the file."""
        return context.name_of(p.container), context.asset(p.source).path

    def container_that_is_there(self, context: Context, p: F) -> str:
        """The name of the container. Raises Absent."""
        return str(context.thing(p.container, "container")["name"])

    def show_command(self, context: Context, p: F) -> Command:
        return Command(("object", "show", context.name_of(p.container), p.name))


class ObjectParams(FileParams):
    """A file that becomes an object."""

    metadata: Metadata = {}
    """Facts about it, by their names."""


class Object(FileKind[ObjectParams]):
    """An object: a file with its metadata, whole or not at all. Its etag is the MD5 of what is in it."""

    name = "object"
    params = ObjectParams
    words = "object {name}"
    menus = "Project ▸ Object Store ▸ Containers ▸ (the container) ▸ upload: File, File Name {name}"
    expects = "object {name} has the file's MD5 as its etag, and is read back whole"
    tells = "{name}: {headers[content-length]} bytes, etag and what was read back {md5}"

    def commands(self, context: Context, p: ObjectParams) -> list[Command]:
        box, file = self.container_and_file(context, p)
        return [_creation(p, box, file), *tagging("object", p.metadata, box, p.name)]

    def requests(self, context: Context, p: ObjectParams) -> list[Request]:
        box, file = self.container_and_file(context, p)
        return [_put(p, box, file, metadata_headers("object", p.metadata))]

    def find_all(self, context: Context, p: ObjectParams) -> Iterable[Thing]:
        box = self.container_that_is_there(context, p)
        headers = headers_of(context, box, p.name)
        if headers is None:
            return []
        body = md5_of(context.user.stream("object-store", box, p.name))
        return [{"name": p.name, "container": box, "etag": headers["etag"], "md5": body, "headers": headers}]

    def compare(self, context: Context, p: ObjectParams, thing: Thing) -> list[Difference]:
        wanted = md5_of(pieces_of(context.asset(p.source).path))
        differences = differing([("etag", wanted, thing["etag"]), ("MD5 of what was read back", wanted, thing["md5"])])
        return differences + metadata_differences("object", p.metadata, thing["headers"])

    def undo_data(self, context: Context, p: ObjectParams, thing: Thing) -> Thing:
        return {key: thing[key] for key in ("name", "container", "etag")}

    def remove(self, context: Context, thing: Thing) -> bool:
        headers = headers_of(context, thing["container"], thing["name"])
        # The learner may have put something else in its place: that is not ours.
        if headers is None or headers["etag"] != thing["etag"]:
            return False
        return context.user.delete("object-store", thing["container"], thing["name"])


def _creation(p: FileParams, box: str, file: Path) -> Command:
    return Command(("object", "create", "--name", p.name, box, str(file)))


def _put(p: FileParams, box: str, file: Path, extra: dict[str, Word]) -> Request:
    """Swift compares what it gets with the etag; on paper, where there is no file, a variable stands for it."""
    etag: Word = md5_of(pieces_of(file)) if file.exists() else Later("MD5")
    return Request("PUT", "object-store", (box, p.name), upload=Upload(file=file), extra={"ETag": etag, **extra})


class DeletionParams(FileParams):
    """An object that is put, and deleted again."""

    keeps: list[Annotated[Ref, Refers("object", "large-object")]] = Field(default=[])
    """Objects of that container that stay."""


class Deletion(FileKind[DeletionParams]):
    """An object comes and goes. What is left of it is that it is not there: nothing remembers a deleted object."""

    name = "deletion"
    params = DeletionParams
    leaves = False
    words = "object {name} put and deleted"
    menus = "Project ▸ Object Store ▸ Containers ▸ (the container) ▸ ({name}'s menu) Delete"
    expects = "object {name} is neither listed nor there"

    def commands(self, context: Context, p: DeletionParams) -> list[Command]:
        box, file = self.container_and_file(context, p)
        listing = Command(("object", "list", box))
        return [_creation(p, box, file), listing, Command(("object", "delete", box, p.name)), listing]

    def requests(self, context: Context, p: DeletionParams) -> list[Request]:
        box, file = self.container_and_file(context, p)
        listing = Request("GET", "object-store", (box,), query={"format": "json"})
        return [_put(p, box, file, {}), listing, Request("DELETE", "object-store", (box, p.name)), listing]

    def find_all(self, context: Context, p: DeletionParams) -> Iterable[Thing]:
        box = self.container_that_is_there(context, p)
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


def _listing(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


KINDS: list[Kind[Any]] = [Container(), Object(), Deletion()]
