"""SELinux enforces again, without the rule that the network agent needs: the fix `selinux` backwards, as after a reboot."""

from __future__ import annotations

from collections.abc import Sequence

from stacklab.conditions.faults.fault import MachineFault
from stacklab.conditions.finding import Finding
from stacklab.conditions.fixes import systemd
from stacklab.conditions.fixes.fix import Action, command, probe
from stacklab.conditions.fixes.selinux import (
    POLICY_SECONDS,
    SelinuxFix,
    config_of,
    lacking,
    load,
    mode_of,
    module_name,
    rules,
    set_config,
    try_again,
)
from stacklab.conditions.fixes.systemd import WATCH_SECONDS, Unit, plain, stack_unit, why_down
from stacklab.deploy.profile.model import Selinux
from stacklab.errors import CommandFailed

ENFORCING = "Enforcing"


class SelinuxAgent(MachineFault):
    """Both repairs count, permissive mode and a policy module, and any other with which the agent stays up."""

    id = "selinux-q-agt"
    title = "SELinux denies the network agent what it needs"
    patience = 240
    """The agent fails in less than a minute; restarting Open vSwitch comes before it."""

    def lacks(self) -> str | None:
        mode = mode_of(self.machine)
        if mode in (None, "Disabled"):
            return "SELinux is off on this machine" if mode else "this distribution comes without SELinux"
        if not self._selinux.module:
            return f"the profile {self.profile.name} knows of nothing that SELinux denies its network agent"
        if not self._agent().there:
            return f"the machine has no unit {self._agent().name}"
        if not self._loaded() and not self._denied():
            return "the machine's policy allows the agent all it needs, without lab's module"
        return None

    def see(self) -> Finding:
        mode = mode_of(self.machine)
        if mode in (None, "Disabled"):
            return Finding("not_applicable", "SELinux is off" if mode else "this distribution comes without SELinux")
        denied = self._denied() if mode == ENFORCING else []
        config = config_of(self.machine, self._selinux.config)
        said = [f"getenforce says {mode}", *denied]
        if mode != ENFORCING and config == "enforcing":
            said.append(f"until the next reboot only: {self._selinux.config} has SELINUX=enforcing")
        unit = self._agent()
        if unit.running and (not denied or unit.age >= WATCH_SECONDS):
            return Finding("well", "; ".join([f"{plain(unit.name)} is {unit.said}", *said]))
        if unit.running or unit.starting:
            early = f"{plain(unit.name)} is {unit.said}, too early to tell"
            return Finding("unknown", "; ".join([early, *said]), early=True)
        return Finding("broken", "\n".join([why_down(self.machine, unit), *said, *self._audited()]))

    def breaking(self) -> Sequence[Action]:
        kept = self.kept.read()
        mode = mode_of(self.machine)
        if mode not in (ENFORCING, "Permissive"):
            raise CommandFailed("SELinux is off on this machine")
        loaded = self._loaded()
        actions: list[Action] = []
        if kept is None:
            config = config_of(self.machine, self._selinux.config)
            actions.append(self.kept.keeping(mode=mode, config=config, module="loaded" if loaded else ""))
        if loaded:
            actions.append(command("semodule", "-r", self._name, seconds=POLICY_SECONDS))
        actions += [set_config(self._selinux.config, "enforcing"), command("setenforce", "1")]
        return [*actions, *try_again(self.machine, self.profile)]

    def mending(self) -> Sequence[Action]:
        kept = self.kept.read()
        if kept is None or (kept["mode"] == ENFORCING and not kept["module"]):  # not of our making
            if self.look().state == "well":
                return ()
            fix = SelinuxFix(permissive=self.deployment.permissive)
            return [*fix.plan(self.machine, self.profile), *try_again(self.machine, self.profile)]
        actions: list[Action] = []
        if kept["module"] and not self._loaded():
            actions += load(self._selinux.module or "")
        config = self._selinux.config
        if config_of(self.machine, config) != kept["config"]:
            actions.append(set_config(config, kept["config"]))
        if mode_of(self.machine) != kept["mode"]:
            actions.append(command("setenforce", "1" if kept["mode"] == ENFORCING else "0"))
        again = try_again(self.machine, self.profile) if actions or self.look().state != "well" else []
        return [*actions, *again]

    @property
    def _selinux(self) -> Selinux:
        return self.profile.selinux or Selinux()

    @property
    def _name(self) -> str:
        return module_name(self._selinux.module or "")

    def _agent(self) -> Unit:
        (unit,) = systemd.look(self.machine, [stack_unit(self.profile.units.network_agent)])
        return unit

    def _denied(self) -> list[str]:
        return lacking(self.machine, rules(self._selinux.module or ""))

    def _loaded(self) -> bool:
        listed = probe(self.machine, "semodule", "-l")
        if not listed.ok:
            raise CommandFailed("semodule does not list the modules", status=listed.status, said=listed.err)
        return self._name in {line.split()[0] for line in listed.lines if line.strip()}

    def _audited(self) -> list[str]:
        """What the audit log says of it: the last denial of the module's own type."""
        types = {rule.split(":")[0] for rule in rules(self._selinux.module or "")}
        try:
            # Without --input-logs it reads a standard input that is no terminal.
            lines = probe(self.machine, "ausearch", "--input-logs", "-m", "avc", "-ts", "yesterday").lines
        except CommandFailed:
            return []  # no auditd: the kernel's ring buffer has other things to do
        return [line for line in lines if "denied" in line and any(f":{one}:" in line for one in types)][-1:]
