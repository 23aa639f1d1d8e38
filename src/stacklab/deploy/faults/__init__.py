"""What can be broken on purpose on a machine that DevStack made a cloud on.

A fault is a fix backwards on the same noun: where there is a fix, a fault looks and mends with the fix's own code
(deploy/fixes). Faults act as root on the lab's machine only, and through its cloud's API as administrator.
"""

from __future__ import annotations

from stacklab.deploy.faults.clock import Clock
from stacklab.deploy.faults.fault import Ground
from stacklab.deploy.faults.network import Network
from stacklab.deploy.faults.password import Password
from stacklab.deploy.faults.selinux import SelinuxAgent
from stacklab.deploy.faults.services import Compute, Web
from stacklab.deploy.faults.store import FullStore
from stacklab.faults.fault import Fault

__all__ = ["Ground", "faults"]


def faults(ground: Ground) -> dict[str, Fault]:
    """Every fault of a DevStack machine by its id. Asks nobody."""
    every: list[Fault] = [
        *(Web(ground), SelinuxAgent(ground), Network(ground), FullStore(ground), Password(ground), Clock(ground)),
        Compute(ground),
    ]
    return {fault.id: fault for fault in every}
