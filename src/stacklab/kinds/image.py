"""Glance: images, from a file, a URL or a compressed stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import AssetRef, Declaration, shouted
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.named import NamedKind, NamedParams
from stacklab.kinds.narration import Command, Later, Request, Upload
from stacklab.kinds.stream import AT_MOST, FETCH, MOST_MIB, expanded_pieces, md5_of, pieces_of

UNPACK = {"gzip": ("gunzip", "-c"), "xz": ("xz", "-dc")}


class FileSource(Declaration):
    """`{file: PATH}`"""

    file: str
    """The path of a file on the machine that lab runs on."""


class UrlSource(Declaration):
    """`{url: URL}`"""

    url: Annotated[str, StringConstraints(pattern=r"^https?://")]
    """An http or https address; never one of this machine's own services."""


class ImageParams(NamedParams):
    """An image, and where its bytes come from."""

    source: AssetRef | FileSource | UrlSource
    """An asset of the lab, a file, or a URL."""
    unpack: Literal["gzip", "xz"] | None = None
    """What it is unpacked with on its way."""
    disk_format: Literal["raw", "qcow2", "iso", "vmdk", "vdi", "vhd"] | None = None
    """The format of the bytes; without it that of the asset, else qcow2."""
    properties: dict[str, str] = {}
    """What Nova is to know of it."""


class Image(NamedKind[ImageParams]):
    """An image: a disk that instances start from."""

    name = "image"
    params = ImageParams
    menus = "Project ▸ Compute ▸ Images ▸ Create Image: Image Name {name}, File, Format"
    tells = "{name} is {status}, {disk_format}"

    def query(self, context: Context, name: str) -> dict[str, str]:
        return {"name": name, "owner": context.project_id()}

    def _format(self, context: Context, p: ImageParams) -> str:
        given = p.disk_format
        if given is None and isinstance(p.source, AssetRef):
            given = context.asset(p.source).attributes["disk_format"]  # type: ignore[assignment]
        return given or "qcow2"

    def _upload(self, context: Context, p: ImageParams) -> Upload:
        if isinstance(p.source, UrlSource):
            unpack = (UNPACK[p.unpack],) if p.unpack else ()
            return Upload(pipeline=((*FETCH, p.source.url), *unpack, AT_MOST))
        path = context.asset(p.source).path if isinstance(p.source, AssetRef) else Path(p.source.file).expanduser()
        return Upload(pipeline=((*UNPACK[p.unpack], str(path)),)) if p.unpack else Upload(file=path)

    def commands(self, context: Context, p: ImageParams) -> list[Command]:
        upload = self._upload(context, p)
        words = (
            *("image", "create", "--disk-format", self._format(context, p), "--container-format", "bare"),
            *(word for key, value in p.properties.items() for word in ("--property", f"{key}={value}")),
            *(("--file", str(upload.file)) if upload.file else ()),
        )
        return [Command((*words, p.name), feed=upload.pipeline)]

    def requests(self, context: Context, p: ImageParams) -> list[Request]:
        image = Later(shouted(p.name, "id"))
        body = {"name": p.name, "disk_format": self._format(context, p), "container_format": "bare", **p.properties}
        return [
            Request("POST", "image", ("images",), body, saves={image.name: ("id",)}),
            Request("PUT", "image", ("images", image, "file"), upload=self._upload(context, p)),
        ]

    def compare(self, context: Context, p: ImageParams, thing: Thing) -> list[Difference]:
        properties = [(key, value, thing.get(key, "none")) for key, value in p.properties.items()]
        # What came through a pipe may have been cut off, and is no less active for that.
        content, checksum = "content", None
        if isinstance(p.source, AssetRef) and thing.get("checksum"):
            path = context.asset(p.source).path
            content = f"MD5 of {'the expanded image' if p.unpack else path}"
            checksum = md5_of(expanded_pieces(path, p.unpack) if p.unpack else pieces_of(path))
        # A file's or URL's format is whatever it is; an asset's, and one that the session names, is graded.
        form = self._format(context, p) if isinstance(p.source, AssetRef) else p.disk_format
        return differing(
            [
                ("status", "active", thing["status"]),
                ("format", form, thing["disk_format"]),
                *properties,
                (content, checksum, thing.get("checksum")),
            ]
        )

    def runs(self, p: ImageParams) -> str:
        unpacked = f", unpacked by {' '.join(UNPACK[p.unpack])}," if p.unpack else ""
        if isinstance(p.source, UrlSource):
            return f"# fetches this{unpacked} and uploads it to the cloud, {MOST_MIB} MiB at the most:\n{p.source.url}"
        if isinstance(p.source, AssetRef):
            return ""
        return (
            f"# reads this file{unpacked} and uploads it to the cloud:\n{Path(p.source.file).expanduser().absolute()}"
        )

    def named(self, context: Context, name: str) -> Thing | None:
        things = self.by_name(context, name) or self.listed(context, name, {"name": name, "visibility": "public"})
        return next(iter(things), None)


KINDS: list[Kind[Any]] = [Image()]
