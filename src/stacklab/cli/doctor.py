"""`lab doctor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from stacklab.cli.options import Invocation, json_option, profile_option
from stacklab.conditions.remedy import Attempt, Remedy
from stacklab.console import Console
from stacklab.deploy.profile.load import load_settings
from stacklab.doctor.examine import DoctorReport, Repaired, Subject, examine, repair
from stacklab.doctor.remote import on
from stacklab.homes import HOMES, best_home, check_plan
from stacklab.homes.plan import Plan
from stacklab.lab import Lab

LACKING = {"bad": "wrong or missing", "unknown": "cannot be told"}
NOT_USABLE = 1
"""The exit code when something is missing, or could not be told."""


@click.command()
@click.option(
    "--on", "home_name", metavar="HOME",
    help="Examine one home in full: embedded, libvirt, ssh://user@host or ssh:ALIAS. Without it: a verdict for each.",
)  # fmt: skip
@profile_option
@click.option("--fix", is_flag=True, help="Run what is safe and needs no decision, and look again.")
@json_option
@click.pass_obj
def doctor(context: Invocation, home_name: str | None, profile: str | None, fix: bool) -> None:
    """Look at what a home needs: the evidence for each thing, and the command that repairs it.

    Exit code 0 only if all that the home needs is there; what could not be told is no pass. Warnings (!) pass, and say what
    they cost. NO_SYSTEM=1 keeps --fix from installing packages.

    \b
    lab doctor
    lab doctor --on libvirt --profile debian12-2026.1
    lab doctor --on ssh://stack@192.0.2.7
    lab doctor --on libvirt --fix
    """
    lab, console = context.lab, context.console
    if home_name is None and not fix:
        usable = _overview(console, lab, profile)
    else:
        plan = _laid(lab, Plan.wanted(home_name, profile=profile)) if home_name else _taken(lab, profile)[0]
        usable = _in_full(console, lab, plan, fix)
    if not usable:
        raise click.exceptions.Exit(NOT_USABLE)


def _in_full(console: Console, lab: Lab, plan: Plan, fix: bool) -> bool:
    """Everything that one home needs; whether it is usable."""
    heading = f"{plan.home} {plan.address or ''}".rstrip()
    more: dict[str, Any] = {}
    with _subject(lab, plan) as subject:
        answers = list(examine(subject, _waiting(console)))
        _show(console, heading, answers)
        if fix:
            answers, repaired = _repaired(console, subject, answers)
            more["repaired"] = [repair.document() for repair in repaired]
            console.print()
            if repaired:
                _show(console, f"{heading}, looked at again", answers)
            else:
                undecided = "nothing here is repaired without a decision of yours"
                console.print(undecided if _lacking(answers) else "nothing to repair")
    lacking = _lacking(answers)
    findings = [answer.document() for answer in answers]
    console.result({"home": plan.home, "usable": not lacking, "findings": findings, **more})
    console.print()
    if lacking:
        console.print(f"{plan.home} is not usable ({_lacks(answers)})")
        if not fix and any(answer.safe for answer in lacking):
            where = on(plan.address) if plan.address else plan.home
            console.print(f"  → lab doctor --on {where} --fix   runs the commands above that need no decision")
    else:
        costs = ", ".join(answer.probe.title for answer in answers if answer.finding.state == "warning")
        console.print(f"{plan.home} is usable{f'; at a cost: {costs}' if costs else ''}")
    return not lacking


def _overview(console: Console, lab: Lab, profile: str | None) -> bool:
    """A verdict for each home, and the one that lab up would take; whether that one is usable."""
    taken, why = _taken(lab, None)
    rows: list[dict[str, Any]] = []
    for name in HOMES:
        plan = taken if name == taken.home else Plan(home=name)
        if name == "ssh" and not plan.address:
            evidence = "no machine is named"
            rows.append({"home": name, "usable": None, "lacks": [evidence], "findings": []})
            console.print(f"{console.mark('skipped')} {name:<9} {evidence}: lab doctor --on ssh://user@host")
            continue
        if name == "libvirt" and profile:
            plan = _laid(lab, Plan(home=name, profile=profile))
        with _subject(lab, plan) as subject:
            answers = list(examine(subject, _waiting(console)))
        lacking = _lacking(answers)
        mark = console.mark("bad" if lacking else "good")
        verdict = f"not usable ({_lacks(answers)})" if lacking else "usable"
        _show(console, f"{mark} {name:<9} {verdict}", answers, brief=True)
        lacks = [f"{answer.probe.title}: {answer.finding.evidence}" for answer in lacking]
        findings = [answer.document() for answer in answers]
        rows.append({"home": name, "usable": not lacking, "lacks": lacks, "findings": findings})
    usable = any(row["usable"] for row in rows if row["home"] == taken.home)
    console.result({"homes": rows, "chosen": {"home": taken.home, "why": why}, "usable": usable})
    console.print(f"\nlab up takes {taken.home}: {why}\n  more: lab doctor --on HOME")
    return usable


# --- what is examined ------------------------------------------------------------------------------------------------


def _laid(lab: Lab, wanted: Plan) -> Plan:
    """`wanted` over what the lab was planned with, where that is about the same home. Raises HomeUnavailable."""
    plan = Plan.of(lab).replaced(wanted)
    check_plan(plan)
    return plan


def _taken(lab: Lab, profile: str | None) -> tuple[Plan, str]:
    """Where `lab up` would bring this lab up, and why."""
    home = lab.record.home
    name, why = (home, f"lab '{lab.name}' lives there") if home else best_home()
    return _laid(lab, Plan(home=name, profile=profile)), why


def _subject(lab: Lab, plan: Plan) -> Subject:
    return Subject(lab, plan, load_settings())


def _waiting(console: Console) -> Callable[[str], None]:
    """Says what is waited for; without a terminal once, for the lines differ only in what is no longer waited for."""
    said: list[str] = []

    def progress(what: str) -> None:
        if console.terminal or not said:
            console.print(console.style(f"waiting for: {what}", "bright_black"))
        said.append(what)

    return progress


# --- how it is shown -------------------------------------------------------------------------------------------------


def _lacking(answers: list[DoctorReport]) -> list[DoctorReport]:
    return [answer for answer in answers if not answer.finding.fine]


def _lacks(answers: list[DoctorReport]) -> str:
    names = {
        words: ", ".join(answer.probe.title for answer in answers if answer.finding.state == state)
        for state, words in LACKING.items()
    }
    return "; ".join(f"{words}: {titles}" for words, titles in names.items() if titles)


def _show(console: Console, title: str, answers: list[DoctorReport], *, brief: bool = False) -> None:
    """A line for each answer, and what repairs it; `brief`: only what is not good."""
    console.heading(title)
    width = max(len(answer.probe.title) for answer in answers)
    for answer in answers:
        finding = answer.finding
        if brief and finding.state == "good":
            continue
        lead = "    " if brief else ""
        console.print(f"{lead}{console.mark(finding.state)} {answer.probe.title.ljust(width)}  {finding.evidence}")
        for remedy in finding.remedies if finding.state != "good" and not brief else ():
            console.print(f"{' ' * (width + 4)}→ {remedy}")


def _repaired(
    console: Console, subject: Subject, answers: list[DoctorReport]
) -> tuple[list[DoctorReport], list[Repaired]]:
    """Repair, showing each command before it runs; the answers after it, and what was done."""
    log: list[Repaired] = []
    for event in repair(subject, answers, _waiting(console)):
        match event:
            case DoctorReport():
                console.print()
                console.heading(f"{event.probe.title}: {event.finding.evidence}")
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
                console.print(f"  {console.mark(event.after.state)} {how}: {event.after.evidence}")
            case list():
                answers = event
    return answers, log
