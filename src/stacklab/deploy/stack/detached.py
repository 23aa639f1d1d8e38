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

# How the command lines look where a person runs them, as pgrep -f knows them.
_SHELL_SCRIPT = "^([^ ]*/)?(env )?(ba)?sh (-[a-z]+ )*([^ ]*/)?(un)?stack[.]sh( |$)"
_PYTHON_PROGRAM = "^([^ ]*/)?(python[0-9.]* (-[a-zA-Z]+ )*)?([^ ]*/)?packstack( |$)"


@dataclass(frozen=True)
class StackRun:
    """What became of a program's last run, as the machine tells it.

    absent: never run; running; done: exit status 0; failed: another one; vanished: it ended without one (the machine was
    restarted in the middle, or the unit was killed). `run` names the run, so that a log is never taken for another's.
    `started`: seconds since the epoch by the machine's clock; `seconds`: how long it ran, or has been running; `ago`: how long
    it has been over.
    """

    program: Program
    state: State
    run: str = ""
    started: float = 0.0
    seconds: float = 0.0
    ago: float = 0.0
    exit_status: int | None = None
    rebooted: bool = False
    profile: str = ""
    services: tuple[str, ...] = ()
    host_ip: str = ""

    @property
    def log(self) -> str:
        """Its path on the machine."""
        return log_of(self.program)

    @property
    def why_vanished(self) -> str:
        """Why it ended without an exit status."""
        return "the machine was restarted while it ran" if self.rebooted else "its unit was ended from outside"

    def began_after(self, other: StackRun) -> bool:
        """Whether this is the later one of two that ran; one that never did is no later one."""
        return self.state != "absent" and self.started > other.started


def log_of(program: Program) -> str:
    """Where the machine has the log of its last run."""
    return f"{BASE}/{program}/log"


def called(program: Program) -> str:
    """As people say it: `stack.sh`, `packstack`."""
    return program if program == "packstack" else f"{program}.sh"


def state(machine: Machine, program: Program = "stack") -> StackRun:
    """Look at the machine. Raises what Machine raises."""
    look = machine.script(_shell("state"), f"{BASE}/{program}", _unit(program), user="root")
    facts = dict(line.partition("=")[::2] for line in look.lines)
    if "began.run" not in facts:
        return StackRun(program, "absent")
    now, started = float(facts["now"]), float(facts["began.at"])
    ended = float(facts["ended.at"]) if "ended.at" in facts else now
    exit_status = int(facts["ended.status"]) if "ended.status" in facts else None
    if exit_status is None and facts["ActiveState"] == "failed" and facts.get("Result") == "exit-code":
        exit_status = int(facts["ExecMainStatus"])  # the disk was too full even for the status file
    if exit_status is None:
        became: State = "running" if facts["ActiveState"] in ("active", "activating", "deactivating") else "vanished"
    else:
        became = "done" if exit_status == 0 else "failed"
    return StackRun(
        program,
        became,
        run=facts["began.run"],
        started=started,
        seconds=ended - started,
        ago=now - ended,
        exit_status=exit_status,
        rebooted=facts["began.boot"] != facts["boot"],
        profile=facts["began.profile"],
        services=tuple(facts["began.services"].split()),
        host_ip=facts["began.host_ip"],
    )


def start(deployment: Deployment, program: Program = "stack") -> StackRun:
    """Start it and return at once.

    Raises MachineInUse if one runs already (whoever started it), StackFailed if an unstack.sh was cut off before: DevStack
    cannot stack on what that leaves ("No project network is available for allocation").
    """
    machine, profile = deployment.machine, deployment.profile
    machine.put(f"{BASE}/run", _shell("run"), mode=0o755)
    if program == "packstack":
        machine.put(f"{BASE}/run-packstack", _shell("run-packstack"), mode=0o755)
        # Its lines carry no times, DevStack's do.
        account, by_hand, at, stamped = "root", _PYTHON_PROGRAM, "/root", "no"
        command = [f"{BASE}/run-packstack", ANSWERS, str(profile.packstack.timeout)]
    else:
        account, by_hand, at, stamped = STACK_USER, _SHELL_SCRIPT, profile.devstack.directory, "yes"
        command = [f"./{program}.sh"]
    about = {
        "run": uuid.uuid4().hex, "profile": profile.name, "services": " ".join(deployment.services),
        "host_ip": deployment.host_ip,
    }  # fmt: skip
    note = "".join(f"{name}={value}\n" for name, value in about.items())
    units = " ".join(map(_unit, PROGRAMS))
    words = [BASE, program, units, by_hand, account, ENVIRONMENT, note, at, stamped, *command]
    ended = machine.script(_shell("start"), *words, user="root", check=False)
    if not ended.ok:
        raise _refusal(machine, program, ended.status, ended.out.strip(), ended.err.strip())
    return state(machine, program)


def _refusal(machine: Machine, program: Program, status: int, output: str, errors: str) -> MachineInUse | StackFailed:
    """What the exit status of start.sh means."""
    if status == 71:
        return MachineInUse(
            f"{machine.name} is being stacked already ({output} runs there)",
            advice="lab up or lab attach of the lab that started it follows it; else wait for its end",
        )
    if status == 72:
        what = "packstack" if program == "packstack" else "stack.sh or unstack.sh"
        problem = f"somebody runs a {what} by hand on {machine.name} (process {output})"
        return MachineInUse(problem, advice="wait for its end")
    if status == 73:
        problem = f"an unstack.sh on {machine.name} did not end well, and DevStack cannot stack on what it left"
        return StackFailed(problem, advice="lab up finishes the unstack first")
    problem = f"{called(program)} could not be started on {machine.name}: {(errors or output)[-300:]}"
    return StackFailed(problem, advice=f"look there: systemctl status {_unit(program)}")


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


def _shell(name: str) -> str:
    """One of the scripts beside this module."""
    return (Path(__file__).parent / f"{name}.sh").read_text(encoding="utf-8")


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
    if unstack.state == "running":
        return Unfinished("unstack.sh is running there", "lab up takes it up and goes on")
    if stack.state == "running":
        return Unfinished(f"{name} is running there", "lab attach watches it")
    if unstack.state in ("failed", "vanished"):
        return Unfinished("an unstack.sh there did not end well", "lab up clears the rest away and stacks anew")
    if unstack.state == "done" and unstack.began_after(stack):
        return Unfinished("unstack.sh has taken the cloud away there", "lab up stacks anew", begun=False)
    if stack.state == "absent":
        return Unfinished(f"{name} was never run there", "lab up goes on", begun=False)
    if stack.state == "failed":
        problem = f"{name} failed there with exit status {stack.exit_status}"
        return Unfinished(problem, "lab attach says why, lab up tries again")
    if stack.state == "vanished":
        anew = "lab up stacks anew" if stack.program == "stack" else "lab up runs it again"
        return Unfinished(f"{name} ended there without an exit status: {stack.why_vanished}", anew)
    return None


def require_stacked(machine: Machine, program: Program = "stack") -> None:
    """Raises StackFailed, in one line, unless the machine has a finished stack: before that there is nothing to repair."""
    missing = unfinished(machine, program)
    if missing:
        raise StackFailed(f"{machine.name}: {missing.said}", advice=missing.todo)
