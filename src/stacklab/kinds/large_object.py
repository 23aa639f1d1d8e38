"""Swift: an object larger than Swift takes at once, stored in segments with a manifest that names them (SLO)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from stacklab.errors import CloudRefused, DownloadFailed
from stacklab.kinds.context import Context, Thing
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.narration import Command, Later, Request, Upload, Word
from stacklab.kinds.objects import FileKind, FileParams, headers_of
from stacklab.kinds.stream import md5_of, pieces_of

MIB = 1 << 20


def manifest_of(path: Path, container: str, name: str, mib: int) -> list[dict[str, Any]]:
    """A file as segments of `mib` MiB, as a manifest names them: docs.openstack.org/swift, "static large objects".

    Raises DownloadFailed if it cannot be read.
    """
    try:
        size, step = path.stat().st_size, mib * MIB
    except OSError as error:
        raise DownloadFailed(f"cannot read {path}: {error.strerror}") from error
    return [
        {
            "path": f"{container}/{segment_name(name, number)}",
            "etag": md5_of(pieces_of(path, start, step)),
            "size_bytes": min(step, size - start),
        }
        for number, start in enumerate(range(0, max(size, 1), step))
    ]


def segment_name(name: str, number: int) -> str:
    """Segments lie beside the object, below its name; they come in the order of their names."""
    return f"{name}.segments/{number:04}"


class LargeObjectParams(FileParams):
    """A file that is stored in segments."""

    segment: Annotated[int, Field(ge=1, le=5120)]  # Swift's own limit for one object is 5 GiB
    """How large a segment is, in MiB; Swift takes 5 GiB at the most."""


class LargeObject(FileKind[LargeObjectParams]):
    """A file in segments, and a manifest that makes one object of them."""

    name = "large-object"
    params = LargeObjectParams
    words = "object {name} in segments of {segment} MiB"
    menus = "(not in Horizon: it uploads a file in one piece)"
    expects = "object {name} consists of segments with the MD5 of their pieces, and is read back whole"

    def commands(self, context: Context, p: LargeObjectParams) -> list[Command]:
        # The client can put the segments, but has no command for the manifest.
        return []

    def requests(self, context: Context, p: LargeObjectParams) -> list[Request]:
        box, path = self.container_and_file(context, p)
        on_paper = [{"path": f"{box}/{segment_name(p.name, 0)}", "etag": Later("MD5")}]
        entries = manifest_of(path, box, p.name, p.segment) if path.exists() else on_paper
        sent = [self._put_segment(p, path, box, number, entry["etag"]) for number, entry in enumerate(entries)]
        return [*sent, Request("PUT", "object-store", (box, p.name), entries, query={"multipart-manifest": "put"})]

    def _put_segment(self, p: LargeObjectParams, path: Path, box: str, number: int, etag: Word) -> Request:
        cut = ("dd", f"if={path}", f"bs={p.segment}M", f"skip={number}", "count=1", "status=none")
        where = (box, segment_name(p.name, number))
        return Request("PUT", "object-store", where, upload=Upload(pipeline=(cut,)), extra={"ETag": etag})

    def find_all(self, context: Context, p: LargeObjectParams) -> Iterable[Thing]:
        box, path = self.container_that_is_there(context, p), context.asset(p.source).path
        names = [entry["path"].partition("/")[2] for entry in manifest_of(path, box, p.name, p.segment)]
        headers = headers_of(context, box, p.name)
        if headers is None:
            # Cut off between segments and manifest: what is there is half of it.
            return [_half(p, box, names)] if any(headers_of(context, box, name) for name in names) else []
        manifest = _manifest(context, box, p.name) if "x-static-large-object" in headers else []
        return [
            {
                **_half(p, box, names),
                "etag": headers["etag"],
                "size": int(headers["content-length"]),
                "segmented": bool(manifest) or "x-object-manifest" in headers,
                "manifest": manifest,
                "md5": md5_of(context.user.stream("object-store", box, p.name)),
            }
        ]

    def compare(self, context: Context, p: LargeObjectParams, thing: Thing) -> list[Difference]:
        path = context.asset(p.source).path
        if thing["etag"] is None:
            return [Difference("manifest", f"{p.name} is there", "only segments are")]
        differences = differing([("in segments", True, thing["segmented"])])
        start = 0
        for part in thing["manifest"][:-1]:
            differences += differing([(f"MiB of segment {part['name']}", p.segment, part["bytes"] / MIB)])
        for part in thing["manifest"]:
            wanted = md5_of(pieces_of(path, start, part["bytes"]))
            differences += differing([(f"etag of segment {part['name']}", wanted, part["hash"])])
            start += part["bytes"]
        whole = md5_of(pieces_of(path))
        return differences + differing(
            [("size", path.stat().st_size, thing["size"]), ("MD5 of what was read back", whole, thing["md5"])]
        )

    def undo_data(self, context: Context, p: LargeObjectParams, thing: Thing) -> Thing:
        return {key: thing[key] for key in ("name", "container", "etag", "segments")}

    def remove(self, context: Context, thing: Thing) -> bool:
        box = thing["container"]
        headers = headers_of(context, box, thing["name"])
        if headers is not None and thing["etag"] not in (None, headers["etag"]):
            return False  # the learner has put something else in its place
        # The manifest first: without it nobody reads an object that lacks a segment. One that is not there is no trouble.
        gone = [context.user.delete("object-store", box, name) for name in (thing["name"], *thing["segments"])]
        return any(gone)

    def shown(self, thing: Thing) -> str:
        count = len(thing["manifest"]) or "several"
        return f"{thing['name']}: {thing['size']} bytes in {count} segments, read back whole with MD5 {thing['md5']}"


def _half(p: LargeObjectParams, box: str, names: list[str]) -> Thing:
    return {"name": p.name, "container": box, "etag": None, "segments": names}


def _manifest(context: Context, box: str, name: str) -> list[dict[str, Any]]:
    """The segments that a manifest names, in order. Raises CloudRefused."""
    query = {"multipart-manifest": "get", "format": "json"}
    answer = context.user.fetch("GET", context.user.address("object-store", box, name), query=query)
    segments = answer.json()
    if not isinstance(segments, list):
        raise CloudRefused(f"the manifest of {name} is no list of segments")
    return segments


KINDS: list[Kind[Any]] = [LargeObject()]
