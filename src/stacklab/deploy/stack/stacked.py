"""Whether the machine has a finished stack; if not, what there is instead and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from stacklab.deploy.stack.detached import Program, Stacking, called, state
from stacklab.errors import StackFailed
from stacklab.machines.base import Machine


@dataclass(frozen=True)
class Unfinished:
    """`said`: what is there, with "there" for the machine; `todo`: what to do next. `begun`: there may be units already."""

    said: str
    todo: str
    begun: bool = True


def unfinished(machine: Machine, program: Program = "stack") -> Unfinished | None:
    """None where stack.sh (packstack) has ended well and nothing took away since what it made. Raises what Machine raises."""
    return told(state(machine, program), state(machine, "unstack"))


def told(stack: Stacking, unstack: Stacking) -> Unfinished | None:
    """What the last runs of the two programs amount to."""
    name = called(stack.program)
    for one in (unstack, stack):
        if one.state == "running":
            # `lab attach` watches stack.sh; an unstack.sh is a part of `lab up` and is followed by it.
            todo = "lab up takes it up and goes on" if one.program == "unstack" else "lab attach watches it"
            return Unfinished(f"{called(one.program)} is running there", todo)
    if unstack.state in ("failed", "vanished"):
        return Unfinished("an unstack.sh there did not end well", "lab up clears the rest away and stacks anew")
    if unstack.state == "done" and (unstack.started or 0.0) > (stack.started or 0.0):
        return Unfinished("unstack.sh has taken the cloud away there", "lab up stacks anew", begun=False)
    if stack.state == "absent":
        return Unfinished(f"{name} was never run there", "lab up goes on", begun=False)
    if stack.state == "failed":
        return Unfinished(
            f"{name} failed there with exit status {stack.exit_status}", "lab attach says why, lab up tries again"
        )
    if stack.state == "vanished":
        why = ": the machine was restarted while it ran" if stack.rebooted else ""
        anew = "lab up stacks anew" if stack.program == "stack" else "lab up runs it again"
        return Unfinished(f"{name} ended there without an exit status{why}", anew)
    return None


def require_stacked(machine: Machine, program: Program = "stack") -> None:
    """Raises StackFailed, in one line, unless the machine has a finished stack: before that there is nothing to repair."""
    found = unfinished(machine, program)
    if found:
        raise StackFailed(f"{machine.name}: {found.said}", advice=found.todo)
