"""A lab's scratch directory on a machine: what steps left running there is ended, what lies there is removed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from stacklab.machines.base import Machine

SECONDS = 60.0


def group_name(scratch: str) -> str:
    """How the names of the control groups begin that belong to this directory: two labs on a machine have their own."""
    return f"stacklab-{hashlib.sha256(scratch.encode()).hexdigest()[:8]}"


def end_processes(machine: Machine, scratch: str, files: Iterable[str], *, user: str | None = None) -> None:
    """End the processes that these pid files name (absolute paths), and what they started. Raises CommandFailed.

    A process whose number has been given to another one since is left alone; the files are removed.
    """
    _run(machine, user, "processes", scratch, *files)


def clear(machine: Machine, scratch: str, *, user: str | None = None) -> None:
    """Remove the directory, the lab's control groups, and end what any pid file (`*.pid`) in it names. Raises CommandFailed.

    `user`: "root" where steps may have worked as root. Nothing outside is touched; it may be called again.
    """
    _run(machine, user, "all", scratch)


def _run(machine: Machine, user: str | None, what: str, scratch: str, *files: str) -> None:
    text = Path(__file__).with_suffix(".sh").read_text(encoding="utf-8")
    machine.script(text, what, scratch, group_name(scratch), *files, user=user, seconds=SECONDS)
