"""What can be broken on purpose on a machine that DevStack made a cloud on.

A fault is a fix backwards on the same noun: where there is a fix, a fault looks and mends with the fix's own code
(deploy/fixes). Faults act as root on the lab's machine only, and through its cloud's API as administrator.
"""

from __future__ import annotations

from stacklab.conditions.fault import Fault
from stacklab.conditions.faults.clock import Clock
from stacklab.conditions.faults.fault import Ground
from stacklab.conditions.faults.network import Network
from stacklab.conditions.faults.password import Password
from stacklab.conditions.faults.selinux import SelinuxAgent
from stacklab.conditions.faults.services import Compute, Web
from stacklab.conditions.faults.store import FullStore

__all__ = ["Ground", "faults"]


def faults(ground: Ground) -> dict[str, Fault]:
    """Every fault of a DevStack machine by its id. Asks nobody."""
    every: list[Fault] = [
        *(Web(ground), SelinuxAgent(ground), Network(ground), FullStore(ground), Password(ground), Clock(ground)),
        Compute(ground),
    ]
    return {fault.id: fault for fault in every}
