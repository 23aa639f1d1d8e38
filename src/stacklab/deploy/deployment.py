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

    @property
    def secrets(self) -> list[str]:
        """What no log and no message may show: the lab's passwords, and those in addresses of the settings."""
        return [secret for secret in (*self.lab.secrets(), *self.settings.passwords) if secret]

    def masked(self, text: str) -> str:
        """`text` without the secrets."""
        for secret in self.secrets:
            text = text.replace(secret, "********")
        return text
