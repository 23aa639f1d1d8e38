"""This machine: Python, memory, disk, groups."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from stacklab.conditions.condition import Finding
from stacklab.conditions.remedy import Remedy
from stacklab.doctor.probe import bad, gib, good, unknown, warning

LEAST_PYTHON = (3, 11)
MEMINFO = Path("/proc/meminfo")


def python() -> Finding:
    """The interpreter that runs lab. An older one could not have imported it; what runs is shown all the same."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < LEAST_PYTHON:
        return bad(f"{version} is too old", "install Python 3.11 or newer, then: make install PYTHON=python3.11")
    return good(f"{version}, {sys.executable}")


def memory_here() -> tuple[int, int]:
    """Bytes of this machine's memory, and how many programs could still get."""
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
    return tuple(int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))  # type: ignore[return-value]


def judged_memory(total: int, free: int, least: int, wanted: int, cost: str, *remedies: Remedy | str) -> Finding:
    """Bytes. Below `least` it cannot work, below `wanted` it works at a `cost`."""
    have = f"{gib(free)} of {gib(total)} free"
    if total < least:
        return bad(f"the machine has {gib(total)}, at least {gib(least)} are needed")
    if free < least:
        return bad(f"{have}, at least {gib(least)} are needed", "ps -eo rss,pid,args --sort=-rss | head", *remedies)
    if free < wanted:
        return warning(f"{have}, {gib(wanted)} are wanted: {cost}", *remedies)
    return good(f"{have}, {gib(wanted)} are wanted")


def space(directory: Path) -> tuple[int, int]:
    """Bytes of the file system on which `directory` lies or will lie, and how many of them are free to us."""
    there = next((place for place in (directory, *directory.parents) if place.is_dir()), Path("/"))
    usage = shutil.disk_usage(there)
    return usage.total, usage.free


def groups(lets_in: Callable[[], str]) -> Finding:
    """Whether the user may use libvirt. `lets_in` asks libvirt itself and raises if it does not let us in."""
    if os.geteuid() == 0:
        return good("root needs none")
    user = pwd.getpwuid(os.geteuid()).pw_name
    try:
        group = grp.getgrnam("libvirt")
    except KeyError:
        return unknown("there is no group libvirt: the package of libvirt makes it", "lab doctor --on libvirt --fix")
    if group.gr_gid in (*os.getgroups(), os.getegid()):
        return good(f"{user} is in libvirt")
    added = user in group.gr_mem
    try:
        version = lets_in()
    except Exception as error:  # noqa: BLE001 - whatever it is: without the group, it is the reason to join
        if added:
            again = "log out and in again (or: newgrp libvirt)"
            return bad(f"{user} is in libvirt, but this login is older and is not let in: {error}", again)
        join = Remedy(("usermod", "-aG", "libvirt", user), root=True)
        return bad(
            f"{user} is not in libvirt, and libvirt does not let us in: {error}", join, "then log out and in again"
        )
    how = (
        "was added to libvirt after this login; a new one is needed where it is not let in"
        if added
        else "is not in libvirt"
    )
    return good(f"{user} {how}; libvirt lets it in ({version})")
