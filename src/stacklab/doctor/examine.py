"""All probes of a home, asked at once, their findings in order; and `--fix`, where the probe has the last word."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial

from stacklab.conditions.condition import Finding
from stacklab.conditions.remedy import Attempt, Remedy
from stacklab.deploy.profile.settings import Settings
from stacklab.doctor import embedded, here
from stacklab.doctor.libvirt import LibvirtHost
from stacklab.doctor.probe import Probe, unknown
from stacklab.doctor.remote import Remote
from stacklab.homes.plan import Plan
from stacklab.lab import Lab

QUIET_SECONDS = 2.0
"""After so long it is said what is waited for."""
ROUNDS = 4
"""Of repairing. What was repaired may show the next thing that is wrong: a daemon that runs, a pool that is off."""
Progress = Callable[[str], None]


@dataclass
class Subject:
    """What is examined: a home, as this plan would have it. Use with `with`: its end gives up a machine's connection."""

    lab: Lab
    plan: Plan
    settings: Settings
    _open: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def probes(self) -> list[Probe]:
        """All that the home needs."""
        clock = Probe("clock", "clock", partial(here.clock, self.settings))
        return [Probe("python", "Python", here.python), *self._of_the_home(), clock]

    def _of_the_home(self) -> list[Probe]:
        if self.plan.home == "embedded":
            return embedded.probes()
        if self.plan.home == "libvirt":
            return LibvirtHost(self.lab, self.plan, self.settings).probes()
        remote = Remote(self.lab, self.plan, self.settings)
        self._open.callback(remote.close)
        return remote.probes()

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


@dataclass(frozen=True)
class DoctorReport:
    """One line of `lab doctor`: a probe, and what it saw."""

    probe: Probe
    finding: Finding

    @property
    def id(self) -> str:
        """The probe's."""
        return self.probe.id

    @property
    def safe(self) -> bool:
        """Whether lab may repair it by itself."""
        return self.finding.state != "good" and any(isinstance(remedy, Remedy) for remedy in self.finding.remedies)

    def document(self) -> dict[str, object]:
        """For --json."""
        lines = [str(remedy) for remedy in self.finding.remedies]
        return {
            "id": self.id, "title": self.probe.title, "state": self.finding.state, "evidence": self.finding.evidence,
            "repair": lines, "safe": self.safe,
        }  # fmt: skip


def examine(subject: Subject, progress: Progress = lambda _: None) -> Iterator[DoctorReport]:
    """Run all probes at once; answers come in the probes' order. `progress` hears after two seconds what is waited for."""
    findings: dict[str, futures.Future[Finding]] = {probe.id: futures.Future() for probe in subject.probes}
    began, heard = time.monotonic(), ""
    for probe in subject.probes:
        # Daemons: one that hangs in a library must not keep lab from ending.
        look = partial(lambda probe: findings[probe.id].set_result(probe.run()), probe)
        threading.Thread(target=look, name=f"doctor-{probe.id}", daemon=True).start()
    for probe in subject.probes:
        finding = findings[probe.id]
        while not finding.done() and (left := began + probe.seconds - time.monotonic()) > 0:
            futures.wait([finding], min(0.5, left))
            waiting = ", ".join(other.title for other in subject.probes if not findings[other.id].done())
            if waiting and waiting != heard and time.monotonic() - began >= QUIET_SECONDS:
                heard = waiting
                progress(waiting)
        late = unknown(f"nothing came of looking within {probe.seconds:.0f} s")
        yield DoctorReport(probe, finding.result() if finding.done() else late)


# --- repairing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Repaired:
    """What was done about a finding, and what its probe then saw."""

    before: DoctorReport
    after: Finding
    attempts: list[Attempt]

    @property
    def better(self) -> bool:
        """Whether the new look says so."""
        rank = {"good": 0, "not_applicable": 0, "warning": 1, "unknown": 2, "bad": 2}
        return rank[self.after.state] < rank[self.before.finding.state]

    def document(self) -> dict[str, object]:
        """For --json."""
        return {
            "id": self.before.id, "before": self.before.finding.state, "after": self.after.state,
            "evidence": self.after.evidence, "repaired": self.better,
            "commands": [{"line": it.line, "status": it.status, "said": it.output} for it in self.attempts],
        }  # fmt: skip


Event = DoctorReport | Remedy | Attempt | Repaired
"""In this order: what is taken up, a command before it runs, how it ended (both perhaps several times), what came of it."""


def repair(
    subject: Subject, answers: list[DoctorReport], progress: Progress = lambda _: None
) -> Iterator[Event | list[DoctorReport]]:
    """Repair what needs no decision of anybody. The last of all is the list of answers after it."""
    tried: dict[Remedy, Attempt] = {}
    for _ in range(ROUNDS):
        todo = [answer for answer in answers if answer.safe and _next_command(answer.finding, tried)]
        if not todo:
            break
        for answer in todo:
            yield answer
            yield from _repair(answer, tried)
        answers = list(examine(subject, progress))
    yield answers


def _repair(answer: DoctorReport, tried: dict[Remedy, Attempt]) -> Iterator[Event]:
    now = answer.probe.run()  # what was done for another one may have repaired it
    attempts: list[Attempt] = []
    while now.state != "good" and (command := _next_command(now, tried)):
        yield command
        tried[command] = command.run()
        yield tried[command]
        attempts.append(tried[command])
    yield Repaired(answer, answer.probe.run() if attempts else now, attempts)


def _next_command(finding: Finding, tried: dict[Remedy, Attempt]) -> Remedy | None:
    """The first command that was not run yet; none after one that failed."""
    for command in finding.remedies:
        if isinstance(command, Remedy):
            if command not in tried:
                return command
            if tried[command].status != 0 and not command.optional:
                return None
    return None
