"""All fixes, by id, in the order in which a machine is brought back after a reboot."""

from __future__ import annotations

from stacklab.conditions.fixes.fix import Fix
from stacklab.conditions.fixes.instances import Cloud, Instances
from stacklab.conditions.fixes.loops import Loops
from stacklab.conditions.fixes.network import Bridge, Forwarding, Masquerade
from stacklab.conditions.fixes.selinux import SelinuxFix
from stacklab.conditions.fixes.services import APACHE, DATABASE, MEMCACHED_SERVICE, QUEUE, SWITCH, Front
from stacklab.conditions.fixes.units import FAILED_UNITS, NETWORK_AGENT, STACK_UNITS
from stacklab.errors import UnknownName
from stacklab.suggest import closest

AFTER_STACKING = ("selinux", "apache", "memcached", "network-agent", "units")
"""What stack.sh leaves undone, or done for this boot only."""

AFTER_REBOOT = (
    *("selinux", "apache", "memcached", "database", "queue", "switch", "loops", "bridge", "forwarding", "masquerade"),
    *("stack-units", "front", "instances"),
)
"""What a reboot loses, in the order in which one needs the other. `stack-units` covers `network-agent` and `units`."""


class Catalogue:
    """The fixes for one machine. `permissive`: how SELinux shall be dealt with. `cloud`: how `instances` reaches the API."""

    def __init__(self, *, permissive: bool = True, cloud: Cloud | None = None) -> None:
        fixes: list[Fix] = [
            *(SelinuxFix(permissive=permissive), APACHE, MEMCACHED_SERVICE, DATABASE, QUEUE, SWITCH),
            *(Loops(), Bridge(), Forwarding(), Masquerade(), NETWORK_AGENT, FAILED_UNITS, STACK_UNITS, Front()),
            Instances(cloud),
        ]
        self._by_id = {fix.id: fix for fix in fixes}

    def all(self) -> list[Fix]:
        """Every fix."""
        return list(self._by_id.values())

    def __getitem__(self, id_: str) -> Fix:
        """The fix of this id. Raises UnknownName."""
        if id_ not in self._by_id:
            raise UnknownName(f"there is no fix '{id_}'", advice=closest(id_, self._by_id, "lab fixes list"))
        return self._by_id[id_]

    def these(self, ids: tuple[str, ...]) -> list[Fix]:
        """The named ones, in the catalogue's order, each once. Raises UnknownName."""
        wanted = {self[id_].id for id_ in ids}
        return [fix for fix in self._by_id.values() if fix.id in wanted]
