"""stack.sh (or packstack) on the machine, detached: a transient systemd unit, its log, its start and its end in files.

Nobody has to stay: the unit goes on when the connection is lost, when `lab` is killed, when the learner's laptop sleeps.
Only options that systemd 219 (CentOS 7) has are used: https://www.freedesktop.org/software/systemd/man/systemd-run.html,
"--wait", "--pipe" and "--collect" are younger than that.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
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


_STATE = r"""
directory=$1 unit=$2
[ -d "$directory" ] && cd "$directory" || { echo absent=1; exit 0; }
# A start that is under way has noted the run already, but its unit may not be there yet.
exec 9<../lock
flock -s -w 30 9
for file in began ended; do [ -f "$file" ] && sed "s/^/$file./" "$file" || true; done
systemctl show "$unit" -p ActiveState -p ExecMainStatus -p Result
echo "size=$(stat -c %s log 2>/dev/null || echo 0)"
echo "now=$(date +%s.%N)"
echo "boot=$(cat /proc/sys/kernel/random/boot_id)"
"""


def state(machine: Machine, program: Program = "stack") -> StackRun:
    """Look at the machine. Raises what Machine raises."""
    log = f"{BASE}/{program}/log"
    told = dict(
        line.partition("=")[::2]
        for line in machine.script(_STATE, f"{BASE}/{program}", _unit(program), user="root").lines
    )
    if "began.run" not in told:
        return StackRun(program, "absent", log)
    rebooted = told["began.boot"] != told["boot"]
    ended = "ended.status" in told
    exit_status = int(told["ended.status"]) if ended else None
    if not ended and told["ActiveState"] == "failed" and told.get("Result") == "exit-code":
        exit_status = int(told["ExecMainStatus"])  # the disk was too full even for the status file
    return StackRun(
        program,
        _state_of(exit_status, alive=told["ActiveState"] in ("active", "activating", "deactivating")),
        log,
        size=int(told["size"]),
        run=told["began.run"],
        started=float(told["began.at"]),
        ended=float(told["ended.at"]) if ended else None,
        exit_status=exit_status,
        now=float(told["now"]),
        rebooted=rebooted,
        profile=told["began.profile"],
        services=tuple(told["began.services"].split()),
        host_ip=told["began.host_ip"],
    )


def _state_of(exit_status: int | None, *, alive: bool) -> State:
    if exit_status is not None:
        return "done" if exit_status == 0 else "failed"
    return "running" if alive else "vanished"


_WRAPPER = r"""#!/bin/bash
# Written by lab. Runs a program that deploys: its output goes to a log, its exit status to a file.
directory=$1 at=$2 stamped=$3 environment=$4
shift 4
umask 022
HOME=$(getent passwd "$(id -un)" | cut -d: -f6)
USER=$(id -un) LOGNAME=$USER SHELL=/bin/bash TERM=dumb
export HOME USER LOGNAME SHELL TERM
if [ -r "$environment" ]; then set -a; . "$environment"; set +a; fi
# The time before each line, in the form of DevStack's own log filter.
stamp() {
    local line
    export TZ=UTC0
    while IFS= read -r line || [ -n "$line" ]; do printf '%(%Y-%m-%d %H:%M:%S)T.000 | %s\n' -1 "$line"; done
}
cd "$at" || exit 1
if [ "$stamped" = yes ]; then
    "$@" </dev/null >>"$directory/log" 2>&1
    status=$?
    # DevStack's log filter is a process of its own and may still be writing.
    tries=0
    while [ "$tries" -lt 30 ]; do
        size=$(stat -c %s "$directory/log")
        sleep 1
        [ "$(stat -c %s "$directory/log")" != "$size" ] || break
        tries=$((tries + 1))
    done
else
    "$@" </dev/null 2>&1 | stamp >>"$directory/log"
    status=${PIPESTATUS[0]}
fi
printf 'status=%s\nat=%s\n' "$status" "$(date +%s.%N)" >"$directory/ended.new" && mv "$directory/ended.new" "$directory/ended"
exit "$status"
"""

# Everything under one lock, so that of two labs that begin at the same moment one is refused.
_START = r"""
base=$1 program=$2 units=$3 at=$4 stamped=$5 run=$6 profile=$7 services=$8 host_ip=$9
shift 9
environment=$1 account=$2 pattern=$3 called=$4
shift 4
directory=$base/$program unit=lab-$program.service
mkdir -p "$base"
exec 9>"$base/lock"
flock -w 30 9
alive() {
    case $(systemctl show "$1" -p ActiveState) in
    ActiveState=active|ActiveState=activating|ActiveState=deactivating) return 0 ;;
    *) return 1 ;;
    esac
}
for one in $units; do
    # One that has told its end already goes in a moment.
    name=${one#lab-} tries=0
    while alive "$one" && [ -f "$base/${name%.service}/ended" ] && [ "$tries" -lt 50 ]; do sleep 0.2; tries=$((tries + 1)); done
    if alive "$one"; then echo "$one"; exit 71; fi
done
if pids=$(pgrep -f "$pattern"); then echo $pids; exit 72; fi
if [ "$program" = stack ] && [ -f "$base/unstack/began" ]; then
    # An unstack.sh that did not end well leaves half of the services; DevStack cannot build on that.
    grep -qx status=0 "$base/unstack/ended" 2>/dev/null || exit 73
fi
install -d -m 0700 -o "$account" "$directory"
cd "$directory"
[ -f log ] && mv -f log log.previous
rm -f ended ended.new environment
[ ! -f "$environment" ] || install -m 0600 -o "$account" "$environment" environment
install -m 0600 -o "$account" /dev/null log
boot=$(cat /proc/sys/kernel/random/boot_id)
printf 'run=%s\nat=%s\nboot=%s\nprofile=%s\nservices=%s\nhost_ip=%s\n' \
    "$run" "$(date +%s.%N)" "$boot" "$profile" "$services" "$host_ip" >began.new
mv began.new began
systemctl reset-failed "$unit" 2>/dev/null || true
if ! systemd-run --unit="$unit" --uid="$account" --description="$called, started by lab" \
    /bin/bash "$base/run" "$directory" "$at" "$stamped" "$directory/environment" "$@" 9>&-; then
    rm -f began
    exit 1
fi
"""


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
# PackStack writes the file that it is given anew, with all that it has made up (run_setup.py, generateAnswerFile), so it gets
# a copy, root's alone as well. ssh-keygen, which it runs for the key that it logs in with, makes no directory for it.
_PACKSTACK = r"""#!/bin/sh
# Written by lab. Usage: packstack ANSWER-FILE TIMEOUT
set -eu
umask 077
mkdir -p "$HOME/.ssh"
cp -f "$1" "$1.used"
umask 022
PYTHONUNBUFFERED=1 exec packstack --answer-file="$1.used" --timeout="$2"
"""


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
    machine.put(f"{BASE}/run", _WRAPPER, mode=0o755)
    if program == "packstack":
        machine.put(f"{BASE}/run-packstack", _PACKSTACK, mode=0o755)
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
    ended = machine.script(_START, *arguments, user="root", check=False)
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
    for one in (unstack, stack):
        if one.state == "running":
            # `lab attach` watches stack.sh; an unstack.sh is a part of `lab up` and is followed by it.
            todo = "lab up takes it up and goes on" if one.program == "unstack" else "lab attach watches it"
            return Unfinished(f"{called(one.program)} is running there", todo)
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
    found = unfinished(machine, program)
    if found:
        raise StackFailed(f"{machine.name}: {found.said}", advice=found.todo)
