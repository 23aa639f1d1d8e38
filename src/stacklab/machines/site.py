"""A machine that a cloud runs on, as the steps of a session see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stacklab.machines.base import Machine

MadeBy = Literal["devstack", "packstack", "lab"]


@dataclass(frozen=True)
class Site:
    """Where a step's commands run.

    `scratch`: an absolute path on the machine, a directory of the lab's own that steps keep their files in; made when first
    needed, gone with `lab destroy`. `made_by`: what put the cloud there; "lab" means services as processes of the user's own.
    `why_not_root`: why commands cannot be root's there; empty if they can. `names`: what this distribution calls the units and
    commands that session files speak of in general (`apache`: httpd or apache2).
    `profile`, `services`, `address`: where the machine was deployed, the name of the profile that it was deployed with, the
    optional services and its static address; empty for processes of the user's own.
    """

    machine: Machine
    scratch: str
    made_by: MadeBy
    why_not_root: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""
    services: tuple[str, ...] = ()
    address: str = ""
