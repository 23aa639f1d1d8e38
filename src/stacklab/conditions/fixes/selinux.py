"""SELinux: permissive now and for good, or enforcing with the rules that DevStack's Open vSwitch and Apache lack."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence

from stacklab.conditions.finding import Finding
from stacklab.conditions.fixes import systemd
from stacklab.conditions.fixes.fix import Action, Fix, Script, Write, command, probe
from stacklab.deploy.profile.model import Profile, Selinux
from stacklab.errors import CommandFailed, ProfileInvalid
from stacklab.machines.base import Machine

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


class SelinuxFix(Fix):
    """`permissive`: what the learner chose."""

    id = "selinux"
    title = "SELinux lets DevStack work"

    def __init__(self, *, permissive: bool) -> None:
        self.permissive = permissive
        chosen = (
            "Chosen: permissive. SELinux reports what it would forbid and forbids nothing, now and after every "
            "reboot. Quick, and right for a lab; in production it would give up a line of defence for everything "
            "on the machine because of one missing rule."
            if permissive
            else "Chosen: a policy module. SELinux goes on enforcing; the one rule that is missing is added, so "
            "that Open vSwitch may open that port and nothing else changes. That is how it is done in "
            "production."
        )
        self.why = (
            "stack.sh switches SELinux to permissive with setenforce 0, which lasts until the next reboot only. "
            "Then SELinux enforces again, and keeps Open vSwitch (ovsdb-server) from opening port 6640, over "
            'which the network agent asks it for things: the agent fails with "Could not retrieve schema from '
            f'tcp:… Connection refused". {chosen}'
        )

    def look(self, machine: Machine, profile: Profile) -> Finding:
        mode = mode_of(machine)
        if mode in (None, "Disabled"):
            return Finding("not_applicable", "SELinux is off" if mode else "this distribution comes without SELinux")
        wanted = profile.selinux or Selinux()
        config = config_of(machine, wanted.config)
        at_boot = self._forced(machine) or config
        said = f"getenforce says {mode}; {wanted.config} has SELINUX={config}"
        if at_boot != config:
            said += f", but the kernel's command line overrules it: {at_boot}"
        if self.permissive:
            well = mode == "Permissive" and at_boot in ("permissive", "disabled")
            return Finding("well" if well else "broken", said)
        if not wanted.module:
            return Finding("not_applicable", f"the profile {profile.name} has no policy module; {said}")
        lacks = [*lacking(machine, rules(wanted.module)), *self._off(machine, wanted.booleans)]
        if lacks:
            return Finding("broken", "\n".join([said, *lacks]))
        if mode != "Enforcing" or at_boot != "enforcing":
            return Finding("broken", f"{said}; with the module there is no need for that")
        return Finding("well", f"{said}, and the policy allows all of module {module_name(wanted.module)}")

    def plan(self, machine: Machine, profile: Profile) -> list[Action]:
        wanted = profile.selinux or Selinux()
        if self.permissive:
            return [command("setenforce", "0"), set_config(wanted.config, "permissive")]
        if not wanted.module:
            raise ProfileInvalid(
                f"the profile {profile.name} has no SELinux policy module",
                advice="lab fixes apply selinux --permissive works without one",
            )
        actions = load(wanted.module)
        if wanted.booleans:
            settings = [f"{boolean}=on" for boolean in wanted.booleans]
            actions.append(command("setsebool", "-P", *settings, seconds=POLICY_SECONDS))
        actions += [command("setenforce", "1"), set_config(wanted.config, "enforcing")]
        return [*actions, *try_again(machine, profile)]  # they met the refusal

    def _forced(self, machine: Machine) -> str | None:
        """The mode that the kernel is booted into whatever the configuration says."""
        return forced((machine.read("/proc/cmdline") or b"").decode(errors="replace"))

    def _off(self, machine: Machine, booleans: Sequence[str]) -> list[str]:
        if not booleans:
            return []
        done = probe(machine, "getsebool", *booleans)
        if not done.ok:
            raise CommandFailed(
                "getsebool does not know every boolean of the profile", status=done.status, said=done.err
            )
        return [f"the boolean {name} is off" for name, on in read_booleans(done.out).items() if not on]


def load(source: str) -> list[Action]:
    """Compile the module and load it."""
    name = module_name(source)
    text, module, package = (f"{DIRECTORY}/{name}.{ending}" for ending in ("te", "mod", "pp"))
    return [
        Write(text, source),
        command("checkmodule", "-M", "-m", "-o", module, text),
        command("semodule_package", "-o", package, "-m", module),
        command("semodule", "-i", package, seconds=POLICY_SECONDS),
    ]


def try_again(machine: Machine, profile: Profile) -> list[Action]:
    """Restart Open vSwitch and then the agent that asks it, as far as they are there."""
    names = [*map(systemd.service, profile.units.switch), systemd.stack_unit(profile.units.network_agent)]
    return [
        command("systemctl", "restart", unit.name, seconds=systemd.RESTART_SECONDS)
        for unit in systemd.look(machine, names)
        if unit.there
    ]


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


def lacking(machine: Machine, wanted: Sequence[str]) -> list[str]:
    """Which of these rules (see `rules`) the policy that the kernel has loaded does not allow. Raises CommandFailed."""
    answers = [line.split(" ", 1) for line in machine.script(ASK, *wanted, user="root").lines]
    if len(answers) != len(wanted):
        raise CommandFailed("the kernel did not answer for every rule of the policy module")
    return [ANSWERS[answer].format(rule) for answer, rule in answers if answer != "yes"]


def config_of(machine: Machine, path: str) -> str:
    """The mode that the configuration asks for at boot."""
    return read_config((machine.read(path) or b"").decode(errors="replace"))


def set_config(path: str, mode: str) -> Script:
    """Make the mode that holds from the next boot on `mode`."""
    file = shlex.quote(path)
    return Script(
        f"grep -q '^SELINUX=' {file} || echo SELINUX={mode} >> {file}; sed -i 's/^SELINUX=.*/SELINUX={mode}/' {file}"
    )


def read_config(text: str) -> str:
    """The mode in /etc/selinux/config; a file without one means enforcing, as for the init program that reads it."""
    found = re.findall(r"^\s*SELINUX\s*=\s*(\w+)", text, re.MULTILINE)
    return found[-1].lower() if found else "enforcing"


def forced(cmdline: str) -> str | None:
    """What `enforcing=` on the kernel's command line decides, if it is there. (S: libselinux, load_policy.c)"""
    found = re.findall(r"(?:^|\s)enforcing=([01])(?=\s|$)", cmdline)
    return {"0": "permissive", "1": "enforcing"}[found[-1]] if found else None


def read_booleans(text: str) -> dict[str, bool]:
    """What getsebool prints: `NAME --> on`."""
    return {name: state == "on" for name, state in re.findall(r"^(\S+) --> (on|off)", text, re.MULTILINE)}


def module_name(source: str) -> str:
    """The name that the module gives itself. Raises ProfileInvalid."""
    found = re.search(r"^\s*module\s+(\w+)\s+[\d.]+\s*;", source, re.MULTILINE)
    if not found:
        raise ProfileInvalid("selinux.module of the profile does not begin with 'module NAME VERSION;'")
    return found[1]


def rules(source: str) -> list[str]:
    """Every `allow` rule, taken apart: `source:target:class:permission`. `self` is the source type."""
    text = re.sub(r"#.*", "", source)
    found = []
    for sources, targets, classes, permissions in re.findall(
        r"\ballow\s+({[^}]*}|\w+)\s+({[^}]*}|\w+)\s*:\s*({[^}]*}|\w+)\s+({[^}]*}|\w+)\s*;", text
    ):
        parts = [part.strip("{}").split() for part in (sources, targets, classes, permissions)]
        for one, target, class_, permission in itertools.product(*parts):
            found.append(f"{one}:{one if target == 'self' else target}:{class_}:{permission}")
    return found
