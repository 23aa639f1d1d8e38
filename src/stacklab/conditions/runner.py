"""Running repairs: look, repair what is bad, prove by doing; one line for each."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from stacklab.conditions.condition import Condition, Finding
from stacklab.errors import CommandFailed, ServiceFailed
from stacklab.events import Emit, StageBegan, StageEnded, StageMoved
from stacklab.stages import Progress
from stacklab.waiting import sparing


@dataclass(frozen=True)
class RepairOutcome:
    """What became of one condition: how it was, whether something was changed, how it is now."""

    condition: Condition
    before: Finding
    changed: bool
    after: Finding

    @property
    def result(self) -> Literal["done", "already", "skipped", "failed"]:
        """done, already, skipped (not applicable here) or failed."""
        if not self.after.fine:
            return "failed"
        if self.changed:
            return "done"
        return "skipped" if self.after.state == "not_applicable" else "already"


def repair(conditions: Sequence[Condition], emit: Emit) -> list[RepairOutcome]:
    """Repair these in order. What is well is not touched. One that fails does not keep the next from being tried.

    Neighbours that watch for more than a minute are repaired first, then watched together. Raises NO_WAY_THERE.
    """
    outcomes: list[RepairOutcome] = []
    for _, group in itertools.groupby(enumerate(conditions), lambda item: "watch" if item[1].watches else item[0]):
        outcomes += _Group([condition for _, condition in group], emit).run()
    return outcomes


def all_well(outcomes: Sequence[RepairOutcome]) -> str:
    """One line on what was done. Raises ServiceFailed, with the evidence, if something is still bad or cannot be told."""
    bad = [outcome for outcome in outcomes if outcome.result == "failed"]
    if bad:
        evidence = "\n".join(f"{outcome.condition.id}: {outcome.after.evidence}" for outcome in bad)
        many = f"{len(bad)} fixes did not help" if len(bad) > 1 else "a fix did not help"
        first = bad[0].condition.id
        raise ServiceFailed(
            f"{many}:\n{evidence}", advice=f"lab fixes show {first} says what it is about; lab logs has more"
        )
    changed = [outcome.condition.id for outcome in outcomes if outcome.changed]
    if not changed:
        return f"nothing to do: {sum(o.result == 'already' for o in outcomes)} things looked at, all well"
    return f"repaired: {', '.join(changed)}"


class _Group:
    """Conditions that are proved together; most groups are one condition."""

    def __init__(self, conditions: list[Condition], emit: Emit) -> None:
        self.conditions = conditions
        self.emit = emit
        self.repaired: dict[str, Finding | None] = {}
        """By id: what was repaired; a Finding where the repair itself failed."""

    def run(self) -> Iterator[RepairOutcome]:
        findings = [(condition, condition.look()) for condition in self.conditions]
        bad = [condition for condition, finding in findings if finding.state == "bad"]
        for condition, before in findings:
            began = time.monotonic()
            if before.fine or (before.state == "unknown" and not before.early):
                outcome = RepairOutcome(condition, before, False, before)
            else:
                self.emit(StageBegan(condition.id, condition.title))
                progress = self._progress(condition)
                for other in bad:
                    # The one before may have repaired what this one saw: the network agent is one of the units.
                    if not self.repaired or other.look().state == "bad":
                        self._repair(other, progress)
                bad = []
                outcome = self._proved(condition, before, progress)
            seconds = time.monotonic() - began
            self.emit(StageEnded(condition.id, condition.title, outcome.result, seconds, outcome.after.evidence))
            yield outcome

    def _proved(self, condition: Condition, before: Finding, progress: Progress) -> RepairOutcome:
        after = self.repaired.get(condition.id) or condition.prove(progress)
        if before.early and not after.fine and not self.repaired:
            # It was too early to tell, and now it has failed.
            self._repair(condition, progress)
            after = self.repaired.get(condition.id) or condition.prove(progress)
        return RepairOutcome(condition, before, condition.id in self.repaired, after)

    def _repair(self, condition: Condition, progress: Progress) -> None:
        try:
            condition.repair(progress)
        except CommandFailed as error:
            self.repaired[condition.id] = Finding("bad", condition.masked(error.message))
        else:
            self.repaired[condition.id] = None

    def _progress(self, condition: Condition) -> Progress:
        return sparing(lambda detail: self.emit(StageMoved(condition.id, condition.masked(detail))))
