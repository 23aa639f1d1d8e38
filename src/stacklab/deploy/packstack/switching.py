"""Services of the distribution that are in PackStack's way, switched off, and what takes their place, switched on."""

from __future__ import annotations

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.stack.detached import unit_states
from stacklab.errors import CommandFailed
from stacklab.stages import Progress, Stage


def stages(deployment: Deployment) -> list[Stage]:
    """One stage, where the profile names any."""
    switched = deployment.profile.switched
    if not switched.off and not switched.on:
        return []
    do = _Switching(deployment)
    names = [*(f"{name} off" for name in switched.off), *(f"{name} on" for name in switched.on)]
    return [Stage("switched", f"{', '.join(names)}", do.already, do.run, 5)]


class _Switching:
    def __init__(self, deployment: Deployment) -> None:
        self.machine, self.switched = deployment.machine, deployment.profile.switched

    def _wrong(self) -> list[str]:
        """Units that are not as they should be. One that the machine does not have is off."""
        states = unit_states(self.machine, [*self.switched.off, *self.switched.on])
        up = {name for name, (_, active) in states.items() if active in ("active", "activating")}
        off = [name for name in self.switched.off if name in up or states[name][0] == "enabled"]
        # Of a service that is still a script of System V's, not every systemd says whether it is enabled.
        return off + [name for name in self.switched.on if name not in up or states[name][0] == "disabled"]

    def already(self) -> str | None:
        """Why there is nothing to do."""
        return None if self._wrong() else "as they should be"

    def run(self, progress: Progress) -> str:
        """Those that come on first: with NetworkManager gone and nothing in its place the machine would be lost."""
        wrong = self._wrong()
        for name in self.switched.on:
            if name in wrong:
                progress(f"systemctl enable {name}, start it")
                self.machine.run("systemctl", "enable", name, user="root")
        for name in self.switched.off:
            if name in wrong:
                progress(f"systemctl disable --now {name}")
                self.machine.run("systemctl", "disable", "--now", name, user="root")
        for name in self.switched.on:
            if name in wrong:
                self.machine.run("systemctl", "restart", name, user="root")
        left = self._wrong()
        if left:
            raise CommandFailed(
                f"{', '.join(left)} on {self.machine.name} cannot be switched",
                advice=f"systemctl status {left[0]} there",
            )
        return ", ".join(wrong)
