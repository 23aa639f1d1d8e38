"""Glance's store is full: a small file system lies over it, and its space is used up.

The store's own disk is not filled. An overlay shows what was in the store, so that the images stay readable, and writes
to a file system of STORE_MIB in memory, which a file fills.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from stacklab.cloud.connection import Connection, answered, said_in
from stacklab.conditions.condition import Action, Finding
from stacklab.conditions.machine import MachineFault
from stacklab.conditions.wrongvalue import IniValue
from stacklab.deploy.profile.model import FileEntry
from stacklab.errors import CloudRefused, CommandFailed

STORE_MIB = 8
"""Too small for any image, so that making room in it is no repair."""

LEAST_MIB = 64
"""The room that a store must have: the smallest of cloud images is of this order."""

PROBE_BYTES = 1 << 20
FILLER = "upload-that-was-never-finished"
SOURCE = "lab-small-store"
"""What the mount calls itself in /proc/mounts."""

LIB = r"""
over() { awk -v s="$1" -v d="$2" '$1 == s && $2 == d { n++ } END { exit !n }' /proc/mounts; }
"""

SMALL = r"""
# a small file system for what is written, with the store's owner: $1 store, $2 where, $3 MiB
mkdir -p "$2"; chmod 700 "${2%/*}"
over "$SOURCE" "$2" || mount -t tmpfs -o "size=$3m,mode=700" "$SOURCE" "$2"
mkdir -p "$2/upper" "$2/work"
chown --reference="$1" "$2/upper"; chmod --reference="$1" "$2/upper"
"""

FILL = r"""
# use its space up: $1 store, $2 where, $3 name
to=$2/upper; ! over "$SOURCE" "$1" || to=$1
[ "$(df --output=avail "$2" | tail -1)" -eq 0 ] || dd if=/dev/zero of="$to/$3" bs=4k status=none 2>/dev/null || :
[ "$(df --output=avail "$2" | tail -1)" -eq 0 ]
"""

COVER = r"""
# the overlay, in one step: $1 store, $2 where
over "$SOURCE" "$1" || mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$SOURCE" "$1"
"""

UNCOVER = r"""
# as it was; what was written or deleted meanwhile is carried over: $1 store, $2 where, $3 name of the filler
while over "$SOURCE" "$1"; do umount "$1" 2>/dev/null || umount -l "$1"; done
if over "$SOURCE" "$2"; then
  find "$2/upper" -mindepth 1 -maxdepth 1 | while read -r path; do
    name=${path##*/}
    if [ "$name" = "$3" ]; then :
    elif [ -c "$path" ]; then rm -f "$1/$name"  # overlayfs' mark of a deleted file
    elif [ -f "$path" ]; then cp -p "$path" "$1/.$name.stacklab"; mv -f "$1/.$name.stacklab" "$1/$name"; fi
  done
  while over "$SOURCE" "$2"; do umount "$2" 2>/dev/null || umount -l "$2"; done
fi
"""


class StoreFull(MachineFault):
    """See the module. After a reboot of the machine the small file system is gone by itself."""

    id = "glance-full"
    title = "Glance's store is full"

    def lacks(self) -> str | None:
        if self.breakable.store is None:
            return f"the profile {self.profile.name} does not say where Glance's store is"
        if why := self.lacks_unit(self._entry.unit):
            return why
        store = self._store()
        if self.machine.run("test", "-d", store, user="root", check=False).status != 0:
            return f"Glance's store {store} is no directory of this machine"
        overlay = "grep -qw overlay /proc/filesystems || modprobe -q overlay"
        if not self.machine.script(overlay, user="root", check=False).ok:
            return "the machine's kernel has no overlay file system"
        return None

    def see(self) -> Finding:
        store = self._store()
        room = int(self.machine.run("df", "--block-size=1M", "--output=avail", store, user="root").lines[-1])
        evidence = f"{store} has room for {room} MiB"
        if trouble := upload_refused(self.target.cloud(), PROBE_BYTES):
            return Finding("bad", f"{evidence}, and Glance takes no image: {trouble}")
        if room < LEAST_MIB:
            return Finding("bad", f"{evidence}: Glance takes a very small image, but no real one (df -h {store})")
        return Finding("good", f"{evidence}, and Glance takes an image")

    def breaking(self) -> Iterator[Action]:
        store, where = self._store(), self._where
        yield self._shell(f"mount a file system of {STORE_MIB} MiB, in memory", SMALL, store, where, str(STORE_MIB))
        yield self._shell("fill it", FILL, store, where, FILLER)
        yield self._shell(f"lay it over {store}", COVER, store, where)

    def repairing(self) -> Iterator[Action]:
        if SOURCE.encode() in (self.machine.read("/proc/mounts") or b"").split():
            covered = self._covered()
            yield self._shell(f"take what lies over {covered} away", UNCOVER, covered, self._where, FILLER)

    def _shell(self, what: str, script: str, *arguments: str) -> Action:
        """A script whose first line says what it is for."""
        words = " ".join(map(shlex.quote, arguments))
        return self.script(f"# {what}\nSOURCE={SOURCE}\nset -- {words}\n{LIB}{script}")

    @property
    def _entry(self) -> FileEntry:
        if self.breakable.store is None:
            raise CommandFailed(f"the profile {self.profile.name} does not say where Glance's store is")
        return self.breakable.store

    @property
    def _where(self) -> str:
        return f"{self.kept.directory}/disk"

    def _store(self) -> str:
        """Where Glance writes images now."""
        place = IniValue(self.machine, self._entry.file, self._entry.section, self._entry.key)
        store = place.read()
        if not store:
            raise CommandFailed(f"there is no {place.name} on {self.machine.name}")
        return store.rstrip("/")

    def _covered(self) -> str:
        """What our overlay lies over; the store, where that is only about to happen."""
        for line in (self.machine.read("/proc/mounts") or b"").decode().splitlines():
            source, target, kind, *_ = line.split()
            if source == SOURCE and kind == "overlay":
                return target
        return self._store()


# --- an upload, to see whether Glance takes one: the one proof that its store has room ------------------------------
#
# Several looks may be at it at once (a class grades itself on one cloud), so each has an image of its own. One that a killed
# look left is removed by a later look, which knows it by its age; by Glance's own clock, as no other is its own.

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
