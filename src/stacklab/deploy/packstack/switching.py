"""Services of the distribution that are in PackStack's way, switched off, and what takes their place, switched on."""

from __future__ import annotations

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.prepare.forms import fact_stage
from stacklab.deploy.stack.detached import unit_states
from stacklab.stages import Progress, Stage


def stages(deployment: Deployment) -> list[Stage]:
    """One stage, where the profile names any."""
    machine, switched = deployment.machine, deployment.profile.switched
    if not switched.off and not switched.on:
        return []

    def wrong() -> list[str]:
        """Units that are not as they should be. One that the machine does not have is off."""
        states = unit_states(machine, [*switched.off, *switched.on])
        up = {name for name, (_, active) in states.items() if active in ("active", "activating")}
        off = [name for name in switched.off if name in up or states[name][0] == "enabled"]
        # Of a service that is still a script of System V's, not every systemd says whether it is enabled.
        return off + [name for name in switched.on if name not in up or states[name][0] == "disabled"]

    def change(progress: Progress) -> None:
        """At boot first: with NetworkManager gone and nothing in its place the machine would be lost."""
        units = wrong()
        off, on = ([name for name in names if name in units] for names in (switched.off, switched.on))
        for words in (("enable", *on), ("disable", "--now", *off), ("restart", *on)):
            if words[-1] in units:
                progress(f"systemctl {' '.join(words)}")
                machine.run("systemctl", *words, user="root")

    names = [*(f"{name} off" for name in switched.off), *(f"{name} on" for name in switched.on)]
    problem = f"{', '.join(names)}: {machine.name} cannot be switched so"
    return [
        fact_stage(
            "switched", ", ".join(names), lambda: None if wrong() else "as they should be", change,
            problem=problem, advice=f"systemctl status {' '.join([*switched.off, *switched.on])} there", usual=5,
        )
    ]  # fmt: skip
