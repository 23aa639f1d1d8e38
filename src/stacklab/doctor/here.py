"""This machine: Python, memory, disk, and the clock. Where that is wrong, certificates and tokens are refused."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import requests

from stacklab.conditions.condition import Finding
from stacklab.conditions.remedy import Remedy
from stacklab.deploy.profile.settings import Settings
from stacklab.doctor import registries
from stacklab.doctor.probe import bad, gib, good, unknown, warning
from stacklab.download import reason, without_password
from stacklab.machines.base import Machine
from stacklab.machines.clock import OFF_SECONDS
from stacklab.machines.local import LocalMachine

MEMINFO = Path("/proc/meminfo")


def python() -> Finding:
    """The interpreter that runs lab; too old a one could not have imported this."""
    version = ".".join(str(part) for part in sys.version_info[:3])
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


# --- the clock -------------------------------------------------------------------------------------------------------


def clock(settings: Settings, now: Callable[[], float] = time.time) -> Finding:
    """Compared with the date that an index of Python packages gives."""
    pages, _, asking = registries.indexes_of_pip(settings)
    keeper = clock_keeper(LocalMachine())
    trouble = []
    for url in map(registries.page, pages):
        if urlsplit(url).scheme not in ("http", "https"):
            continue
        shown, began = without_password(url), now()
        try:
            answer = registries.ask(asking, url)
        except requests.exceptions.SSLError as error:
            trouble.append(f"{shown}: {reason(error)} (a clock that is wrong does that, too)")
            continue
        except requests.RequestException as error:
            # an answer that is an error has a date all the same
            if error.response is None:
                trouble.append(f"{shown}: {reason(error)}")
                continue
            answer = error.response
        date, age = answer.headers.get("Date"), answer.headers.get("Age", "0")
        if date:
            theirs = parsedate_to_datetime(date).timestamp() + (int(age) if age.isdigit() else 0)
            return _judged_clock(began, now(), theirs, f"{urlsplit(url).hostname}'s", keeper)
        trouble.append(f"{shown} answers without a date")
    nobody = "; ".join(trouble) or "no index is reached over HTTP"
    return unknown(f"{keeper}; nobody to compare it with: {nobody}", "date -u")


def clock_keeper(machine: Machine) -> str:
    """Whether something keeps the machine's clock right, in words."""
    command = ("timedatectl", "show", "--property=NTPSynchronized", "--value")
    answer = machine.run(*command, seconds=20, check=False).out.strip()
    words = {"yes": "it says it is synchronised", "no": "it says nothing synchronises it"}
    return words.get(answer, "it does not say whether it is synchronised")


def _judged_clock(began: float, ended: float, theirs: float, whose: str, keeper: str) -> Finding:
    """`theirs` was told between `began` and `ended` (seconds since the epoch); it has whole seconds only."""
    off = max(0.0, theirs - ended, began - theirs - 1)
    if off <= OFF_SECONDS:
        return good(f"agrees with {whose} date ({'within a second' if off < 1 else f'{off:.0f} s off'}); {keeper}")
    set_it: Remedy | str = "sudo date -u -s 'YYYY-MM-DD HH:MM:SS'"
    if Path("/run/systemd/system").is_dir():
        set_it = Remedy(("timedatectl", "set-ntp", "true"), root=True)
    return bad(f"{off:.0f} s {'behind' if theirs > ended else 'ahead of'} {whose} date; {keeper}", set_it)
