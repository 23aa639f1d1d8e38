"""What `lab replay`, `check`, `undo` and `show` do to a lab: the desk, the journal and the progress come together here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stacklab.assets import PAPER, Assets
from stacklab.course.session import Session, Step
from stacklab.errors import LabError, NoLab, NotRunning, NotTrusted, UnknownName
from stacklab.kinds.context import OfflineContext, Workspace
from stacklab.lab import Lab
from stacklab.progress import ProgressFile
from stacklab.replay import undo as undoing
from stacklab.replay.apply import Applied, apply_step
from stacklab.replay.breaking import noticed
from stacklab.replay.check import Grade, Report, check
from stacklab.replay.consent import Allow, refuse_foreign
from stacklab.replay.current import journal_of, open_workspace
from stacklab.replay.journal import Journal
from stacklab.replay.narrate import narrate

Say = Callable[[str], None]


@dataclass(frozen=True)
class Shown:
    """What a replay tells of a step: before it (`applied` is None) and after."""

    step: Step
    applied: Applied | None = None


def between(session: Session, steps: Sequence[Step], first: str | None, last: str | None) -> list[Step]:
    """The steps from `first` to `last`, both included. Raises UnknownName, also for an empty range."""
    ids = [step.id for step in steps]
    for wanted in (first, last):
        if wanted and wanted not in ids:
            session.step(wanted)  # raises with the closest id, unless the step lies outside of what was selected
            raise UnknownName(f"step '{wanted}' is not among the chosen steps", advice=f"they are: {', '.join(ids)}")
    start = ids.index(first) if first else 0
    end = ids.index(last) if last else len(ids) - 1
    if start > end:
        raise UnknownName(f"step '{first}' comes after '{last}'", advice="exchange --from and --to")
    return list(steps[start : end + 1])


def replay_steps(
    lab: Lab,
    session: Session,
    steps: Sequence[Step],
    via: str,
    show: Callable[[Shown], None],
    say: Say,
    ask: Callable[[Step], str] | None = None,
    agreed: Allow = refuse_foreign,
) -> list[Applied]:
    """Do the steps in order. `ask` answers "run", "skip" or "quit" before each. Raises what a step raises."""
    with lab.writing():
        return do_steps(lab, open_workspace(lab, session, say, agreed), journal_of(lab), steps, via, show, ask)


def do_steps(
    lab: Lab,
    desk: Workspace,
    journal: Journal,
    steps: Sequence[Step],
    via: str,
    show: Callable[[Shown], None],
    ask: Callable[[Step], str] | None = None,
) -> list[Applied]:
    """The same at a desk, by whoever holds the lab's lock."""
    name = desk.session.name
    done: list[Applied] = []
    for step in steps:
        answer = ask(step) if ask else "run"
        if answer == "quit":
            break
        if answer == "skip":
            continue
        show(Shown(step))
        try:
            applied = apply_step(desk, journal, step, via)
        except NotTrusted:
            raise  # nothing was tried
        except LabError:
            ProgressFile(lab).note(name, [(step.id, "failed")])
            raise
        status = "not_applicable" if applied.outcome == "not_applicable" else "passed"
        ProgressFile(lab).note(name, [(step.id, status)])
        if status == "passed":
            noticed(lab, desk.session, [step.id])
        show(Shown(step, applied))
        done.append(applied)
    return done


def check_steps(
    lab: Lab,
    session: Session,
    steps: Sequence[Step],
    graded: Callable[[Grade], None],
    agreed: Allow = refuse_foreign,
) -> Report:
    """Grade the steps. Raises NoLab, NotRunning."""
    report = check(open_workspace(lab, session, lambda text: None, agreed), steps, graded)
    ProgressFile(lab).note(session.name, [(grade.id, grade.status) for grade in report.grades])
    noticed(lab, session, [grade.id for grade in report.grades if grade.status == "passed"])
    return report


def as_remembered(lab: Lab, session: Session, steps: Sequence[Step]) -> tuple[Session, list[Step]]:
    """What undoing these steps touches, declared as it was when it was applied."""
    journal = journal_of(lab)
    known = undoing.known_session(session, journal)
    entries = journal.entries(session.name)
    wanted = undoing.wanted(session, known, steps, entries)
    return known, [step for step in known.steps() if step.id in wanted & set(entries)]


def undo_steps(
    lab: Lab,
    session: Session,
    steps: Sequence[Step],
    undone: Callable[[Step, str], None],
    agreed: Allow = refuse_foreign,
) -> int:
    """Undo the steps and what builds on them. Raises UndoIncomplete, NoLab, NotRunning, NotTrusted."""
    with lab.writing():
        desk, journal = open_workspace(lab, session, lambda text: None, agreed), journal_of(lab)
        # Also the steps that only look: what they saw is no longer there.
        gone = undoing.dependants(session, steps)
        ProgressFile(lab).note(session.name, [(step_id, "undone") for step_id in gone])
        return undoing.undo(desk, journal, steps, undone)


class Narrator:
    """Tells steps with the ids and URLs of the lab's cloud if it is up, else with shell variables."""

    def __init__(self, lab: Lab, session: Session) -> None:
        self._lab = lab
        self._session = session
        self._desk = self._open()

    def _open(self) -> Workspace | None:
        try:
            return open_workspace(self._lab, self._session, lambda text: None)
        except (NoLab, NotRunning):
            return None

    def paper(self, step: Step) -> OfflineContext:
        """The step on paper, with the lab's own files where it has them."""
        assets = PAPER | (Assets(self._lab).by_name() if self._lab.record.image else {})
        return OfflineContext(self._session, step, assets, lambda name: "")

    def tell(self, step: Step) -> dict[str, Any]:
        """See `stacklab.replay.narrate`."""
        return narrate(self._desk, self.paper(step), step)

    def look(self, step: Step) -> str:
        """The command to look at a step's thing with."""
        command = step.kind.show_command(self.paper(step), step.params)
        if command.program != "openstack":
            return command.text()
        return command.text().replace("openstack ", f"openstack --os-cloud lab-{step.who} ", 1)
