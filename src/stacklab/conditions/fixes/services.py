"""Services of the distribution that DevStack leans on: they must run, start at boot where DevStack forgot that, and answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stacklab.conditions.finding import Finding
from stacklab.conditions.fixes import systemd
from stacklab.conditions.fixes.fix import Action, Fix, command
from stacklab.conditions.fixes.systemd import Unit, service
from stacklab.conditions.fixes.talk import AMQP, HTTP, MEMCACHED, MYSQL, Talk, http_status
from stacklab.deploy.profile.model import Profile
from stacklab.errors import CommandFailed
from stacklab.machines.base import Machine
from stacklab.stages import Progress


class Service(Fix):
    """One or more units. `talk`: how the service proves that it works."""

    def __init__(
        self, id_: str, title: str, why: str, names: Callable[[Profile], Sequence[str]], talk: Talk | None = None
    ) -> None:
        self.id, self.title, self.why = id_, title, why
        self.names = names
        self.talk = talk
        self.patience = 120  # rabbitmq on an emulated machine

    def look(self, machine: Machine, profile: Profile) -> Finding:
        found = systemd.look(machine, [service(name) for name in self.names(profile)])
        if not found:
            return Finding("not_applicable", "this profile has no such service")
        sockets = _sockets(machine, found)
        wrong = [unit for unit in found if not _well(unit, sockets)]
        if wrong and all(unit.starting and unit.at_boot for unit in wrong):
            # After a boot the slow ones (rabbitmq) are on their way; `verify` waits for them.
            return Finding(
                "unknown", f"{', '.join(systemd.plain(unit.name) for unit in wrong)} is just starting", early=True
            )
        if wrong:
            return Finding("broken", "\n".join(self._evidence(machine, unit) for unit in wrong))
        said = [f"{systemd.plain(unit.name)} is {unit.said}, and starts at boot" for unit in found]
        if self.talk:
            works, told = self.talk.hold(machine)
            if not works:
                return Finding("broken", f"{'; '.join(said)}, but {told}")
            said.append(told)
        return Finding("well", "; ".join(said))

    def plan(self, machine: Machine, profile: Profile) -> list[Action]:
        names = [service(name) for name in self.names(profile)]
        found = systemd.look(machine, names)
        sockets = _sockets(machine, found)
        wrong = [unit for unit in found if not _well(unit, sockets)]
        # Units that run and do not answer are not helped by `start`.
        deaf = not wrong and self.talk is not None and not self.talk.hold(machine)[0]
        actions: list[Action] = []
        for unit in [unit for unit in wrong or found if unit.there]:
            if unit.load == "masked":
                actions.append(command("systemctl", "unmask", unit.name))
            if not unit.at_boot or unit.enablement == "enabled":
                actions.append(command("systemctl", "enable", unit.name))
            verb = "restart" if deaf else "start"
            actions.append(command("systemctl", verb, unit.name, seconds=systemd.RESTART_SECONDS))
        return actions

    def apply(self, machine: Machine, profile: Profile, progress: Progress) -> None:
        missing = [unit for unit in systemd.look(machine, map(service, self.names(profile))) if not unit.there]
        if missing:  # `verify` would wait for them in vain
            raise CommandFailed("\n".join(self._evidence(machine, unit) for unit in missing))
        super().apply(machine, profile, progress)

    def _evidence(self, machine: Machine, unit: Unit) -> str:
        name = systemd.plain(unit.name)
        if not unit.there:
            return f"there is no unit {unit.name} on this machine: stack.sh (lab up) installs it"
        if unit.running:
            return f"{name} runs, but will not start at boot ({unit.enablement or 'not enabled'})"
        boot = "" if unit.at_boot else f", and will not start at boot ({unit.enablement or 'not enabled'})"
        return (systemd.why_down(machine, unit) if unit.failed else f"{name} is {unit.said}") + boot


class Front(Fix):
    """Apache as the way to the services behind it."""

    id = "front"
    title = "Apache reaches the services behind it"
    why = (
        "Apache passes the requests of Keystone and the other APIs on to uwsgi processes, and runs Horizon inside itself. What "
        "met services that were not well yet may stay broken inside Apache after they are well again (the course's Horizon "
        "with its error, cannot import name cinder, may be such a case). Started anew, Apache forgets it."
    )
    patience = 180

    def look(self, machine: Machine, profile: Profile) -> Finding:
        answers = {path: http_status(machine, path) for path in (profile.cloud.identity, profile.cloud.dashboard)}
        said = "; ".join(f"GET {path}: {status or 'no answer'}" for path, status in answers.items())
        broken = any(status is None or status >= 400 for status in answers.values())
        return Finding("broken" if broken else "well", said)

    def plan(self, machine: Machine, profile: Profile) -> list[Action]:
        return [command("systemctl", "restart", service(profile.units.apache), seconds=systemd.RESTART_SECONDS)]


def _sockets(machine: Machine, units: Sequence[Unit]) -> frozenset[str]:
    """The active units among those that start one of these on demand."""
    triggers = sorted({name for unit in units if not unit.running for name in unit.triggers})
    return frozenset(unit.name for unit in systemd.look(machine, triggers) if unit.running)


def _well(unit: Unit, sockets: frozenset[str]) -> bool:
    """Up and there after a boot; or at rest until somebody calls its socket, as libvirtd is in newer distributions."""
    if unit.running:
        return unit.at_boot
    return unit.active == "inactive" and any(name in sockets for name in unit.triggers)


APACHE = Service(
    "apache",
    "Apache runs, now and after a reboot",
    "stack.sh starts Apache but never enables it, so after a reboot of the machine Horizon and every API refuse "
    "connections. That is the first thing the course's session 4 meets: systemctl status says that it is not "
    "running; it has to be started, and enabled.",
    lambda profile: [profile.units.apache],
    HTTP,
)
MEMCACHED_SERVICE = Service(
    "memcached",
    "memcached runs, now and after a reboot",
    "Keystone, Horizon and the services' token checks keep short-lived things in memcached. stack.sh starts it "
    "but never enables it, so it is gone after a reboot, and logins to Horizon become slow or fail.",
    lambda profile: [profile.units.memcached],
    MEMCACHED,
)
DATABASE = Service(
    "database",
    "the database answers",
    "Every service keeps what it knows in the database: users, instances, networks, the catalogue. Without it "
    "none of them can do anything, so it comes before them.",
    lambda profile: [profile.units.database],
    MYSQL,
)
QUEUE = Service(
    "queue",
    "the message queue answers",
    "The parts of a service (nova-api, scheduler, conductor, compute) talk to each other through RabbitMQ. It is "
    "slow to start, and it must answer before they do, else they wait and report themselves down.",
    lambda profile: [profile.units.queue],
    AMQP,
)
SWITCH = Service(
    "switch",
    "the switch and the hypervisor's daemon run",
    "Open vSwitch carries the instances' packets, and libvirtd starts the instances: the network agent and nova-compute fail "
    "without them.",
    lambda profile: [*profile.units.switch, profile.units.libvirt],
)
