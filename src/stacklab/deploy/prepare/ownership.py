"""Whether somebody uses a machine already, and the marker that says that it is a lab's."""

from __future__ import annotations

import getpass
import json
import socket
import uuid
from pathlib import Path

from stacklab.lab import Lab
from stacklab.machines.base import Machine

MARKER = "/etc/stacklab/lab.json"
ACCOUNTS = 4
"""People with a login of their own, from which on a machine looks like a shared one."""


def looks_used(machine: Machine, lab: Lab, directory: str = "/opt/stack/devstack") -> list[str]:
    """Evidence that a deployment would change what somebody has there, a line each; nothing on a fresh machine.

    A machine that carries this lab's marker is ours whatever runs there; another lab's marker is evidence. Raises what
    Machine raises.
    """
    marker = _marker(machine)
    if marker and marker["id"] == lab.record.identity:
        return []
    look = (Path(__file__).parent / "ownership.sh").read_text(encoding="utf-8")
    evidence = machine.script(look, directory, str(ACCOUNTS), user="root").lines
    other = [f"the lab '{marker['lab']}' of {marker['by']} is deployed there"] if marker else []
    return other + evidence


def ours(machine: Machine, lab: Lab) -> bool:
    """Whether the machine carries this lab's marker."""
    marker = _marker(machine)
    return marker is not None and marker["id"] == lab.record.identity


def put_marker(machine: Machine, lab: Lab) -> None:
    """From now on the machine is this lab's."""
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    machine.put(MARKER, json.dumps({"lab": lab.name, "by": by, "id": identity(lab)}) + "\n")


def identity(lab: Lab) -> str:
    """A name for this lab that no other has; made when its first machine is marked, gone with the lab."""
    known = lab.record.identity
    if known is None:
        known = uuid.uuid4().hex
        lab.update(identity=known)
    return known


def _marker(machine: Machine) -> dict[str, str] | None:
    held = machine.read(MARKER)
    if held is None:
        return None
    try:
        marker = json.loads(held)
        return {name: str(marker[name]) for name in ("lab", "by", "id")}
    except (ValueError, KeyError, TypeError):
        return {"lab": "?", "by": "an unreadable marker", "id": ""}
