"""A small image that is uploaded and removed again, to see whether Glance takes one: the one proof that its store has room.

Several looks may be at it at once (a class grades itself on one cloud), so each has an image of its own. One that a killed
look left is removed by a later look, which knows it by its age; by Glance's own clock, as no other is its own.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from stacklab.cloud.connection import Connection, answered, said_in
from stacklab.errors import CloudRefused

NAME = "lab-probe-of-the-store"
BODY = {"name": NAME, "disk_format": "raw", "container_format": "bare", "visibility": "private"}

ABANDONED = timedelta(minutes=10)
"""No look takes as long; in both directions, for a machine's clock may have been wrong when an image was made."""


def upload_refused(cloud: Connection, size: int) -> str | None:
    """What Glance says to an image of `size` bytes, which is deleted again; None if it takes it.

    Raises CloudRefused, CloudUnreachable when that cannot be told.
    """
    image = cloud.post("image", "images", body=BODY)
    try:
        _remove_abandoned(cloud, image)
        with answered():
            answer = cloud.sdk.session.put(
                f"{cloud.endpoint('image')}/images/{image['id']}/file",
                data=bytes(size),
                headers={"Content-Type": "application/octet-stream"},
                raise_exc=False,
            )
        return said_in(answer) if answer.status_code >= 400 else None
    finally:
        cloud.delete("image", "images", image["id"])


def _remove_abandoned(cloud: Connection, own: dict[str, Any]) -> None:
    now = _made(own)
    for other in cloud.get("image", "images", name=NAME)["images"]:
        if other["id"] != own["id"] and abs(now - _made(other)) > ABANDONED:
            with suppress(CloudRefused):  # another look was quicker
                cloud.delete("image", "images", other["id"])


def _made(image: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(image["created_at"])
