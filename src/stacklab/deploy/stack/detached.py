"""stack.sh (or packstack) on the machine, detached: a transient systemd unit, its log, its start and its end in files.

Nobody has to stay: the unit goes on when the connection is lost, when `lab` is killed, when the learner's laptop sleeps.
Only options that systemd 219 (CentOS 7) has are used: https://www.freedesktop.org/software/systemd/man/systemd-run.html,
"--wait", "--pipe" and "--collect" are younger than that.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stacklab.deploy.deployment import Deployment
from stacklab.errors import MachineInUse, StackFailed
from stacklab.machines.base import Machine

STACK_USER = "stack"
BASE = "/var/lib/stacklab"
"""On the machine; below it one directory per program, and the wrapper that runs it."""
ENVIRONMENT = "/etc/stacklab/environment"
"""Lines of NAME=value for every program that is run here (the proxy, with its password): root's; a program gets a copy."""

Program = Literal["stack", "unstack", "packstack"]
PROGRAMS: tuple[Program, ...] = ("stack", "unstack", "packstack")
ANSWERS = f"{BASE}/answers.txt"
"""PackStack's answer file on the machine, root's alone."""
State = Literal["absent", "running", "done", "failed", "vanished"]

# The start refuses with these exit statuses; any other is an error.
_RUNS_ALREADY, _BY_HAND, _UNSTACK_UNFINISHED = 71, 72, 73


@dataclass(frozen=True)
class StackRun:
    """What became of a program's last run, as the machine tells it.

    absent: never run; running; done: exit status 0; failed: another one; vanished: it ended without one (the machine was
    restarted in the middle, or the unit was killed). `run` names the run, so that a log is never taken for another's.
    Times are seconds since the epoch by the machine's clock, `now` too. `size`: bytes in the log.
    """

    program: Program
    state: State
    log: str
    size: int = 0
    run: str = ""
    started: float | None = None
    ended: float | None = None
    exit_status: int | None = None
    now: float = 0.0
    rebooted: bool = False
    profile: str = ""
    services: tuple[str, ...] = ()
    host_ip: str = ""

    @property
    def seconds(self) -> float:
        """How long it ran, or has been running."""
        if self.started is None:
            return 0.0
        return (self.now if self.ended is None else self.ended) - self.started

    def began_after(self, other: StackRun) -> bool:
        """Whether this is the later one of two that ran; one that never did is no later one."""
        return self.state != "absent" and (self.started or 0.0) > (other.started or 0.0)


def _shell(name: str) -> str:
    """One of the scripts beside this module."""
    return (Path(__file__).parent / f"{name}.sh").read_text(encoding="utf-8")


def state(machine: Machine, program: Program = "stack") -> StackRun:
    """Look at the machine. Raises what Machine raises."""
    log = f"{BASE}/{program}/log"
    facts = dict(
        line.partition("=")[::2]
        for line in machine.script(_shell("state"), f"{BASE}/{program}", _unit(program), user="root").lines
    )
    if "began.run" not in facts:
        return StackRun(program, "absent", log)
    rebooted = facts["began.boot"] != facts["boot"]
    ended = "ended.status" in facts
    exit_status = int(facts["ended.status"]) if ended else None
    if not ended and facts["ActiveState"] == "failed" and facts.get("Result") == "exit-code":
        exit_status = int(facts["ExecMainStatus"])  # the disk was too full even for the status file
    return StackRun(
        program,
        _state_of(exit_status, alive=facts["ActiveState"] in ("active", "activating", "deactivating")),
        log,
        size=int(facts["size"]),
        run=facts["began.run"],
        started=float(facts["began.at"]),
        ended=float(facts["ended.at"]) if ended else None,
        exit_status=exit_status,
        now=float(facts["now"]),
        rebooted=rebooted,
        profile=facts["began.profile"],
        services=tuple(facts["began.services"].split()),
        host_ip=facts["began.host_ip"],
    )


def _state_of(exit_status: int | None, *, alive: bool) -> State:
    if exit_status is not None:
        return "done" if exit_status == 0 else "failed"
    return "running" if alive else "vanished"


@dataclass(frozen=True)
class _Recipe:
    """How a program is run: where, as whom, with which words. `stamped`: its own output has times already.

    `by_hand`: how its command line looks where a person runs it, as pgrep -f knows it.
    """

    argv: tuple[str, ...]
    at: str
    account: str
    stamped: bool
    by_hand: str


_SHELL_SCRIPT = "^([^ ]*/)?(env )?(ba)?sh (-[a-z]+ )*([^ ]*/)?(un)?stack[.]sh( |$)"
_PYTHON_PROGRAM = "^([^ ]*/)?(python[0-9.]* (-[a-zA-Z]+ )*)?([^ ]*/)?packstack( |$)"


def _recipe(deployment: Deployment, program: Program) -> _Recipe:
    profile = deployment.profile
    if program == "packstack":
        argv = (f"{BASE}/run-packstack", ANSWERS, str(profile.packstack.timeout))
        return _Recipe(argv, "/root", "root", stamped=False, by_hand=_PYTHON_PROGRAM)
    return _Recipe((f"./{program}.sh",), profile.devstack.directory, STACK_USER, stamped=True, by_hand=_SHELL_SCRIPT)


def called(program: Program) -> str:
    """As people say it: `stack.sh`, `packstack`."""
    return program if program == "packstack" else f"{program}.sh"


def start(deployment: Deployment, program: Program = "stack") -> StackRun:
    """Start it and return at once.

    Raises MachineInUse if one runs already (whoever started it), StackFailed if an unstack.sh was cut off before: DevStack
    cannot stack on what that leaves ("No project network is available for allocation").
    """
    machine, recipe = deployment.machine, _recipe(deployment, program)
    machine.put(f"{BASE}/run", _shell("run"), mode=0o755)
    if program == "packstack":
        machine.put(f"{BASE}/run-packstack", _shell("run-packstack"), mode=0o755)
    arguments = [
        BASE,
        program,
        " ".join(map(_unit, PROGRAMS)),
        recipe.at,
        "yes" if recipe.stamped else "no",
        uuid.uuid4().hex,
        deployment.profile.name,
        " ".join(deployment.services),
        deployment.host_ip,
        ENVIRONMENT,
        recipe.account,
        recipe.by_hand,
        called(program),
        *recipe.argv,
    ]
    ended = machine.script(_shell("start"), *arguments, user="root", check=False)
    if ended.status == _RUNS_ALREADY:
        problem = f"{machine.name} is being stacked already ({ended.out.strip()} runs there)"
        raise MachineInUse(
            problem, advice="lab up or lab attach of the lab that started it follows it; else wait for its end"
        )
    if ended.status == _BY_HAND:
        what = "packstack" if program == "packstack" else "stack.sh or unstack.sh"
        problem = f"somebody runs a {what} by hand on {machine.name} (process {ended.out.strip()})"
        raise MachineInUse(problem, advice="wait for its end")
    if ended.status == _UNSTACK_UNFINISHED:
        problem = f"an unstack.sh on {machine.name} did not end well, and DevStack cannot stack on what it left"
        raise StackFailed(problem, advice="lab up finishes the unstack first")
    if not ended.ok:
        problem = f"{called(program)} could not be started on {machine.name}: {(ended.err or ended.out).strip()[-300:]}"
        raise StackFailed(problem, advice=f"look there: systemctl status {_unit(program)}")
    return state(machine, program)


def devstack_units(machine: Machine) -> list[str]:
    """The names of DevStack's units on the machine (`devstack@keystone.service`, …), running or not."""
    listed = machine.run(
        "systemctl", "list-unit-files", "devstack@*", "--no-legend", "--no-pager", user="root", check=False
    )
    return [line.split()[0] for line in listed.lines if line.startswith("devstack@")]


_UNITS = r"""
for unit in "$@"; do
    echo "$unit $(systemctl is-enabled "$unit" 2>/dev/null || true)/$(systemctl is-active "$unit" || true)"
done
"""


def unit_states(machine: Machine, units: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Whether each unit is enabled, and whether it runs, in systemd's words ("" or "not-found" where it is not there)."""
    states = {}
    for line in machine.script(_UNITS, *units, user="root").lines:
        name, _, words = line.partition(" ")
        enabled, _, active = words.partition("/")
        states[name] = (enabled, active)
    return states


def _unit(program: Program) -> str:
    return f"lab-{program}.service"


# --- what is there -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unfinished:
    """`said`: what is there, with "there" for the machine; `todo`: what to do next. `begun`: there may be units already."""

    said: str
    todo: str
    begun: bool = True


def unfinished(machine: Machine, program: Program = "stack") -> Unfinished | None:
    """None where stack.sh (packstack) has ended well and nothing took away since what it made. Raises what Machine raises."""
    return verdict(state(machine, program), state(machine, "unstack"))


def verdict(stack: StackRun, unstack: StackRun) -> Unfinished | None:
    """What the last runs of the two programs amount to."""
    name = called(stack.program)
    for run in (unstack, stack):
        if run.state == "running":
            # `lab attach` watches stack.sh; an unstack.sh is a part of `lab up` and is followed by it.
            todo = "lab up takes it up and goes on" if run.program == "unstack" else "lab attach watches it"
            return Unfinished(f"{called(run.program)} is running there", todo)
    if unstack.state in ("failed", "vanished"):
        return Unfinished("an unstack.sh there did not end well", "lab up clears the rest away and stacks anew")
    if unstack.state == "done" and unstack.began_after(stack):
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
    missing = unfinished(machine, program)
    if missing:
        raise StackFailed(f"{machine.name}: {missing.said}", advice=missing.todo)
