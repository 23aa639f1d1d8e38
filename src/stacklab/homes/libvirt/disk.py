"""The VM's disk is larger than the box's: its last partition and the root file system on it are grown to the whole of it.

Vagrant makes the disk larger and leaves what is on it alone. Only VMs of ours are touched; nobody else's partitions are.
"""

from __future__ import annotations

from dataclasses import dataclass

from stacklab.errors import CommandFailed
from stacklab.machines.base import Machine
from stacklab.stages import Progress

SECTOR = 512
WORTH_IT = 2**30
"""Bytes; partitions are aligned, so a little is always left."""

_LOOK = r"""
root=$(findmnt -nvo SOURCE /) type=$(findmnt -nvo FSTYPE /)
name=$(basename "$(readlink -f "$root")")
part=$(cat "/sys/class/block/$name/partition" 2>/dev/null) || { echo "- $root"; exit 0; }
disk=$(basename "$(dirname "$(readlink -f "/sys/class/block/$name")")")
start=$(cat "/sys/class/block/$name/start") size=$(cat "/sys/class/block/$name/size")
for other in /sys/class/block/"$disk"/"$disk"*/start; do
    [ "$(cat "$other")" -le "$start" ] || { echo "- $(basename "$(dirname "$other")") behind $root"; exit 0; }
done
echo "$root $type /dev/$disk $part $(($(cat "/sys/class/block/$disk/size") - start - size))"
"""

# growpart (cloud-utils) is what images bring along for this; sfdisk knows "-N" and ", +" since util-linux 2.26 (2015).
_GROW = r"""
root=$1 type=$2 disk=$3 part=$4
if command -v growpart >/dev/null; then
    growpart "$disk" "$part"
else
    printf ', +\n' | sfdisk --quiet --no-reread --force -N "$part" "$disk"
    partx --update --nr "$part" "$disk"
fi
case $type in
xfs) xfs_growfs / ;;
*) resize2fs "$root" ;;
esac
"""


@dataclass(frozen=True)
class Room:
    """What lies behind the root file system's partition. `why_not`: why it is not used; empty if it can be."""

    root: str = ""
    type: str = ""
    disk: str = ""
    part: str = ""
    unused: int = 0
    why_not: str = ""


def room(machine: Machine) -> Room:
    """Look at the machine."""
    words = machine.script(_LOOK, user="root").out.split()
    if words[:1] == ["-"]:
        return Room(why_not=f"the root file system stays as it is: {' '.join(words[1:])}")
    root, kind, disk, part, sectors = words
    if not kind.startswith("ext") and kind != "xfs":
        return Room(why_not=f"the root file system stays as it is: {kind} cannot be grown by lab")
    return Room(root, kind, disk, part, int(sectors) * SECTOR)


def already(machine: Machine) -> str | None:
    """Why there is nothing to grow."""
    space = room(machine)
    if space.why_not:
        return space.why_not
    return f"{space.root} fills {space.disk}" if space.unused < WORTH_IT else None


def grow(machine: Machine, progress: Progress) -> str:
    """Grow it while it is in use. A VM that cannot is used as it is, and that is said; the preparation asks for room."""
    space = room(machine)
    progress(f"{space.root} gets {space.unused / 2**30:.0f} GiB more")
    try:
        machine.script(_GROW, space.root, space.type, space.disk, space.part, user="root", seconds=300)
    except CommandFailed as error:
        return f"not grown: {error.message}"
    return f"{space.root} is {space.unused / 2**30:.0f} GiB larger"
