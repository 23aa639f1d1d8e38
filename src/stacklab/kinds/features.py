"""What the kernel of a step's machine lets us do: tried there, because no version number and no file tells it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stacklab.machines.scratch import group_name
from stacklab.machines.site import Site

Feature = Literal["namespaces", "overlay", "cgroup-pids", "cgroup-memory", "cgroup-cpu", "cgroup-join"]
VARIABLES: dict[Feature, tuple[str, ...]] = {
    "namespaces": ("UNSHARE", "NSENTER"),
    "overlay": ("UNSHARE", "OVERLAY"),
    "cgroup-pids": ("CGROUP_VERSION", "CGROUP_PIDS", "ENTER"),
    "cgroup-memory": ("CGROUP_VERSION", "CGROUP_MEMORY", "ENTER"),
    "cgroup-cpu": ("CGROUP_VERSION", "CGROUP_CPU", "ENTER"),
    "cgroup-join": ("CGROUP_VERSION", "CGROUP_JOIN"),
}
"""Which variables a step's scripts are given for each: how to make (`$UNSHARE`) and enter (`$NSENTER`) namespaces, with a user
namespace where we are not root; the options that an overlay of ./lower, ./upper and ./work is mounted with (`$OVERLAY`); the
directory that is to be the lab's control group (`$CGROUP_PIDS`, …), which version of them there is (1 or 2), and what a command
has to begin with that wants to get into one (`$ENTER`, mostly nothing). cgroup-join: a process that runs already can be put
into one (a group for the controller `pids`)."""

KNOWN_FOR = 300.0
"""Seconds: long enough for one check of a session, short enough for a machine that was booted again."""

_known: dict[tuple[str, ...], tuple[float, Possible]] = {}


@dataclass(frozen=True)
class Possible:
    """What was found. `variables`: values for the scripts; `missing`: why not, by feature."""

    variables: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def possible(site: Site, wanted: Sequence[Feature], user: str | None) -> Possible:
    """Try the features as `user` ("root", or None: whoever logs in). Raises MachineUnreachable, SudoRefused, CommandFailed."""
    if not wanted:
        return Possible()
    key = (site.machine.name, site.scratch, user or "", *wanted)
    at, known = _known.get(key, (-KNOWN_FOR, Possible()))
    if time.monotonic() - at > KNOWN_FOR:
        known = _tried(site, wanted, user)
        _known[key] = (time.monotonic(), known)
    return known


def _tried(site: Site, wanted: Sequence[Feature], user: str | None) -> Possible:
    make_scratch(site)
    text = Path(__file__).with_suffix(".sh").read_text(encoding="utf-8")
    whose = "root" if user == "root" else "user"
    done = site.machine.script(text, site.scratch, group_name(site.scratch), whose, *wanted, user=user)
    possible = Possible()
    for line in done.lines:
        word, name, *rest = line.split(" ", 2)
        {"set": possible.variables, "no": possible.missing}[word][name] = "".join(rest)
    return possible


def make_scratch(site: Site, below: str = "") -> None:
    """Make the scratch directory, and one below it, as whoever logs in: so steps of root's and others can work there both."""
    directory = f"{site.scratch}/{below}" if below else site.scratch
    site.machine.run("mkdir", "-p", "--", directory)
