"""The stage that stacks: what has to run (unstack.sh, stack.sh, or nothing but following), and how it ended."""

from __future__ import annotations

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.stack.detached import Program, StackRun, called, devstack_units, start, state, verdict
from stacklab.deploy.stack.following import judge, watch
from stacklab.durations import seconds as spoken
from stacklab.errors import MachineInUse, NotServed, StackFailed
from stacklab.stages import Progress, Stage

__all__ = ["stages", "start", "state"]


def stages(deployment: Deployment) -> list[Stage]:
    """stack.sh, or packstack, run to its end; an earlier run is taken up.

    Where DevStack cannot build on what a run left, that is cleared away first; PackStack can.
    """
    return [
        Stage(
            "stack",
            f"{called(deployment.profile.program)}: OpenStack {deployment.profile.release}",
            lambda: _already(deployment),
            lambda progress: _stack(deployment, progress),
            deployment.profile.usual_minutes * 60,
        )
    ]


def _already(deployment: Deployment) -> str | None:
    program = deployment.profile.program
    now = state(deployment.machine, program)
    if verdict(now, state(deployment.machine, "unstack")):
        return None
    _require_same(deployment, now)
    return f"{called(program)} ended well {spoken(now.ago)} ago"


def _require_same(deployment: Deployment, now: StackRun) -> None:
    """Raises NotServed if it was stacked for something else: stacking anew would take away what the learner has there."""
    compared = [
        ("profile", now.profile, deployment.profile.name),
        ("services", _names(now.services), _names(deployment.services)),
        ("address", now.host_ip, deployment.host_ip),
    ]
    differing = [f"{name} {was}, now {asked} is asked for" for name, was, asked in compared if was != asked]
    if differing:
        raise NotServed(
            f"{deployment.machine.name} was stacked with {'; '.join(differing)}",
            advice="lab destroy, then lab up, builds it anew; or ask for what is there",
        )


def _names(services: tuple[str, ...]) -> str:
    return ",".join(sorted(services)) or "(none)"


def _stack(deployment: Deployment, progress: Progress) -> str:
    machine, program = deployment.machine, deployment.profile.program

    def run(program: Program) -> str:
        """Start it, or take up the one that is under way, and follow it to its end."""
        now = state(machine, program)
        if now.state == "running":
            progress(f"{called(program)} runs since {spoken(now.seconds)}, taking up its log")
        else:
            progress(f"{called(program)} started on {machine.name}; its log there: {start(deployment, program).log}")
        return judge(deployment, watch(deployment, progress, program))

    if program == "packstack":
        return run(program)
    if state(machine, "unstack").state == "running":
        run("unstack")
    before = state(machine)
    if before.state == "running":
        _require_same(deployment, before)
    elif reason := _why_unstack(deployment, before):
        progress(f"unstack.sh first: {reason}")
        try:
            run("unstack")
        except StackFailed as error:  # the next `lab up` begins with it again
            raise StackFailed(
                f"{error.message}. DevStack cannot stack on what an unfinished unstack.sh leaves",
                advice=f"{error.advice}; lab up tries the unstack again; a fresh machine is the sure way",
            ) from error
    return run(program)


def _why_unstack(deployment: Deployment, before: StackRun) -> str | None:
    """Why what is there has to be cleared away before stacking; None if nothing is."""
    unstack = state(deployment.machine, "unstack")
    if unstack.state in ("failed", "vanished"):
        return "the last one did not end well"
    if unstack.state == "done" and unstack.began_after(before):
        return None
    units = devstack_units(deployment.machine)
    if not units:
        return None
    if before.state == "absent":
        raise MachineInUse(
            f"a DevStack that lab did not make is on {deployment.machine.name} ({len(units)} units, {units[0]} …)",
            advice="take it away there (unstack.sh and clean.sh), or use a fresh machine",
        )
    return f"stack.sh {before.state} before, after it had made {len(units)} services"
