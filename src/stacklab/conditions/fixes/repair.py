"""Running fixes: look, apply what is broken, verify by doing; one line for each."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from stacklab.conditions.finding import Finding
from stacklab.conditions.fixes.fix import Fix, sparing
from stacklab.deploy.deployment import Deployment
from stacklab.errors import CommandFailed, ServiceFailed
from stacklab.events import Emit, StageBegan, StageEnded, StageMoved
from stacklab.lab import Lab
from stacklab.stages import Progress


@dataclass(frozen=True)
class Outcome:
    """What became of one fix: how it was, whether something was changed, how it is now."""

    fix: Fix
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


def repair(fixes: Sequence[Fix], deployment: Deployment, emit: Emit) -> list[Outcome]:
    """Run these fixes in order. What is well is not touched. One that fails does not keep the next from being tried.

    Neighbours that watch for more than a minute are applied first, then watched together. Raises MachineUnreachable and kin.
    """
    outcomes: list[Outcome] = []
    for _, group in itertools.groupby(enumerate(fixes), lambda item: "watch" if item[1].watches else item[0]):
        outcomes += _Group([fix for _, fix in group], deployment, emit).run()
    return outcomes


def all_well(outcomes: Sequence[Outcome]) -> str:
    """One line on what was done. Raises ServiceFailed, with the evidence, if something is still broken or cannot be told."""
    bad = [outcome for outcome in outcomes if outcome.result == "failed"]
    if bad:
        evidence = "\n".join(f"{outcome.fix.id}: {outcome.after.evidence}" for outcome in bad)
        many = f"{len(bad)} fixes did not help" if len(bad) > 1 else "a fix did not help"
        raise ServiceFailed(
            f"{many}:\n{evidence}", advice=f"lab fixes show {bad[0].fix.id} says what it is about; lab logs has more"
        )
    changed = [outcome.fix.id for outcome in outcomes if outcome.changed]
    if not changed:
        return f"nothing to do: {sum(o.result == 'already' for o in outcomes)} things looked at, all well"
    return f"repaired: {', '.join(changed)}"


def masked(lab: Lab, text: str) -> str:
    """Evidence is quoted from journals: without this lab's secrets."""
    for secret in lab.secrets():
        text = text.replace(secret, "********")
    return text


class _Group:
    """Fixes that are verified together; most groups are one fix."""

    def __init__(self, fixes: list[Fix], deployment: Deployment, emit: Emit) -> None:
        self.fixes = fixes
        self.deployment = deployment
        self.machine, self.profile = deployment.machine, deployment.profile
        self.emit = emit
        self.applied: dict[str, Finding | None] = {}
        """By id: what was applied; a Finding where applying failed."""

    def run(self) -> Iterator[Outcome]:
        found = [(fix, self._masked(fix.check(self.machine, self.profile))) for fix in self.fixes]
        broken = [fix for fix, finding in found if finding.state == "broken"]
        for fix, finding in found:
            began = time.monotonic()
            if finding.fine or (finding.state == "unknown" and not finding.early):
                outcome = Outcome(fix, finding, False, finding)
            else:
                self.emit(StageBegan(fix.id, fix.title))
                self._apply_all(broken, self._progress(fix))
                broken = []
                outcome = self._verified(fix, finding)
            yield self._ended(outcome, time.monotonic() - began)

    def _verified(self, fix: Fix, before: Finding) -> Outcome:
        progress = self._progress(fix)
        after = self.applied.get(fix.id) or self._masked(fix.verify(self.machine, self.profile, progress))
        if before.early and not after.fine and not self.applied:
            # It was too early to tell, and now it has failed.
            self._apply(fix, progress)
            after = self.applied.get(fix.id) or self._masked(fix.verify(self.machine, self.profile, progress))
        return Outcome(fix, before, fix.id in self.applied, after)

    def _apply_all(self, fixes: Sequence[Fix], progress: Progress) -> None:
        for fix in fixes:
            # The one before may have repaired what this one saw: the network agent is one of the units.
            if not self.applied or fix.check(self.machine, self.profile).state == "broken":
                self._apply(fix, progress)

    def _apply(self, fix: Fix, progress: Progress) -> None:
        try:
            fix.apply(self.machine, self.profile, progress)
        except CommandFailed as error:
            self.applied[fix.id] = self._masked(Finding("broken", error.message))
        else:
            self.applied[fix.id] = None

    def _progress(self, fix: Fix) -> Progress:
        return sparing(lambda detail: self.emit(StageMoved(fix.id, masked(self.deployment.lab, detail))))

    def _masked(self, finding: Finding) -> Finding:
        return replace(finding, evidence=masked(self.deployment.lab, finding.evidence))

    def _ended(self, outcome: Outcome, seconds: float) -> Outcome:
        self.emit(StageEnded(outcome.fix.id, outcome.fix.title, outcome.result, seconds, outcome.after.evidence))
        return outcome
