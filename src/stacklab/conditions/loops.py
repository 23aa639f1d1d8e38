"""Cinder's volume groups on loop files."""

from __future__ import annotations

from collections.abc import Iterator

from stacklab.conditions.condition import Action, Finding
from stacklab.conditions.machine import MachineRepair
from stacklab.conditions.systemd import RESTART_SECONDS, Unit, service

# Per file one line: `absent FILE`, `loose FILE`, or `attached FILE`.
WHERE = """
for file; do
  if [ ! -e "$file" ]; then echo "absent $file"
  elif [ -z "$(losetup -j "$file")" ]; then echo "loose $file"
  else echo "attached $file"
  fi
done
"""


class Loops(MachineRepair):
    """Backing files attached to loop devices, their volume groups active, the iSCSI daemons up."""

    id = "loops"

    def see(self) -> Finding:
        places, units = self._places()
        if not places:
            why = "this profile's volumes need no help, or this cloud has none on loop files"
            return Finding("not_applicable", why)
        groups = {line.strip() for line in self.probe("vgs", "--noheadings", "-o", "vg_name").lines}
        loops = self.profile.recovery.loops
        wrong = [f"{loops[group]} is on no loop device" for group, place in places.items() if place == "loose"]
        wrong += [f"LVM has no volume group {group}" for group in places if group not in groups]
        wrong += [f"{unit.plain} is {unit.said}" for unit in units if unit.failed]
        if wrong:
            return Finding("bad", "\n".join(wrong))
        return Finding("good", f"attached and known to LVM: {', '.join(places)}")

    def repairing(self) -> Iterator[Action]:
        places, units = self._places()
        # In the profile's order: DevStack's global_filter in lvm.conf names the loop devices of its first run.
        for group, place in places.items():
            if place == "loose":
                yield self.command("losetup", "-f", self.profile.recovery.loops[group])
        for group in places:
            yield self.command("vgchange", "-ay", group)
        for unit in units:
            yield self.command("systemctl", "restart", unit.name, seconds=RESTART_SECONDS)

    def _places(self) -> tuple[dict[str, str], list[Unit]]:
        """`loose` or `attached` by volume group, for those whose file exists; the storage units that are there."""
        loops = self.profile.recovery.loops
        lines = self.machine.script(WHERE, *loops.values(), user="root").lines if loops else []
        where = {file: place for place, file in (line.split(" ", 1) for line in lines)}
        places = {group: where[file] for group, file in loops.items() if where[file] != "absent"}
        units = self.units(*map(service, self.profile.units.storage)) if places else []
        return places, [unit for unit in units if unit.there]
