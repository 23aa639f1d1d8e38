"""Where the cloud lives. `open_home` by name; `best_home` when nobody said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stacklab.errors import HomeUnavailable

if TYPE_CHECKING:
    from stacklab.homes.base import Home
    from stacklab.lab import Lab

HOMES = ("embedded",)


def open_home(name: str, lab: Lab) -> Home:
    """The home of this name for `lab`. Raises HomeUnavailable."""
    if name == "embedded":
        from stacklab.homes.embedded.home import EmbeddedHome

        return EmbeddedHome(lab)
    raise HomeUnavailable(f"there is no home '{name}'", advice=f"one of: {', '.join(HOMES)}")


def best_home() -> tuple[str, str]:
    """The name of the best home that this machine has, and the reason, in words for a learner."""
    from stacklab.homes.embedded.config import find_hypervisor

    instances = find_hypervisor().why_not or "instances run in QEMU"
    return "embedded", f"real OpenStack services on this machine, without a VM and without root; {instances}"
