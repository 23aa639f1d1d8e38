"""The stage that stacks: what has to run (unstack.sh, stack.sh, or nothing but following), and how it ended."""

from __future__ import annotations

from collections.abc import Callable

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.stack.detached import Program, StackRun, State, called, devstack_units, start, state
from stacklab.deploy.stack.following import Patience, PhaseTimes, judge, watch
from stacklab.durations import seconds as spoken
from stacklab.errors import MachineInUse, NotServed, StackFailed
from stacklab.stages import Progress, Stage

__all__ = ["Program", "StackRun", "State", "devstack_units", "stages", "start", "state"]


def stages(deployment: Deployment, *, patience: Patience | None = None) -> list[Stage]:
    """stack.sh, or packstack, run to its end; an earlier run is taken up.

    Where DevStack cannot build on what a run left, that is cleared away first; PackStack can.
    """
    usual = PhaseTimes(deployment.profile.name, deployment.profile.usual_minutes).total
    return [
        Stage(
            "stack",
            f"{called(deployment.profile.program)}: OpenStack {deployment.profile.release}",
            lambda: _already(deployment),
            lambda progress: _stack(deployment, progress, patience),
            usual,
        )
    ]


def _already(deployment: Deployment) -> str | None:
    program = deployment.profile.program
    now = state(deployment.machine, program)
    if now.state != "done" or state(deployment.machine, "unstack").state == "running":
        return None
    if _cleared(deployment, now):
        return None
    _require_same(deployment, now)
    return f"{called(program)} ended well {spoken(now.now - (now.ended or now.now))} ago"


def _cleared(deployment: Deployment, now: StackRun) -> bool:
    """Whether an unstack.sh has taken away since what stack.sh made."""
    unstack = state(deployment.machine, "unstack")
    return unstack.state != "absent" and (unstack.started or 0.0) > (now.started or 0.0)


def _require_same(deployment: Deployment, now: StackRun) -> None:
    """Raises NotServed if it was stacked for something else: stacking anew would take away what the learner has there."""
    compared = [
        ("profile", now.profile, deployment.profile.name),
        ("services", _spoken(now.services), _spoken(deployment.services)),
        ("address", now.host_ip, deployment.host_ip),
    ]
    differing = [f"{name} {was}, now {wanted} is asked for" for name, was, wanted in compared if was != wanted]
    if differing:
        raise NotServed(
            f"{deployment.machine.name} was stacked with {'; '.join(differing)}",
            advice="lab destroy, then lab up, builds it anew; or ask for what is there",
        )


def _spoken(services: tuple[str, ...]) -> str:
    return ",".join(sorted(services)) or "(none)"


def _stack(deployment: Deployment, progress: Progress, patience: Patience | None) -> str:
    machine = deployment.machine

    def run(program: Program) -> str:
        _start_or_take_up(deployment, program, progress)
        return judge(deployment, watch(deployment, progress, program, patience=patience))

    if deployment.profile.program == "packstack":
        before = state(machine, "packstack")
        if before.state == "running":
            _require_same(deployment, before)
        return run("packstack")
    if state(machine, "unstack").state == "running":
        progress("an unstack.sh is under way, taking up its log")
        judge(deployment, watch(deployment, progress, "unstack", patience=patience))
    before = state(machine)
    if before.state == "running":
        _require_same(deployment, before)
        return run("stack")
    reason = _why_unstack(deployment, before)
    if reason:
        progress(f"unstack.sh first: {reason}")
        run_unstack(lambda: run("unstack"))
    return run("stack")


def run_unstack(run: Callable[[], str]) -> None:
    """An unstack that fails must not be followed by a stack: the next `lab up` begins with it again."""
    try:
        run()
    except StackFailed as error:
        raise StackFailed(
            f"{error.message}. DevStack cannot stack on what an unfinished unstack.sh leaves",
            advice=f"{error.advice}; lab up tries the unstack again; a fresh machine is the sure way",
        ) from error


def _start_or_take_up(deployment: Deployment, program: Program, progress: Progress) -> None:
    now = state(deployment.machine, program)
    if now.state == "running":
        progress(f"{called(program)} runs since {spoken(now.seconds)}, taking up its log")
        return
    began = start(deployment, program)
    progress(f"{called(program)} started on {deployment.machine.name}; its log there: {began.log}")


def _why_unstack(deployment: Deployment, before: StackRun) -> str | None:
    """Why what is there has to be cleared away before stacking; None if nothing is."""
    unstack = state(deployment.machine, "unstack")
    if unstack.state in ("failed", "vanished"):
        return "the last one did not end well"
    if unstack.state == "done" and (unstack.started or 0.0) > (before.started or 0.0):
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
