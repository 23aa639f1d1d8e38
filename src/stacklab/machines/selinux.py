"""SELinux's mode on a machine: now, and after the next boot."""

from __future__ import annotations

import re

from stacklab.errors import CommandFailed
from stacklab.machines.base import Machine, probe


def mode_of(machine: Machine) -> str | None:
    """What getenforce says; None where there is no SELinux. Raises CommandFailed."""
    try:
        done = probe(machine, "getenforce")
    except CommandFailed:
        if machine.read("/sys/fs/selinux/enforce", limit=1) is not None:
            raise  # the kernel has it, and only the program is missing: that is no "none here"
        return None
    if done.out.strip() not in ("Enforcing", "Permissive", "Disabled"):
        raise CommandFailed(f"getenforce says {done.out.strip()!r}", status=done.status, said=done.err)
    return done.out.strip()


def is_off(mode: str | None) -> str | None:
    """Why there is nothing to say of SELinux in this mode (see `mode_of`), or None."""
    if mode is None:
        return "this distribution comes without SELinux"
    return "SELinux is off on this machine" if mode == "Disabled" else None


def config_of(machine: Machine, path: str) -> str:
    """The mode that the configuration asks for at boot."""
    return read_config((machine.read(path) or b"").decode(errors="replace"))


def read_config(text: str) -> str:
    """The mode in /etc/selinux/config; a file without one means enforcing, as for the init program that reads it."""
    modes = re.findall(r"^\s*SELINUX\s*=\s*(\w+)", text, re.MULTILINE)
    return modes[-1].lower() if modes else "enforcing"


def forced(cmdline: str) -> str | None:
    """What `enforcing=` on the kernel's command line decides, if it is there. (S: libselinux, load_policy.c)"""
    flags = re.findall(r"(?:^|\s)enforcing=([01])(?=\s|$)", cmdline)
    return {"0": "permissive", "1": "enforcing"}[flags[-1]] if flags else None
