"""`lab hint`: of a step, or the next clue on the trail of what is broken on purpose."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from stacklab.cli.completing import complete_fault, complete_step
from stacklab.cli.faults import fault_addressed
from stacklab.cli.options import Invocation, addressed, json_option, known_elsewhere

if TYPE_CHECKING:
    from stacklab.course.session import FaultCase, Session, Step
    from stacklab.lab import Lab
    from stacklab.replay.breaking import Broken, ShownClue


def complete_hint(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A step of the session that is up, or a fault."""
    faults = [item for item in complete_fault(ctx, param, incomplete) if "/" in item.value]
    return faults if "/" in incomplete else [*complete_step(ctx, param, incomplete), *faults]


@click.command()
@click.argument("what", required=False, metavar="[STEP|SESSION/FAULT]", shell_complete=complete_hint)
@click.option("--all", "everything", is_flag=True, help="All clues of a fault at once.")
@json_option
@click.pass_obj
def hint(context: Invocation, what: str | None, everything: bool, as_json: bool) -> None:
    """Show the hint for a step; without STEP, the next clue on the trail of what lab break has broken, or of your next step.

    A clue says what to look at, what it shows, and what that means. Each call goes one further, to the last one.

    \b
    lab hint router              of a step
    lab hint                     of what is broken, one clue at a time; else of the step that comes next
    lab hint session4/httpd      …of this one, where several are
    """
    step = _next_step(context) if what is None else _step(context, what)
    if step:
        _of_step(context, *step, as_json=as_json)
    else:
        _of_fault(context, what, everything, as_json=as_json)


def _next_step(context: Invocation) -> tuple[Session, Step] | None:
    """The step whose turn it is in the session that is up; None where something is broken on purpose. Raises NoLab."""
    from stacklab.replay.breaking import broken_faults
    from stacklab.replay.current import session_of
    from stacklab.replay.progress import ProgressFile

    context.lab.require()
    if broken_faults(context.lab):
        return None
    session = session_of(context.lab, None)
    following = ProgressFile(context.lab).of(session).next
    if following is None:
        raise click.UsageError(
            "nothing is broken on purpose, and every step has passed; lab hint STEP shows any step's"
        )
    return session, following


def _step(context: Invocation, what: str) -> tuple[Session, Step] | None:
    """The step that is meant; None where it is a fault. Raises UnknownName, NoLab."""
    from stacklab.course.session import StepAddress
    from stacklab.errors import UnknownName
    from stacklab.replay.current import session_of

    if "/" not in what:
        session = session_of(context.lab, None)
        if what in {fault.id for fault in session.faults} - {step.id for step in session.steps()}:
            return None
        try:
            return session, session.step(what)
        except UnknownName as error:
            error.advice = known_elsewhere(context, what) or error.advice
            raise
    address = StepAddress.parse(what)
    if address.step is None:
        session = session_of(context.lab, address.session)
        if address.exercise in {fault.id for fault in session.faults}:
            return None
    session, named = addressed(context, what)
    if address.step is None:
        raise click.UsageError(f"'{what}' is no single step; lab show {what} lists the steps")
    return session, named[0]


def _of_step(context: Invocation, session: Session, chosen: Step, *, as_json: bool) -> None:
    from stacklab.replay.narrate import Narrator

    console = context.console(as_json)
    look = Narrator(context.lab, session).look(chosen)
    console.result({"id": chosen.id, "hint": chosen.hint, "look": look})
    console.heading(f"{chosen.exercise}/{chosen.id}: {chosen.title}")
    console.indented(textwrap.fill(chosen.hint, 100, break_on_hyphens=False))
    first, *more = look.splitlines()
    console.print("    look:" if more else f"    look: {first}")
    for line in [first, *more] if more else []:  # a script has lines of its own, which are typed as they stand
        console.print(line)


def _of_fault(context: Invocation, what: str | None, everything: bool, *, as_json: bool) -> None:
    from stacklab.replay.breaking import next_clue, trail
    from stacklab.replay.current import home_of

    console, lab = context.console(as_json), context.lab
    lab.require()
    session, case, entry = _meant(context, what)
    address = f"{session.name}/{case.id}"
    if entry is None and not everything:
        raise click.UsageError(
            f"{address} is not broken; lab break {address} breaks it, and --all shows its whole trail"
        )
    home = home_of(lab)
    clues = trail(home, case) if everything or entry is None else [next_clue(lab, home, case, entry)]
    named = "what was broken at random" if entry and entry.surprise else f"{address}: {case.title}"
    console.result(
        {"fault": None if entry and entry.surprise else address, "clues": [_as_json(clue) for clue in clues]}
    )
    console.heading(named)
    for clue in clues:
        _tell(context, clue, as_json=as_json)
    if not clues:
        console.print("    nobody has written its trail for this sort of cloud; lab fix repairs it")
    elif clues[-1].last and what is None and (others := _others(lab, address)):
        further = " or ".join(f"lab hint {fault.address}" for fault in others if not fault.surprise)
        again = further or "lab check grades what was repaired"
        console.print(f"    that was its last clue, and more is broken: {again}")
    elif clues[-1].last:
        console.print("    that was the last clue; lab fix solves it")
    else:
        console.print(f"    the next clue: lab hint{f' {what}' if what else ''}")


def _meant(context: Invocation, what: str | None) -> tuple[Session, FaultCase, Broken | None]:
    """The fault, and what is recorded of it; without a name, what was broken last."""
    from stacklab.replay.breaking import broken_faults
    from stacklab.replay.current import session_of

    entries = broken_faults(context.lab)
    if what is None:
        chosen = entries[0] if len(entries) == 1 else (_still_broken(context.lab, entries) or entries)[-1]
        session = session_of(context.lab, chosen.session)
        return session, session.fault(chosen.fault), chosen
    session, case = fault_addressed(context, what)
    return session, case, next((entry for entry in entries if entry.breaks == case.breaks), None)


def _others(lab: Lab, address: str) -> list[Broken]:
    """What else is broken still."""
    from stacklab.replay.breaking import broken_faults

    entries = [entry for entry in broken_faults(lab) if entry.address != address]
    return _still_broken(lab, entries) if entries else []


def _still_broken(lab: Lab, entries: list[Broken]) -> list[Broken]:
    """Those that are not repaired yet."""
    from stacklab.replay.current import home_of

    faults = home_of(lab).faults()
    return [entry for entry in entries if entry.breaks not in faults or not faults[entry.breaks].look().fine]


def _as_json(clue: ShownClue) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(clue) | {"last": clue.last}


def _tell(context: Invocation, clue: ShownClue, *, as_json: bool) -> None:
    console = context.console(as_json)
    console.print(f"  clue {clue.number} of {clue.of}")
    for title, text in (("look", clue.look), ("shows", clue.shows), ("means", clue.means)):
        lines = [text] if title == "look" else textwrap.wrap(text, 92, break_on_hyphens=False)
        for number, line in enumerate(lines):
            console.print(f"    {console.style((title if not number else '').ljust(6), 'bright_black')} {line}")
