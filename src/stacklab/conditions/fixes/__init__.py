"""What keeps DevStack's machine from working after stack.sh or a reboot: found, explained, repaired, verified."""

from __future__ import annotations

from stacklab.conditions.fixes.catalogue import AFTER_STACKING, Catalogue
from stacklab.conditions.fixes.repair import all_well, repair
from stacklab.deploy.deployment import Deployment
from stacklab.events import Event, StageEnded, StageMoved
from stacklab.stages import Progress, Stage

__all__ = ["stages"]

USUAL_SECONDS = 20


def stages(deployment: Deployment) -> list[Stage]:
    """The stage `fixes` of `lab up`: what stack.sh leaves undone, or done until the next reboot only."""
    fixes = Catalogue(permissive=deployment.permissive).these(AFTER_STACKING)

    def already() -> str | None:
        findings = [fix.check(deployment.machine, deployment.profile) for fix in fixes]
        return "; ".join(fix.id for fix in fixes) + ": well" if all(one.fine for one in findings) else None

    def run(progress: Progress) -> str:
        def emit(event: Event) -> None:
            if isinstance(event, StageMoved):
                progress(event.detail)
            elif isinstance(event, StageEnded) and event.outcome == "done":
                progress(f"{event.title}: {event.detail}")

        return all_well(repair(fixes, deployment, emit))

    return [Stage("fixes", "what stack.sh leaves undone", already, run, USUAL_SECONDS)]
