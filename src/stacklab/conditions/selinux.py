"""SELinux: permissive now and for good, or enforcing with the rules that DevStack's Open vSwitch and Apache lack."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Sequence

from stacklab.conditions.condition import Action, Finding
from stacklab.conditions.machine import MachineCondition, MachineFault, MachineRepair, Target
from stacklab.conditions.systemd import RESTART_SECONDS, Unit, service, stack_unit, why_down
from stacklab.deploy.profile.model import Selinux
from stacklab.errors import CommandFailed, ProfileInvalid
from stacklab.machines.base import Machine
from stacklab.machines.selinux import config_of, forced, is_off, mode_of

ENFORCING = "Enforcing"
DIRECTORY = "/usr/local/share/stacklab/selinux"
"""Where the module stays on the machine, for whoever wants to read what was loaded.

semodule runs confined, too: Debian's policy lets it map (libsemanage does) files of type usr_t, not those of /etc or /var/lib.
"""

POLICY_SECONDS = 600
"""semodule and setsebool rebuild the whole policy: minutes on an emulated machine."""

# The kernel itself is asked, as libselinux does it: "source target class" into /sys/fs/selinux/access on one descriptor, the
# allowed permissions as a hexadecimal mask out of it. object_r fits any type, so the answer depends on the types alone.
ASK = """
s=/sys/fs/selinux
level=; [ "$(cat $s/mls)" = 0 ] || level=:s0
for rule; do
  set -- $(echo "$rule" | tr ':' ' ')
  class=$s/class/$3
  if [ ! -e "$class/perms/$4" ]; then echo "class $rule"; continue; fi
  exec 3<>$s/access
  if ! printf '%s' "system_u:object_r:$1$level system_u:object_r:$2$level $(cat "$class/index")" >&3 2>/dev/null; then
    echo "type $rule"; continue
  fi
  allowed=$(cat <&3)
  exec 3>&-
  if [ $(( 0x${allowed%% *} >> ($(cat "$class/perms/$4") - 1) & 1 )) = 1 ]; then echo "yes $rule"; else echo "no $rule"; fi
done
"""

ANSWERS = {
    "no": "the policy does not allow {}",
    "type": "the policy does not know the types of {}",
    "class": "the policy does not know the class or permission of {}",
}


class SelinuxCondition(MachineCondition):
    """What the two have in common: the policy module, the configuration, and who must be started again."""

    @property
    def settings(self) -> Selinux:
        """What the profile says of SELinux."""
        return self.profile.selinux or Selinux()

    def denied(self) -> list[str]:
        """What the kernel's policy does not allow of the module's rules."""
        return lacking(self.machine, rules(self.settings.module or ""))

    def loading(self) -> Iterator[Action]:
        """Compile the module and load it."""
        source = self.settings.module or ""
        text, module, package = (f"{DIRECTORY}/{module_name(source)}.{ending}" for ending in ("te", "mod", "pp"))
        yield self.write(text, source)
        yield self.command("checkmodule", "-M", "-m", "-o", module, text)
        yield self.command("semodule_package", "-o", package, "-m", module)
        yield self.command("semodule", "-i", package, seconds=POLICY_SECONDS)

    def enforcing(self, mode: str) -> Action:
        """Switch to this mode (enforcing, permissive) now."""
        return self.command("setenforce", "1" if mode == ENFORCING.lower() else "0")

    def configuring(self, mode: str) -> Action:
        """Make the mode that holds from the next boot on `mode`."""
        file = shlex.quote(self.settings.config)
        append = f"grep -q '^SELINUX=' {file} || echo SELINUX={mode} >> {file}"
        return self.script(f"{append}; sed -i 's/^SELINUX=.*/SELINUX={mode}/' {file}")

    def trying_again(self) -> Iterator[Action]:
        """Restart Open vSwitch and then the agent that asks it, as far as they are there: they met the refusal."""
        names = [*map(service, self.profile.units.switch), stack_unit(self.profile.units.network_agent)]
        for unit in self.units(*names):
            if unit.there:
                yield self.command("systemctl", "restart", unit.name, seconds=RESTART_SECONDS)


class SelinuxAllows(SelinuxCondition, MachineRepair):
    """`permissive`: what the learner chose."""

    id = "selinux"

    def __init__(self, target: Target, *, permissive: bool) -> None:
        super().__init__(target)
        self.permissive = permissive
        self.why += " " + self.texts["permissive" if permissive else "enforcing"]

    def see(self) -> Finding:
        mode = mode_of(self.machine)
        if why := is_off(mode):
            return Finding("not_applicable", why)
        settings, config = self.settings, config_of(self.machine, self.settings.config)
        # The mode that the kernel is booted into whatever the configuration says.
        at_boot = forced((self.machine.read("/proc/cmdline") or b"").decode(errors="replace")) or config
        evidence = f"getenforce says {mode}; {settings.config} has SELINUX={config}"
        if at_boot != config:
            evidence += f", but the kernel's command line overrules it: {at_boot}"
        if self.permissive:
            well = mode == "Permissive" and at_boot in ("permissive", "disabled")
            return Finding("good" if well else "bad", evidence)
        if not settings.module:
            return Finding("not_applicable", f"the profile {self.profile.name} has no policy module; {evidence}")
        lacks = [*self.denied(), *self._off(settings.booleans)]
        if lacks:
            return Finding("bad", "\n".join([evidence, *lacks]))
        if mode != ENFORCING or at_boot != "enforcing":
            return Finding("bad", f"{evidence}; with the module there is no need for that")
        return Finding("good", f"{evidence}, and the policy allows all of module {module_name(settings.module)}")

    def repairing(self) -> Iterator[Action]:
        if self.permissive:
            yield self.enforcing("permissive")
            yield self.configuring("permissive")
            return
        if not self.settings.module:
            raise ProfileInvalid(
                f"the profile {self.profile.name} has no SELinux policy module",
                advice="lab fixes apply selinux --permissive works without one",
            )
        yield from self.loading()
        if self.settings.booleans:
            on = [f"{boolean}=on" for boolean in self.settings.booleans]
            yield self.command("setsebool", "-P", *on, seconds=POLICY_SECONDS)
        yield self.enforcing("enforcing")
        yield self.configuring("enforcing")
        yield from self.trying_again()

    def _off(self, booleans: Sequence[str]) -> list[str]:
        if not booleans:
            return []
        done = self.probe("getsebool", *booleans)
        if not done.ok:
            why = "getsebool does not know every boolean of the profile"
            raise CommandFailed(why, status=done.status, said=done.err)
        return [f"the boolean {name} is off" for name, on in read_booleans(done.out).items() if not on]


class SelinuxDenies(SelinuxCondition, MachineFault):
    """SELinux enforces again without the agent's rule, as after a reboot.

    Both repairs count, permissive mode and a policy module, and any other with which the agent stays up.
    """

    id = "selinux-q-agt"
    title = "SELinux denies the network agent what it needs"
    patience = 240
    """The agent fails in less than a minute; restarting Open vSwitch comes before it."""

    def lacks(self) -> str | None:
        if why := is_off(mode_of(self.machine)):
            return why
        if not self.settings.module:
            return f"the profile {self.profile.name} knows of nothing that SELinux denies its network agent"
        if why := self.lacks_unit(self.profile.units.network_agent):
            return why
        if not self._loaded() and not self.denied():
            return "the machine's policy allows the agent all it needs, without lab's module"
        return None

    def see(self) -> Finding:
        mode = mode_of(self.machine)
        if why := is_off(mode):
            return Finding("not_applicable", why)
        denied = self.denied() if mode == ENFORCING else []
        evidence = [f"getenforce says {mode}", *denied]
        if mode != ENFORCING and config_of(self.machine, self.settings.config) == "enforcing":
            evidence.append(f"until the next reboot only: {self.settings.config} has SELINUX=enforcing")
        unit = self._agent()
        if unit.running and (not denied or unit.age >= self.profile.units.watch_seconds):
            return Finding("good", "; ".join([f"{unit.plain} is {unit.said}", *evidence]))
        if unit.running or unit.starting:
            early = f"{unit.plain} is {unit.said}, too early to tell"
            return Finding("unknown", "; ".join([early, *evidence]), early=True)
        return Finding("bad", "\n".join([why_down(self.machine, unit), *evidence, *self._audited()]))

    def breaking(self) -> Iterator[Action]:
        mode = mode_of(self.machine)
        if mode not in (ENFORCING, "Permissive"):
            raise CommandFailed("SELinux is off on this machine")
        loaded = self._loaded()
        if self.kept.read() is None:
            config = config_of(self.machine, self.settings.config)
            yield self.kept.keeping(mode=mode, config=config, module=loaded)
        if loaded:
            yield self.command("semodule", "-r", module_name(self.settings.module or ""), seconds=POLICY_SECONDS)
        yield self.configuring("enforcing")
        yield self.enforcing("enforcing")
        yield from self.trying_again()

    def repairing(self) -> Iterator[Action]:
        kept, well = self.kept.read(), self.look().state == "good"
        if kept is None or (kept["mode"] == ENFORCING and not kept["module"]):  # not of our making
            if not well:
                yield from SelinuxAllows(self.target, permissive=self.deployment.permissive).repairing()
                yield from self.trying_again()
            return
        if kept["module"] and not self._loaded():
            well = False
            yield from self.loading()
        if config_of(self.machine, self.settings.config) != kept["config"]:
            well = False
            yield self.configuring(kept["config"])
        if mode_of(self.machine) != kept["mode"]:
            well = False
            yield self.enforcing(kept["mode"].lower())
        if not well:
            yield from self.trying_again()

    def _agent(self) -> Unit:
        return self.units(stack_unit(self.profile.units.network_agent))[0]

    def _loaded(self) -> bool:
        listed = self.probe("semodule", "-l")
        if not listed.ok:
            raise CommandFailed("semodule does not list the modules", status=listed.status, said=listed.err)
        name = module_name(self.settings.module or "")
        return name in {line.split()[0] for line in listed.lines if line.strip()}

    def _audited(self) -> list[str]:
        """What the audit log says of it: the last denial of the module's own type."""
        types = {rule.split(":")[0] for rule in rules(self.settings.module or "")}
        try:
            # Without --input-logs it reads a standard input that is no terminal.
            lines = self.probe("ausearch", "--input-logs", "-m", "avc", "-ts", "yesterday").lines
        except CommandFailed:
            return []  # no auditd: the kernel's ring buffer has other things to do
        return [line for line in lines if "denied" in line and any(f":{type_}:" in line for type_ in types)][-1:]


# --- reading the policy ---------------------------------------------------------------------------------------------


def lacking(machine: Machine, wanted: Sequence[str]) -> list[str]:
    """Which of these rules (see `rules`) the policy that the kernel has loaded does not allow. Raises CommandFailed."""
    answers = [line.split(" ", 1) for line in machine.script(ASK, *wanted, user="root").lines]
    if len(answers) != len(wanted):
        raise CommandFailed("the kernel did not answer for every rule of the policy module")
    return [ANSWERS[answer].format(rule) for answer, rule in answers if answer != "yes"]


def read_booleans(text: str) -> dict[str, bool]:
    """What getsebool prints: `NAME --> on`."""
    return {name: state == "on" for name, state in re.findall(r"^(\S+) --> (on|off)", text, re.MULTILINE)}


def module_name(source: str) -> str:
    """The name that the module gives itself. Raises ProfileInvalid."""
    match = re.search(r"^\s*module\s+(\w+)\s+[\d.]+\s*;", source, re.MULTILINE)
    if not match:
        raise ProfileInvalid("selinux.module of the profile does not begin with 'module NAME VERSION;'")
    return match[1]


def rules(source: str) -> list[str]:
    """Every `allow` rule, taken apart: `source:target:class:permission`. `self` is the source type."""
    text = re.sub(r"#.*", "", source)
    rules = []
    for sources, targets, classes, permissions in re.findall(
        r"\ballow\s+({[^}]*}|\w+)\s+({[^}]*}|\w+)\s*:\s*({[^}]*}|\w+)\s+({[^}]*}|\w+)\s*;", text
    ):
        parts = [part.strip("{}").split() for part in (sources, targets, classes, permissions)]
        for source, target, class_, permission in itertools.product(*parts):
            rules.append(f"{source}:{source if target == 'self' else target}:{class_}:{permission}")
    return rules
