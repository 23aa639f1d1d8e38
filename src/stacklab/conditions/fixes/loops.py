"""Cinder's volume groups on loop files."""

from __future__ import annotations

from stacklab.conditions.finding import Finding
from stacklab.conditions.fixes import systemd
from stacklab.conditions.fixes.fix import Action, Fix, command, probe
from stacklab.deploy.profile.model import Profile
from stacklab.machines.base import Machine

# Per file one line: `absent FILE`, `loose FILE`, or `attached FILE`.
WHERE = """
for file; do
  if [ ! -e "$file" ]; then echo "absent $file"
  elif [ -z "$(losetup -j "$file")" ]; then echo "loose $file"
  else echo "attached $file"
  fi
done
"""


class Loops(Fix):
    """Backing files attached to loop devices, their volume groups active, the iSCSI daemons up."""

    id = "loops"
    title = "Cinder's volumes are there"
    why = (
        "Cinder's volume groups lie in files that stack.sh attaches to loop devices. The attachment does not "
        "survive a reboot on older releases: the files are still there, but LVM finds no volume group, and c-vol "
        "reports itself down. The files are attached again, and the groups activated."
    )

    def look(self, machine: Machine, profile: Profile) -> Finding:
        places, groups, units = self._see(machine, profile)
        if not places:
            return Finding(
                "not_applicable", "this profile's volumes need no help, or this cloud has none on loop files"
            )
        loops = profile.recovery.loops
        wrong = [f"{loops[group]} is on no loop device" for group, place in places.items() if place == "loose"]
        wrong += [f"LVM has no volume group {group}" for group in places if group not in groups]
        wrong += [f"{systemd.plain(unit.name)} is {unit.said}" for unit in units if unit.failed]
        if wrong:
            return Finding("broken", "\n".join(wrong))
        return Finding("well", f"attached and known to LVM: {', '.join(places)}")

    def plan(self, machine: Machine, profile: Profile) -> list[Action]:
        places, _, units = self._see(machine, profile)
        loops = profile.recovery.loops
        # In the profile's order: DevStack's global_filter in lvm.conf names the loop devices of its first run.
        actions: list[Action] = [
            command("losetup", "-f", loops[group]) for group, place in places.items() if place == "loose"
        ]
        actions += [command("vgchange", "-ay", group) for group in places]
        actions += [command("systemctl", "restart", unit.name, seconds=systemd.RESTART_SECONDS) for unit in units]
        return actions

    def _see(self, machine: Machine, profile: Profile) -> tuple[dict[str, str], set[str], list[systemd.Unit]]:
        """`loose` or `attached` by volume group, for those whose file exists; LVM's groups; the storage units that are there.

        Raises CommandFailed.
        """
        loops = profile.recovery.loops
        if not loops:
            return {}, set(), []
        lines = [line.split(" ", 1) for line in machine.script(WHERE, *loops.values(), user="root").lines]
        where = {file: place for place, file in lines}
        places = {group: where[file] for group, file in loops.items() if where[file] != "absent"}
        if not places:
            return {}, set(), []
        done = probe(machine, "vgs", "--noheadings", "-o", "vg_name")
        units = systemd.look(machine, [systemd.service(name) for name in profile.units.storage])
        return places, {line.strip() for line in done.lines}, [unit for unit in units if unit.there]
