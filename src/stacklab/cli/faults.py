"""`lab faults`, `break`, `hint`, `fix`: what can be broken on purpose, breaking it, the way to its cause, repairing it."""

from __future__ import annotations

import random

import click

from stacklab.cli.completing import complete_fault, complete_hint, complete_session
from stacklab.cli.options import Invocation, addressed, agreed, json_option, known_elsewhere, yes_option
from stacklab.course.session import FaultCase, Session, Step, StepAddress
from stacklab.errors import NoLab, NotRunning, NotServed, UnknownName
from stacklab.homes.base import Home
from stacklab.replay.breaking import Broken, broken_faults, fault_of, inject, next_clue, repair, sort_of, still_broken
from stacklab.replay.current import home_of, session_of
from stacklab.replay.narrate import Narrator
from stacklab.replay.progress import ProgressFile

SOMETHING = (
    "Something is broken now. Use the cloud as its users do until you meet it: log in to Horizon, list, upload, launch."
)


def fault_addressed(context: Invocation, text: str) -> tuple[Session, FaultCase]:
    """SESSION/FAULT, or the FAULT alone of the lab's session (also by the home's name for it). Raises UnknownName, NoLab."""
    before, slash, name = text.strip("/").rpartition("/")
    session = session_of(context.lab, before if slash else None)
    return session, next((case for case in session.faults if case.breaks == name), None) or session.fault(name)


@click.command()
@click.argument("session", required=False, shell_complete=complete_session)
@click.option("--tell", is_flag=True, help="Also what was seen, and which one was broken at random.")
@json_option
@click.pass_obj
def faults(context: Invocation, session: str | None, tell: bool) -> None:
    """List what can be broken on purpose, whether this cloud can have it, and what is broken now; changes nothing.

    \b
    lab faults                    of the session that is up
    lab break session4/httpd      break it, and be told the symptoms
    lab hint                      a clue on the way to the cause; again, the next one
    lab fix                       repair what lab break has broken

    Repairs of the machine that DevStack runs on are something else: lab fixes.
    """
    lab, console = context.lab, context.console
    chosen = session_of(lab, session)
    broken = broken_faults(lab)
    named = {entry.breaks for entry in broken if not entry.surprise}
    secret = len(named) < len(broken) and not tell
    home = _running(context)
    rows = []
    for case in chosen.faults:
        state, why, evidence = _standing(home, case, secret)
        purpose, address = case.breaks in named, f"{chosen.name}/{case.id}"
        row: dict[str, str | bool] = {"fault": address, "title": case.title, "state": state, "why": why}
        rows.append(row | {"on_purpose": purpose} | ({"evidence": evidence} if tell else {}))
        words = {"bad": "  broken" + (" on purpose" if purpose else ""), "unknown": "  cannot tell"}.get(state, "")
        console.print(f"{console.mark(state)} {chosen.name}/{case.id:<16} {case.title}{words}")
        for line in filter(None, (why, evidence if tell else "")):
            console.indented(console.style(line, "bright_black"))
    console.result({"session": chosen.name, "random": secret, "faults": rows})
    if not rows:
        console.print(f"{chosen.name} breaks nothing on purpose")
        return
    if home is None:
        console.print("the cloud is not running, so nothing is known of them; lab up brings it up")
    if secret:
        console.print("one of them was broken at random, so none is looked at; --tell tells which")
    console.print(f"break one:  lab break {rows[0]['fault']}   (lab break --random)")


def _running(context: Invocation) -> Home | None:
    """The lab's home, if its cloud runs."""
    try:
        home = home_of(context.lab)
        home.access()
    except (NoLab, NotRunning):
        return None
    return home


def _standing(home: Home | None, case: FaultCase, secret: bool) -> tuple[str, str, str]:
    """How a fault stands: its state ("" if nobody looked), why this cloud cannot have it, what was seen."""
    if home is None:
        return "", "", ""
    try:
        fault = fault_of(home, case)
    except NotServed as error:
        return "not_applicable", error.message, ""
    if secret:
        return "", "", ""
    finding = fault.look()
    return finding.state, "", finding.evidence


# --- break, fix ------------------------------------------------------------------------------------------------------


@click.command("break")
@click.argument("fault", required=False, metavar="[SESSION/]FAULT", shell_complete=complete_fault)
@click.option(
    "--random",
    "at_random",
    is_flag=True,
    help="One that this cloud can have, and do not say which. Give a SESSION, or nothing.",
)
@yes_option
@json_option
@click.pass_obj
def break_(context: Invocation, fault: str | None, at_random: bool, yes: bool) -> None:
    """Break something in the lab's cloud on purpose, and tell the symptoms. You find the cause and repair it, in any way.

    \b
    lab break session4/httpd
    lab break session4 --random      which one is for you to find out

    Nothing outside the lab is touched; lab reset takes it back, too, also if breaking was interrupted. On a machine that the
    lab did not make (home ssh) it asks.
    """
    if not fault and not at_random:
        raise click.UsageError("name what to break (lab faults lists it), or say --random")
    lab, console = context.lab, context.console
    lab.require()
    session, case = (session_of(lab, fault), None) if at_random else fault_addressed(context, str(fault))
    home = home_of(lab)
    home.access()  # raises NotRunning
    case = case or _any(context, home, session)
    fault_of(home, case)  # before anybody is asked
    machine = home.site().machine.name if home.name == "ssh" else ""
    question = f"Something will be broken on {machine}, which the lab did not make. May it?"
    if machine and not agreed(console, question, yes=yes):
        raise click.exceptions.Exit(1)
    called = "something" if at_random else f"{session.name}/{case.id}"
    with console.working(f"breaking {called}") as progress:
        inject(lab, session, case, (lambda detail: None) if at_random else progress, surprise=at_random)
    symptoms = SOMETHING if at_random else case.symptoms(sort_of(home))
    graded = f"{session.name}/{session.step(case.step).exercise}"
    event = {"event": "broken", "fault": None if at_random else called, "symptoms": symptoms, "check": graded}
    console.result_line(event)
    console.print()
    console.wrapped("", symptoms)
    console.print("\n  stuck        lab hint      a clue, and the next one each time")
    console.print(f"  be graded    lab check {graded}" + ("   (it names what is broken)" if at_random else ""))
    console.print("  give up      lab fix")


def _any(context: Invocation, home: Home, session: Session) -> FaultCase:
    """One of those that this cloud can have and that are not broken. Raises NotServed."""
    broken = {entry.breaks for entry in broken_faults(context.lab)}
    known = home.faults()
    possible = [
        case
        for case in session.faults
        if case.breaks not in broken and case.breaks in known and not known[case.breaks].why_not()
    ]
    if not possible:
        raise NotServed(f"there is nothing left to break in {session.name}", advice="lab faults shows how things stand")
    return random.choice(possible)  # noqa: S311 -- a surprise, not a secret


@click.command()
@click.argument("fault", required=False, metavar="[[SESSION/]FAULT]", shell_complete=complete_fault)
@json_option
@click.pass_obj
def fix(context: Invocation, fault: str | None) -> None:
    """Repair what lab break has broken: what is named, or else whatever is recorded as broken on purpose.

    Repairs of the machine that DevStack runs on, after stack.sh or a reboot, are something else: lab fixes.
    """
    lab, console = context.lab, context.console
    lab.require()
    chosen = {entry.breaks: entry.address for entry in broken_faults(lab)}
    nothing = "nothing is broken on purpose (lab faults: what can be)"
    if fault:
        session, case = fault_addressed(context, fault)
        address = f"{session.name}/{case.id}"
        well = case.breaks not in chosen and fault_of(home_of(lab), case).look().fine
        chosen, nothing = {} if well else {case.breaks: address}, f"{address} is well: nothing to repair"
    if chosen:
        with console.working(f"repairing {', '.join(chosen.values())}") as progress:
            repair(lab, chosen, progress)
    else:
        console.print(nothing)
    console.result_line({"event": "repaired", "faults": list(chosen.values())})


# --- hint ------------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("what", required=False, metavar="[STEP|SESSION/FAULT]", shell_complete=complete_hint)
@json_option
@click.pass_obj
def hint(context: Invocation, what: str | None) -> None:
    """Show the hint for a step; without STEP, the next clue on the trail of what lab break has broken, or of your next step.

    A clue says what to look at, what it shows, and what that means. Each call goes one further, to the last one.

    \b
    lab hint router              of a step
    lab hint                     of what is broken, one clue at a time; else of the step that comes next
    lab hint session4/httpd      …of this one, where several are
    """
    step = _next_step(context) if what is None else _step(context, what)
    if step:
        _of_step(context, *step)
    else:
        _of_fault(context, what)


def _next_step(context: Invocation) -> tuple[Session, Step] | None:
    """The step whose turn it is in the session that is up; None where something is broken on purpose. Raises NoLab."""
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
    before, slash, name = what.strip("/").rpartition("/")
    if not slash:
        session = session_of(context.lab, None)
        if name in {fault.id for fault in session.faults} - {step.id for step in session.steps()}:
            return None
        try:
            return session, session.step(name)
        except UnknownName as error:
            error.advice = known_elsewhere(context, name) or error.advice
            raise
    if "/" not in before and name in {fault.id for fault in session_of(context.lab, before).faults}:
        return None
    session, named = addressed(context, what)
    if StepAddress.parse(what).step is None:
        raise click.UsageError(f"'{what}' is no single step; lab show {what} lists the steps")
    return session, named[0]


def _of_step(context: Invocation, session: Session, chosen: Step) -> None:
    console = context.console
    look = Narrator(context.lab, session).look(chosen)
    console.result({"id": chosen.id, "hint": chosen.hint, "look": look})
    console.heading(f"{chosen.exercise}/{chosen.id}: {chosen.title}")
    console.wrapped("    ", chosen.hint)
    console.typed("    look: ", look)


def _of_fault(context: Invocation, what: str | None) -> None:
    """The next clue: of the fault that is named, else of what was broken last and is broken still."""
    console, lab = context.console, context.lab
    lab.require()
    home, entries = home_of(lab), broken_faults(lab)
    if what is None:
        entry = (still_broken(home, entries) or entries)[-1] if len(entries) > 1 else entries[0]
        session = session_of(lab, entry.session)
        case = session.fault(entry.fault)
    else:
        session, case = fault_addressed(context, what)
        entry = _recorded(entries, session, case)
    clue = next_clue(lab, home, case, entry)
    called = "what was broken at random" if entry.surprise else f"{entry.address}: {case.title}"
    console.result({"fault": None if entry.surprise else entry.address, "clues": [clue] if clue else []})
    console.heading(called)
    if clue is None:
        console.print("    nobody has written its trail for this sort of cloud; lab fix repairs it")
        return
    console.print(f"  clue {clue.number} of {clue.of}")
    console.typed(f"    {console.style('look  ', 'bright_black')} ", clue.look)
    for title, text in (("shows", clue.shows), ("means", clue.means)):
        console.wrapped(f"    {title:<6} ", text)
    if not clue.last:
        console.print(f"    the next clue: lab hint{f' {what}' if what else ''}")
        return
    others = still_broken(home, [other for other in entries if other != entry]) if what is None else []
    known = " or ".join(f"lab hint {other.address}" for other in others if not other.surprise)
    more = f"its last clue, and more is broken: {known or 'lab check grades what was repaired'}"
    console.print(f"    that was {more if others else 'the last clue; lab fix solves it'}")


def _recorded(entries: list[Broken], session: Session, case: FaultCase) -> Broken:
    for entry in entries:
        if entry.breaks == case.breaks:
            return entry
    address = f"{session.name}/{case.id}"
    raise click.UsageError(f"{address} is not broken; lab break {address} breaks it")
