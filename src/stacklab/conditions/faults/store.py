"""Glance's store is full: a small file system lies over it, and its space is used up.

The store's own disk is not filled. An overlay shows what was in the store, so that the images stay readable, and writes
to a file system of STORE_MIB in memory, which a file fills.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from stacklab.conditions.faults.fault import MachineFault
from stacklab.conditions.faults.settings import IniEntry
from stacklab.conditions.finding import Finding
from stacklab.conditions.fixes import systemd
from stacklab.conditions.fixes.fix import Action, Script
from stacklab.conditions.fixes.systemd import stack_unit
from stacklab.conditions.upload import upload_refused
from stacklab.deploy.profile.model import Entry
from stacklab.errors import CommandFailed

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

SMALL = (
    LIB
    + r"""
# a small file system for what is written, with the store's owner: $1 store, $2 where, $3 MiB
mkdir -p "$2"; chmod 700 "${2%/*}"
over "$SOURCE" "$2" || mount -t tmpfs -o "size=$3m,mode=700" "$SOURCE" "$2"
mkdir -p "$2/upper" "$2/work"
chown --reference="$1" "$2/upper"; chmod --reference="$1" "$2/upper"
"""
)

FILL = (
    LIB
    + r"""
# use its space up: $1 store, $2 where, $3 name
to=$2/upper; ! over "$SOURCE" "$1" || to=$1
[ "$(df --output=avail "$2" | tail -1)" -eq 0 ] || dd if=/dev/zero of="$to/$3" bs=4k status=none 2>/dev/null || :
[ "$(df --output=avail "$2" | tail -1)" -eq 0 ]
"""
)

COVER = (
    LIB
    + r"""
# the overlay, in one step: $1 store, $2 where
over "$SOURCE" "$1" || mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$SOURCE" "$1"
"""
)

UNCOVER = (
    LIB
    + r"""
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
)


class FullStore(MachineFault):
    """See the module. After a reboot of the machine the small file system is gone by itself."""

    id = "glance-full"
    title = "Glance's store is full"

    def lacks(self) -> str | None:
        if self.breakable.store is None:
            return f"the profile {self.profile.name} does not say where Glance's store is"
        (unit,) = systemd.look(self.machine, [stack_unit(self._entry.unit)])
        if not unit.there:
            return f"the machine has no unit {unit.name}"
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
        said = f"{store} has room for {room} MiB"
        if trouble := upload_refused(self.ground.cloud(), PROBE_BYTES):
            return Finding("broken", f"{said}, and Glance takes no image: {trouble}")
        if room < LEAST_MIB:
            return Finding("broken", f"{said}: Glance takes a very small image, but no real one (df -h {store})")
        return Finding("well", f"{said}, and Glance takes an image")

    def breaking(self) -> Sequence[Action]:
        store, where = self._store(), self._where
        return [
            _shell(f"mount a file system of {STORE_MIB} MiB, in memory", SMALL, store, where, str(STORE_MIB)),
            _shell("fill it", FILL, store, where, FILLER),
            _shell(f"lay it over {store}", COVER, store, where),
        ]

    def mending(self) -> Sequence[Action]:
        mounted = SOURCE.encode() in (self.machine.read("/proc/mounts") or b"").split()
        if not mounted:
            return ()
        return [_shell(f"take what lies over {self._covered()} away", UNCOVER, self._covered(), self._where, FILLER)]

    @property
    def _entry(self) -> Entry:
        if self.breakable.store is None:
            raise CommandFailed(f"the profile {self.profile.name} does not say where Glance's store is")
        return self.breakable.store

    @property
    def _where(self) -> str:
        return f"{self.kept.directory}/disk"

    def _store(self) -> str:
        """Where Glance writes images now."""
        value = IniEntry(self._entry).read(self.machine)
        if not value:
            raise CommandFailed(f"there is no {IniEntry(self._entry).name} on {self.machine.name}")
        return value.rstrip("/")

    def _covered(self) -> str:
        """What our overlay lies over; the store, where that is only about to happen."""
        for line in (self.machine.read("/proc/mounts") or b"").decode().splitlines():
            source, target, kind, *_ = line.split()
            if source == SOURCE and kind == "overlay":
                return target
        return self._store()


def _shell(what: str, script: str, *arguments: str) -> Action:
    """A script whose first line says what it is for."""
    words = " ".join(map(shlex.quote, arguments))
    return Script(f"# {what}\nSOURCE={SOURCE}\nset -- {words}\n{script}")
