"""`lab recover`: what a reboot takes from a DevStack cloud is put back, in the order in which it is needed."""

from __future__ import annotations

from stacklab.conditions.fixes.catalogue import AFTER_REBOOT, Catalogue
from stacklab.conditions.fixes.instances import Cloud
from stacklab.conditions.fixes.repair import Outcome, repair
from stacklab.deploy.deployment import Deployment
from stacklab.events import Emit


def recover(deployment: Deployment, emit: Emit, *, cloud: Cloud | None = None) -> list[Outcome]:
    """Check, apply and verify every repair; `fixes.repair.all_well` says what came of it, or raises.

    Only for a machine whose stack.sh has ended well (`stacked.require_stacked`): its caller sees to that.
    `cloud` opens the API as administrator, for the instances. On a machine where all is well nothing is changed. May be
    interrupted and repeated at any time. Raises MachineUnreachable and its kin.
    """
    fixes = Catalogue(permissive=deployment.permissive, cloud=cloud).these(AFTER_REBOOT)
    return repair(fixes, deployment, emit)
