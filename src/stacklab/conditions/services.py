"""Services of the distribution that DevStack leans on: they must run, start at boot where DevStack forgot that, and answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from stacklab.conditions.condition import Action, Finding
from stacklab.conditions.machine import MachineFault, MachineRepair, Target
from stacklab.conditions.systemd import RESTART_SECONDS, Unit, look, service, why_down
from stacklab.deploy.profile.model import Profile, Units
from stacklab.errors import CommandFailed, UnknownName
from stacklab.machines.base import Machine, probe
from stacklab.stages import Progress
from stacklab.suggest import closest


def unit_names(profile: Profile) -> dict[str, str]:
    """Units by the name that a person calls them: what OpenStack needs first, then OpenStack's own."""
    known = profile.units
    around = [known.database, known.queue, *known.switch, known.libvirt, known.apache, known.memcached]
    own = {name: f"devstack@{name}.service" for name in known.devstack}
    return {name: f"{name}.service" for name in around} | own | {name: f"{name}.service" for name in known.openstack}


def find_unit(profile: Profile, name: str) -> tuple[str, str]:
    """The name and its unit; `devstack@n-api`, `n-api.service` and `n-api` mean the same. Raises UnknownName."""
    known = unit_names(profile)
    plain = name.removesuffix(".service").removeprefix("devstack@")
    if plain not in known:
        raise UnknownName(f"there is no service '{name}'", advice=closest(plain, known, "lab status"))
    return plain, known[plain]


def units(machine: Machine, profile: Profile) -> dict[str, Unit]:
    """Every unit of the profile by the name that a person calls it, in that order."""
    known = unit_names(profile)
    return dict(zip(known, look(machine, known.values()), strict=True))


# --- what a service answers on the machine's loopback ---------------------------------------------------------------

ANSWER_SECONDS = 10

# bash alone can do it, and every supported distribution has bash: neither curl nor netcat need be there.
SAY = r"""exec 3<>"/dev/tcp/127.0.0.1/$0" || exit 7
printf "$1" >&3
head -c "$2" <&3 | od -An -v -tx1"""


@dataclass(frozen=True)
class Greeting:
    """How a service answers; its first bytes prove more than an open port or a process.

    `say`: what opens the conversation (printf's format); `answer`: how the answer begins; `length`: how much of it to read.
    """

    name: str
    port: int
    say: str
    answer: bytes
    length: int

    def ask(self, machine: Machine) -> tuple[bool, str]:
        """Whether it answered as it should, and what happened, in words."""
        status, answer = _exchange(machine, self.port, self.say, self.length, ANSWER_SECONDS)
        if status == 124:
            return False, f"nothing came from port {self.port} within {ANSWER_SECONDS} s"
        if not answer:
            return False, f"nobody answers on port {self.port}"
        if not answer.startswith(self.answer):
            return False, f"port {self.port} answered {answer!r}, which is not {self.name}"
        return True, f"{self.name} answers on port {self.port}"


HTTP = Greeting("HTTP", 80, r"HEAD / HTTP/1.0\r\nHost: localhost\r\n\r\n", b"HTTP/1.", 7)
MEMCACHED = Greeting("memcached", 11211, r"version\r\n", b"VERSION", 7)
AMQP = Greeting("AMQP", 5672, r"AMQP\x00\x00\x09\x01", b"\x01\x00\x00", 3)
"""AMQP 0-9-1: the protocol header; a broker opens with a method frame (type 1) on channel 0."""

MYSQL = Greeting("the database", 3306, "", b"", 5)
"""The server speaks first. Any greeting will do: an error packet ("host not allowed") comes from a living server, too."""


def http_status(machine: Machine, path: str) -> int | None:
    """The status of GET `path` on port 80; None if nothing came that is HTTP."""
    # The path goes through printf's format: a percent sign must be doubled.
    say = f"GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n".replace("%", "%%")
    _, answer = _exchange(machine, 80, say, len("HTTP/1.1 200"), 60)
    words = answer.decode(errors="replace").split()
    return int(words[1]) if len(words) == 2 and words[0].startswith("HTTP/") and words[1].isdigit() else None


def _exchange(machine: Machine, port: int, say: str, length: int, seconds: int) -> tuple[int, bytes]:
    """The status of it (124: nothing came in time), and the first bytes of the answer."""
    argv = ("timeout", str(seconds), "bash", "-c", SAY, str(port), say, str(length))
    done = probe(machine, *argv, seconds=seconds + 30)
    return done.status, bytes.fromhex("".join(done.out.split()))


# --- the conditions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Service:
    """`units`: its units, as the profile calls them. `greeting`: how it proves that it works."""

    units: Callable[[Units], Sequence[str]]
    greeting: Greeting | None = None


SERVICES = {
    "apache": Service(lambda units: [units.apache], HTTP),
    "memcached": Service(lambda units: [units.memcached], MEMCACHED),
    "database": Service(lambda units: [units.database], MYSQL),
    "queue": Service(lambda units: [units.queue], AMQP),
    "switch": Service(lambda units: [*units.switch, units.libvirt]),
}
"""By the id of the condition, in the order in which one needs the other."""


class DistributionService(MachineRepair):
    """One of SERVICES."""

    patience = 120  # rabbitmq on an emulated machine

    def __init__(self, target: Target, id_: str) -> None:
        self.id = id_
        super().__init__(target)
        self.names, self.greeting = SERVICES[id_].units, SERVICES[id_].greeting

    def _units(self) -> list[Unit]:
        return self.units(*map(service, self.names(self.profile.units)))

    def see(self) -> Finding:
        units = self._units()
        wrong = [unit for unit in units if not _well(unit)]
        if wrong and all(unit.starting and unit.at_boot for unit in wrong):
            # After a boot the slow ones (rabbitmq) are on their way; `prove` waits for them.
            return Finding("unknown", f"{', '.join(unit.plain for unit in wrong)} is just starting", early=True)
        if wrong:
            return Finding("bad", "\n".join(self._evidence(unit) for unit in wrong))
        evidence = [f"{unit.plain} is {unit.said}, and starts at boot" for unit in units]
        if self.greeting:
            works, answer = self.greeting.ask(self.machine)
            if not works:
                return Finding("bad", f"{'; '.join(evidence)}, but {answer}")
            evidence.append(answer)
        return Finding("good", "; ".join(evidence))

    def repairing(self) -> Iterator[Action]:
        units = self._units()
        wrong = [unit for unit in units if not _well(unit)]
        # Units that run and do not answer are not helped by `start`.
        deaf = not wrong and self.greeting is not None and not self.greeting.ask(self.machine)[0]
        for unit in [unit for unit in wrong or units if unit.there]:
            if unit.load == "masked":
                yield self.command("systemctl", "unmask", unit.name)
            if not unit.at_boot or unit.enablement == "enabled":
                yield self.command("systemctl", "enable", unit.name)
            yield self.command("systemctl", "restart" if deaf else "start", unit.name, seconds=RESTART_SECONDS)

    def repair(self, progress: Progress) -> None:
        missing = [unit for unit in self._units() if not unit.there]
        if missing:  # `prove` would wait for them in vain
            raise CommandFailed("\n".join(self._evidence(unit) for unit in missing))
        super().repair(progress)

    def _evidence(self, unit: Unit) -> str:
        boot = f"will not start at boot ({unit.enablement or 'not enabled'})"
        if not unit.there:
            return f"there is no unit {unit.name} on this machine: stack.sh (lab up) installs it"
        if unit.running:
            return f"{unit.plain} runs, but {boot}"
        why = why_down(self.machine, unit) if unit.failed else f"{unit.plain} is {unit.said}"
        return why if unit.at_boot else f"{why}, and {boot}"


def _well(unit: Unit) -> bool:
    """Up and there after a boot; or at rest until somebody calls its socket."""
    return (unit.running and unit.at_boot) or unit.resting


class WebServer(MachineRepair):
    """Apache as the way to the services behind it."""

    id = "front"
    patience = 180

    def see(self) -> Finding:
        paths = (self.profile.cloud.identity, self.profile.cloud.dashboard)
        answers = {path: http_status(self.machine, path) for path in paths}
        evidence = "; ".join(f"GET {path}: {status or 'no answer'}" for path, status in answers.items())
        return Finding("bad" if any((status or 500) >= 400 for status in answers.values()) else "good", evidence)

    def repairing(self) -> list[Action]:
        return [self.command("systemctl", "restart", service(self.profile.units.apache), seconds=RESTART_SECONDS)]


class WebServerDown(MachineFault):
    """Apache stopped and not enabled: the conditions `apache` and `front`, broken."""

    id = "httpd"
    title = "Apache does not run, as after a reboot of the machine"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.parts = (DistributionService(target, "apache"), WebServer(target))

    def see(self) -> Finding:
        apache, pages = self.parts
        finding = apache.see()
        if finding.state != "good":
            return finding
        shown = pages.see()
        return Finding(shown.state, f"{finding.evidence}; {shown.evidence}")

    def breaking(self) -> list[Action]:
        unit = service(self.profile.units.apache)
        stop = self.command("systemctl", "stop", unit, seconds=RESTART_SECONDS)
        return [self.command("systemctl", "disable", unit), stop]

    def repairing(self) -> Iterator[Action]:
        for part in self.parts:
            if part.look().state == "bad":
                yield from part.repairing()
