"""One deployment: what goes where. Every part of `deploy` works on this."""

from __future__ import annotations

from dataclasses import dataclass

from stacklab.deploy.profile.model import Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.lab import Lab
from stacklab.machines.base import Machine


@dataclass(frozen=True)
class Deployment:
    """`host_ip`: the machine's static address, which the cloud's endpoints carry. `services`: what `--with` asked for.

    `permissive`: how the learner wants SELinux dealt with (True: permissive mode, False: the targeted policy module).
    """

    lab: Lab
    profile: Profile
    machine: Machine
    host_ip: str
    settings: Settings
    services: tuple[str, ...] = ()
    permissive: bool = True
