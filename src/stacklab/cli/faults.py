"""`lab faults`, `break`, `fix`: what can be broken on purpose, breaking it, repairing it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import click

from stacklab.cli.asking import agreed
from stacklab.cli.completing import complete_fault, complete_session
from stacklab.cli.fixes import MARKS
from stacklab.cli.options import Invocation, json_option

if TYPE_CHECKING:
    from stacklab.conditions.condition import Finding
    from stacklab.console import Console
    from stacklab.course.session import FaultCase, Session
    from stacklab.errors import LabError
    from stacklab.homes.base import Home

SOMETHING = (
    "Something is broken now. Use the cloud as its users do until you meet it: log in to Horizon, list, upload, launch."
)


def fault_addressed(context: Invocation, text: str) -> tuple[Session, FaultCase]:
    """SESSION/FAULT, or the FAULT alone of the lab's session (also by the home's name for it). Raises UnknownName, NoLab."""
    from stacklab.errors import UnknownName
    from stacklab.replay.current import session_of

    before, slash, name = text.strip("/").rpartition("/")
    session = session_of(context.lab, before if slash else None)
    try:
        return session, next((case for case in session.faults if case.breaks == name), None) or session.fault(name)
    except UnknownName as error:
        raise _a_fix(name) or error from error


def _a_fix(word: str) -> LabError | None:
    """A better answer for a word that is no fault, but a repair of the machine."""
    from stacklab.conditions.catalogue import ConditionCatalogue
    from stacklab.errors import UnknownName

    if word not in {condition.id for condition in ConditionCatalogue().all()}:
        return None
    return UnknownName(
        f"'{word}' is a repair of the machine, not something that lab break breaks", advice=f"lab fixes apply {word}"
    )


@click.command()
@click.argument("session", required=False, shell_complete=complete_session)
@click.option("--tell", is_flag=True, help="Also what was seen, and which one was broken at random.")
@json_option
@click.pass_obj
def faults(context: Invocation, session: str | None, tell: bool, as_json: bool) -> None:
    """List what can be broken on purpose, whether this cloud can have it, and what is broken now; changes nothing.

    \b
    lab faults                    of the session that is up
    lab break session4/httpd      break it, and be told the symptoms
    lab hint                      a clue on the way to the cause; again, the next one
    lab fix                       repair what lab break has broken

    Repairs of the machine that DevStack runs on are something else: lab fixes.
    """
    from stacklab.replay.breaking import broken_faults
    from stacklab.replay.current import session_of

    lab, console = context.lab, context.console(as_json)
    chosen = session_of(lab, session)
    broken = {fault.breaks: fault for fault in broken_faults(lab)}
    secret = any(fault.surprise for fault in broken.values()) and not tell
    home = _running(context)
    rows: list[dict[str, Any]] = []
    for case in chosen.faults:
        state, why, evidence = _standing(home, case, secret)
        purpose = case.breaks in broken and not broken[case.breaks].surprise
        rows.append(
            {
                "fault": f"{chosen.name}/{case.id}",
                "title": case.title,
                "state": state,
                "why": why,
                "on_purpose": purpose,
            }
            | ({"evidence": evidence} if tell else {})
        )
        state_words = {"bad": "  broken" + (" on purpose" if purpose else ""), "unknown": "  cannot tell"}.get(
            state, ""
        )
        console.print(f"{console.mark(MARKS.get(state, ''))} {chosen.name}/{case.id:<16} {case.title}{state_words}")
        for line in (why, evidence if tell else ""):
            if line:
                console.indented(console.style(line, "bright_black"), 4)
    console.result({"session": chosen.name, "random": secret, "faults": rows})
    if not chosen.faults:
        console.print(f"{chosen.name} breaks nothing on purpose")
        return
    if home is None:
        console.print("the cloud is not running, so nothing is known of them; lab up brings it up")
    if secret:
        console.print("one of them was broken at random, so none is looked at; --tell tells which")
    console.print(f"break one:  lab break {chosen.name}/{chosen.faults[0].id}   (lab break --random)")


def _running(context: Invocation) -> Home | None:
    """The lab's home, if its cloud runs."""
    from stacklab.errors import NoLab, NotRunning
    from stacklab.replay.current import home_of

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
    fault = home.faults().get(case.breaks)
    why = fault.why_not() if fault else f"the home '{home.name}' does not know it"
    if fault is None or why:
        return "not_applicable", why or "", ""
    if secret:
        return "", "", ""
    finding: Finding = fault.look()
    return finding.state, "", finding.evidence


@click.command("break")
@click.argument("fault", required=False, metavar="[SESSION/]FAULT", shell_complete=complete_fault)
@click.option(
    "--random",
    "at_random",
    is_flag=True,
    help="One that this cloud can have, and do not say which. Give a SESSION, or nothing.",
)
@click.option("--yes", is_flag=True, help="Do not ask (home ssh: it is somebody's machine).")
@json_option
@click.pass_obj
def break_(context: Invocation, fault: str | None, at_random: bool, yes: bool, as_json: bool) -> None:
    """Break something in the lab's cloud on purpose, and tell the symptoms. You find the cause and repair it, in any way.

    \b
    lab break session4/httpd
    lab break session4 --random      which one is for you to find out

    Nothing outside the lab is touched; lab reset takes it back, too, also if breaking was interrupted.
    """
    from stacklab.replay.breaking import fault_of, inject, sort_of
    from stacklab.replay.current import home_of, session_of

    if not fault and not at_random:
        raise click.UsageError("name what to break (lab faults lists it), or say --random")
    lab, console = context.lab, context.console(as_json)
    lab.require()
    if at_random:
        session, case = session_of(lab, fault), None
    else:
        session, case = fault_addressed(context, str(fault))
    home = home_of(lab)
    home.access()  # raises NotRunning
    if case:
        fault_of(home, case)  # before anybody is asked
    _consent(console, home, yes)
    case = case or _any(context, home, session)
    called = "something" if at_random else f"{session.name}/{case.id}"
    with console.working(f"breaking {called}") as progress:
        inject(lab, session, case, (lambda detail: None) if at_random else progress, surprise=at_random)
    symptoms = SOMETHING if at_random else case.say[sort_of(home)]
    graded = f"{session.name}/{session.step(case.step).exercise}"
    console.result_line(
        {"event": "broken", "fault": None if at_random else called, "symptoms": symptoms, "check": graded}
    )
    _what_next(context, console, symptoms, graded, at_random)


def _what_next(context: Invocation, console: Console, symptoms: str, graded: str, at_random: bool) -> None:
    import textwrap

    console.print()
    console.print(textwrap.fill(symptoms, 100, break_on_hyphens=False))
    console.print()
    console.print("  stuck        lab hint      a clue, and the next one each time")
    names = "   (it names what is broken)" if at_random else ""
    console.print(f"  be graded    lab check {graded}{names}")
    console.print("  give up      lab fix")


def _consent(console: Console, home: Home, yes: bool) -> None:
    """A machine that the lab did not make is somebody's."""
    if home.name == "ssh":
        question = f"Something will be broken on {home.site().machine.name}, which the lab did not make. May it?"
        if not agreed(console, question, yes=yes):
            raise click.exceptions.Exit(1)


def _any(context: Invocation, home: Home, session: Session) -> FaultCase:
    """One of those that this cloud can have and that are not broken. Raises NotServed."""
    from stacklab.errors import NotServed
    from stacklab.replay.breaking import broken_faults, fault_of

    broken = {fault.breaks for fault in broken_faults(context.lab)}
    possible = []
    for case in session.faults:
        try:
            fault_of(home, case)
        except NotServed:
            continue
        if case.breaks not in broken:
            possible.append(case)
    if not possible:
        raise NotServed(f"there is nothing left to break in {session.name}", advice="lab faults shows how things stand")
    return random.choice(possible)  # noqa: S311 -- a surprise, not a secret


@click.command()
@click.argument("fault", required=False, metavar="[[SESSION/]FAULT]", shell_complete=complete_fault)
@json_option
@click.pass_obj
def fix(context: Invocation, fault: str | None, as_json: bool) -> None:
    """Repair what lab break has broken: what is named, or else whatever is recorded as broken on purpose.

    Repairs of the machine that DevStack runs on, after stack.sh or a reboot, are something else: lab fixes.
    """
    from stacklab.replay.breaking import broken_faults, fault_of, repair
    from stacklab.replay.current import home_of

    lab, console = context.lab, context.console(as_json)
    lab.require()
    if fault:
        session, case = fault_addressed(context, fault)
        chosen = {case.breaks: f"{session.name}/{case.id}"}
        recorded = {fault.breaks for fault in broken_faults(lab)}
        if case.breaks not in recorded and fault_of(home_of(lab), case).look().fine:
            console.print(f"{session.name}/{case.id} is well: nothing to repair")
            console.result_line({"event": "repaired", "faults": []})
            return
    else:
        chosen = {fault.breaks: fault.address for fault in broken_faults(lab)}
    if chosen:
        with console.working(f"repairing {', '.join(chosen.values())}") as progress:
            repair(lab, chosen, progress)
    console.result_line({"event": "repaired", "faults": list(chosen.values())})
    if not chosen:
        console.print("nothing is broken on purpose (lab faults: what can be)")
