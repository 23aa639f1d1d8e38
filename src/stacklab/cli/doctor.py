"""`lab doctor`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from stacklab.cli.completing import complete_home, complete_profile
from stacklab.cli.options import Invocation, json_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stacklab.console import Console
    from stacklab.doctor.examine import DoctorReport, Subject
    from stacklab.doctor.repairing import Repaired
    from stacklab.homes.plan import Plan
    from stacklab.lab import Lab

MARKS = {"good": ("✓", "green"), "warning": ("!", "yellow"), "bad": ("✗", "red"), "unknown": ("?", "yellow")}
LACKING = {"bad": "wrong or missing", "unknown": "cannot be told"}
NOT_USABLE = 1
"""The exit code when something is missing, or could not be told."""


@click.command()
@click.option(
    "--on", "home_name", metavar="HOME", shell_complete=complete_home,
    help="Examine one home in full: embedded, libvirt, ssh://user@host or ssh:ALIAS. Without it: a verdict for each.",
)  # fmt: skip
@click.option(
    "--profile",
    metavar="NAME",
    shell_complete=complete_profile,
    help="Whose sizes, box and sources count; lab profiles.",
)
@click.option("--fix", is_flag=True, help="Run what is safe and needs no decision, and look again.")
@json_option
@click.pass_obj
def doctor(context: Invocation, home_name: str | None, profile: str | None, fix: bool, as_json: bool) -> None:
    """Look at what a home needs: the evidence for each thing, and the command that repairs it.

    Exit code 0 only if all that the home needs is there; what could not be told is no pass. Warnings (!) pass, and say what
    they cost. NO_SYSTEM=1 keeps --fix from installing packages.

    \b
    lab doctor
    lab doctor --on libvirt --profile debian12-2026.1
    lab doctor --on ssh://stack@192.0.2.7
    lab doctor --on libvirt --fix
    """
    from stacklab.homes.plan import Plan

    lab, console = context.lab, context.console(as_json)
    if home_name is None and not fix:
        _overview(console, lab, profile)
        return
    if home_name is None:
        plan, _ = _taken(lab, profile)
    else:
        plan = _laid(lab, Plan.wanted(home_name, profile=profile))
    with _subject(lab, plan) as subject:
        answers = _examined(console, subject)
        document: dict[str, Any] = {}
        _show(console, _heading(plan), answers)
        if fix:
            answers, repaired = _repaired(console, subject, answers)
            document["repaired"] = [repair.document() for repair in repaired]
            console.print()
            if repaired:
                _show(console, f"{_heading(plan)}, looked at again", answers)
            else:
                undecided = "nothing here is repaired without a decision of yours"
                console.print(undecided if _lacking(answers) else "nothing to repair")
        usable = not _lacking(answers)
        findings = [answer.document() for answer in answers]
        console.result({"home": plan.home, "usable": usable, "findings": findings, **document})
        _verdict(console, plan, answers, fixed=fix)
    if not usable:
        raise click.exceptions.Exit(NOT_USABLE)


# --- what is examined ------------------------------------------------------------------------------------------------


def _laid(lab: Lab, wanted: Plan) -> Plan:
    """`wanted` over what the lab was planned with, where that is about the same home. Raises HomeUnavailable."""
    from dataclasses import fields, replace

    from stacklab.homes import check_plan
    from stacklab.homes.plan import Plan

    kept = Plan.of(lab) if lab.exists() else Plan()
    if kept.home == wanted.home and wanted.address in (None, kept.address):
        asked = {field.name: getattr(wanted, field.name) for field in fields(wanted)}
        wanted = replace(kept, **{name: value for name, value in asked.items() if value not in (None, ())})
    check_plan(wanted)
    return wanted


def _taken(lab: Lab, profile: str | None) -> tuple[Plan, str]:
    """Where `lab up` would bring this lab up, and why."""
    from stacklab.homes import best_home
    from stacklab.homes.plan import Plan

    kept = Plan.of(lab) if lab.exists() else Plan()
    if kept.home:
        return _laid(lab, Plan(home=kept.home, profile=profile)), f"lab '{lab.name}' lives there"
    name, why = best_home()
    return _laid(lab, Plan(home=name, profile=profile)), why


def _subject(lab: Lab, plan: Plan) -> Subject:
    from stacklab.deploy.profile.load import load_settings
    from stacklab.doctor.examine import Subject

    return Subject(str(plan.home), lab, plan, load_settings())


def _heading(plan: Plan) -> str:
    return f"{plan.home} {plan.address}" if plan.address else str(plan.home)


def _examined(console: Console, subject: Subject) -> list[DoctorReport]:
    from stacklab.doctor.examine import examine

    with _waiting(console, f"looking at what {subject.home} needs") as progress:
        return list(examine(subject, progress))


@contextmanager
def _waiting(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Progress that shows itself only when there is some. Nothing with --json: the answer is one document."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        shown: list[Callable[[str], None]] = []

        def progress(what: str) -> None:
            # Without a terminal each of these would be a line of its own, and they differ in what is no longer waited for.
            if console.as_json or (shown and not console.terminal):
                return
            if not shown:
                shown.append(stack.enter_context(console.working(title)))
            shown[0](f"waiting for: {what}")

        yield progress


# --- how it is shown -------------------------------------------------------------------------------------------------


def _lacking(answers: list[DoctorReport]) -> list[DoctorReport]:
    return [answer for answer in answers if not answer.finding.fine]


def _mark(console: Console, state: str) -> str:
    sign, colour = MARKS[state]
    return console.style(sign, colour)


def _show(console: Console, title: str, answers: list[DoctorReport]) -> None:
    console.heading(title)
    width = max(len(answer.probe.title) for answer in answers)
    for answer in answers:
        finding = answer.finding
        console.print(f"{_mark(console, finding.state)} {answer.probe.title.ljust(width)}  {finding.evidence}")
        for remedy in finding.remedies if finding.state != "good" else ():
            console.print(f"{' ' * (width + 4)}→ {remedy}")


def _verdict(console: Console, plan: Plan, answers: list[DoctorReport], *, fixed: bool) -> None:
    lacking = _lacking(answers)
    console.print()
    if not lacking:
        costs = ", ".join(answer.probe.title for answer in answers if answer.finding.state == "warning")
        console.print(f"{plan.home} is usable{f'; at a cost: {costs}' if costs else ''}")
        return
    console.print(f"{plan.home} is not usable ({_lacks(answers)})")
    if not fixed and any(answer.safe for answer in lacking):
        from stacklab.doctor.remote import on

        where = on(plan.address) if plan.address else plan.home
        console.print(f"  → lab doctor --on {where} --fix   runs the commands above that need no decision")


def _lacks(answers: list[DoctorReport]) -> str:
    names = {
        words: ", ".join(answer.probe.title for answer in answers if answer.finding.state == state)
        for state, words in LACKING.items()
    }
    return "; ".join(f"{words}: {titles}" for words, titles in names.items() if titles)


def _repaired(
    console: Console, subject: Subject, answers: list[DoctorReport]
) -> tuple[list[DoctorReport], list[Repaired]]:
    """Repair, showing each command before it runs; the answers after it, and what was done."""
    from stacklab.conditions.remedy import Attempt, Remedy
    from stacklab.doctor.examine import DoctorReport
    from stacklab.doctor.repairing import Repaired, repair

    log: list[Repaired] = []
    with _waiting(console, f"looking at what {subject.home} needs") as progress:
        for event in repair(subject, answers, progress):
            match event:
                case DoctorReport():
                    console.print()
                    console.print(console.style(f"{event.probe.title}: {event.finding.evidence}", "bold"))
                case Remedy():
                    console.print(f"  → {event}")
                case Attempt(status=None):
                    console.print(f"    not run: {event.output}")
                case Attempt(status=status) if status:
                    console.print(f"    ended with status {status}: {event.output}")
                case Repaired():
                    log.append(event)
                    how = "repaired" if event.attempts else "repaired by what was done before"
                    how = how if event.better else "not repaired"
                    console.print(f"  {_mark(console, event.after.state)} {how}: {event.after.evidence}")
                case list():
                    answers = event
    return answers, log


# --- all homes -------------------------------------------------------------------------------------------------------


def _overview(console: Console, lab: Lab, profile: str | None) -> None:
    """A verdict for each home, and the one that lab up would take. Exits by that one."""
    from stacklab.homes import HOMES
    from stacklab.homes.plan import Plan

    taken, why = _taken(lab, None)
    documents: list[dict[str, Any]] = []
    usable = False
    for name in HOMES:
        if name == taken.home:
            plan = taken
        elif name == "ssh":
            evidence = "no machine is named"
            documents.append({"home": name, "usable": None, "lacks": [evidence], "findings": []})
            console.print(f"{console.style('–', 'bright_black')} {name:<9} {evidence}: lab doctor --on ssh://user@host")
            continue
        else:
            plan = Plan(home=name)
        if name == "libvirt" and profile:
            plan = _laid(lab, Plan(home=name, profile=profile))
        with _subject(lab, plan) as subject:
            answers = _examined(console, subject)
        lacking = _lacking(answers)
        usable = not lacking if name == taken.home else usable
        _short(console, name, answers)
        lacks = [f"{answer.probe.title}: {answer.finding.evidence}" for answer in lacking]
        findings = [answer.document() for answer in answers]
        documents.append({"home": name, "usable": not lacking, "lacks": lacks, "findings": findings})
    console.result({"homes": documents, "chosen": {"home": taken.home, "why": why}, "usable": usable})
    console.print()
    console.print(f"lab up takes {taken.home}: {why}")
    console.print("  more: lab doctor --on HOME")
    if not usable:
        raise click.exceptions.Exit(NOT_USABLE)


def _short(console: Console, name: str, answers: list[DoctorReport]) -> None:
    states = {answer.finding.state for answer in answers}
    worst = next(state for state in ("bad", "unknown", "warning", "good") if state in states)
    verdict = f"not usable ({_lacks(answers)})" if _lacking(answers) else "usable"
    console.print(f"{_mark(console, worst)} {name:<9} {verdict}")
    for answer in answers:
        if answer.finding.state != "good":
            mark = _mark(console, answer.finding.state)
            console.print(f"    {mark} {answer.probe.title}: {answer.finding.evidence}")
