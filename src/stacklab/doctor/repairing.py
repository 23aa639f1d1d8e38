"""`lab doctor --fix`: the commands that need no decision are shown, run, and the probe has the last word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stacklab.conditions.condition import Finding
from stacklab.conditions.remedy import Attempt, Remedy
from stacklab.doctor.examine import DoctorReport, Progress, Subject, examine

ROUNDS = 4
"""What was repaired may show the next thing that is wrong: a daemon that runs, a pool that is off."""


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
    """Repair what can be repaired safely. The last of all is the list of answers after it."""
    tried: dict[Remedy, Attempt] = {}
    for _ in range(ROUNDS):
        todo = [answer for answer in answers if answer.safe and _is_new(answer.finding, tried)]
        if not todo:
            break
        for answer in todo:
            yield answer
            yield from _repair(answer, tried)
        answers = list(examine(subject, progress))
    yield answers


def _commands(finding: Finding) -> list[Remedy]:
    return [remedy for remedy in finding.remedies if isinstance(remedy, Remedy)]


def _is_new(finding: Finding, tried: dict[Remedy, Attempt]) -> bool:
    """Whether a command is left to run before one that has failed."""
    for command in _commands(finding):
        if command not in tried:
            return True
        if tried[command].status != 0 and not command.optional:
            return False
    return False


def _repair(answer: DoctorReport, tried: dict[Remedy, Attempt]) -> Iterator[Event]:
    now = answer.probe.run()  # what was done for another one may have repaired it
    attempts: list[Attempt] = []
    for command in _commands(now) if now.state != "good" else []:
        if command not in tried:
            yield command
            tried[command] = command.run()
            yield tried[command]
            attempts.append(tried[command])
        if tried[command].status != 0 and not command.optional:
            break  # now, and in a later round
    yield Repaired(answer, answer.probe.run() if attempts else now, attempts)
