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
    from stacklab.doctor.examine import Subject
    from stacklab.doctor.mending import Mended, Ran
    from stacklab.doctor.probe import Finding
    from stacklab.homes.plan import Plan
    from stacklab.lab import Lab

MARKS = {"good": ("✓", "green"), "warning": ("!", "yellow"), "bad": ("✗", "red"), "unknown": ("?", "yellow")}
TOLD = {"bad": "wrong or missing", "unknown": "cannot be told"}
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
    """Look at what a home needs: the evidence for each thing, and the command that mends it.

    Exit code 0 only if all that the home needs is there; what could not be told is no pass. Warnings (!) pass, and say what
    they cost. NO_SYSTEM=1 keeps --fix from installing packages.

    \b
    lab doctor
    lab doctor --on libvirt --profile debian12-2026.1
    lab doctor --on ssh://stack@192.0.2.7
    lab doctor --on libvirt --fix
    """
    from stacklab.doctor.mending import mend
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
        findings = _examined(console, subject)
        document: dict[str, Any] = {}
        _show(console, _heading(plan), findings)
        if fix:
            findings, log = mend(subject, findings, _telling(console))
            document["mended"] = [one.document() for one in log]
            console.print()
            if log:
                _show(console, f"{_heading(plan)}, looked at again", findings)
            else:
                console.print(
                    "nothing here is mended without a decision of yours" if _lacking(findings) else "nothing to mend"
                )
        usable = _usable(findings)
        console.result(
            {"home": plan.home, "usable": usable, "findings": [one.document() for one in findings], **document}
        )
        _verdict(console, plan, findings, mended=fix)
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
        said = {one.name: getattr(wanted, one.name) for one in fields(wanted)}
        wanted = replace(kept, **{name: value for name, value in said.items() if value not in (None, ())})
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


def _examined(console: Console, subject: Subject) -> list[Finding]:
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


def _usable(findings: list[Finding]) -> bool:
    return all(one.passes for one in findings)


def _lacking(findings: list[Finding]) -> list[Finding]:
    return [one for one in findings if not one.passes]


def _mark(console: Console, state: str) -> str:
    sign, colour = MARKS[state]
    return console.style(sign, colour)


def _show(console: Console, title: str, findings: list[Finding]) -> None:
    console.heading(title)
    width = max(len(one.title) for one in findings)
    for one in findings:
        console.print(f"{_mark(console, one.state)} {one.title.ljust(width)}  {one.evidence}")
        if one.state != "good":
            for line in one.mend:
                console.print(f"{' ' * (width + 4)}→ {line}")


def _verdict(console: Console, plan: Plan, findings: list[Finding], *, mended: bool) -> None:
    lacking = _lacking(findings)
    console.print()
    costs = [one.title for one in findings if one.state == "warning"]
    joined = ", ".join(costs)
    if not lacking:
        console.print(f"{plan.home} is usable{f'; at a cost: {joined}' if costs else ''}")
        return
    console.print(f"{plan.home} is not usable ({_lacks(findings)})")
    if not mended and any(one.safe for one in lacking):
        from stacklab.doctor.remote import on

        where = on(plan.address) if plan.address else plan.home
        console.print(f"  → lab doctor --on {where} --fix   runs the commands above that need no decision")


def _lacks(findings: list[Finding]) -> str:
    parts = []
    for state in ("bad", "unknown"):
        names = [one.title for one in findings if one.state == state]
        if names:
            parts.append(f"{TOLD[state]}: {', '.join(names)}")
    return "; ".join(parts)


def _telling(console: Console) -> Any:
    from stacklab.doctor.mending import Telling

    def begins(finding: Finding) -> None:
        console.print()
        console.print(console.style(f"{finding.title}: {finding.evidence}", "bold"))

    def ran(result: Ran) -> None:
        if result.status is None:
            console.print(f"    not run: {result.said}")
        elif result.status:
            console.print(f"    ended with status {result.status}: {result.said}")

    def ended(one: Mended) -> None:
        if one.better:
            how = "mended" if one.ran else "mended by what was done before"
            console.print(f"  {_mark(console, one.after.state)} {how}: {one.after.evidence}")
        else:
            console.print(f"  {_mark(console, one.after.state)} not mended: {one.after.evidence}")

    def runs(line: str) -> None:
        console.print(f"  → {line}")

    return Telling(begins, runs, ran, ended)


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
            findings = _examined(console, subject)
        well = _usable(findings)
        usable = well if name == taken.home else usable
        _short(console, name, findings)
        lacks = [f"{one.title}: {one.evidence}" for one in _lacking(findings)]
        documents.append(
            {"home": name, "usable": well, "lacks": lacks, "findings": [one.document() for one in findings]}
        )
    console.result({"homes": documents, "chosen": {"home": taken.home, "why": why}, "usable": usable})
    console.print()
    console.print(f"lab up takes {taken.home}: {why}")
    console.print("  more: lab doctor --on HOME")
    if not usable:
        raise click.exceptions.Exit(NOT_USABLE)


def _short(console: Console, name: str, findings: list[Finding]) -> None:
    states = {one.state for one in findings}
    worst = next(state for state in ("bad", "unknown", "warning", "good") if state in states)
    verdict = "usable" if _usable(findings) else f"not usable ({_lacks(findings)})"
    console.print(f"{_mark(console, worst)} {name:<9} {verdict}")
    for one in findings:
        if one.state != "good":
            console.print(f"    {_mark(console, one.state)} {one.title}: {one.evidence}")
