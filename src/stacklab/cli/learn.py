"""`lab list`, `show`, `replay`, `check`, `undo`: the course."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Literal

import click

from stacklab.cli.asking import trust_option, trusted
from stacklab.cli.completing import complete_step
from stacklab.cli.options import Invocation, address_argument, addressed, json_option
from stacklab.cloud.connection import VERSIONS

if TYPE_CHECKING:
    from stacklab.console import Console
    from stacklab.course.session import Session, Step
    from stacklab.replay.apply import Applied, Shown
    from stacklab.replay.check import Grade
    from stacklab.replay.narrate import Narrator


@click.command("list")
@json_option
@click.pass_obj
def list_(context: Invocation, as_json: bool) -> None:
    """List the course's sessions."""
    from stacklab.course.load import load_session
    from stacklab.course.search import all_sessions, missing
    from stacklab.errors import SessionInvalid

    console = context.console(as_json)
    sessions, broken = [], []
    for name in all_sessions(context.lab.labs):
        try:
            sessions.append(load_session(name, also=context.lab.labs))
        except SessionInvalid as error:
            broken.append(error)
    rows = [
        {
            "session": session.name,
            "title": session.title,
            "steps": len(list(session.steps())),
            "from": str(session.file.parent.parent) if session.foreign else None,
        }
        for session in sessions
    ]
    console.result(rows)
    head = ("SESSION", "STEPS", "TITLE", *(["FROM"] if any(row["from"] for row in rows) else []))
    cells = [(str(row["session"]), str(row["steps"]), str(row["title"]), str(row["from"] or "")) for row in rows]
    console.table(head, [row[: len(head)] for row in cells])
    console.print("\nlab show SESSION lists its exercises; lab up SESSION brings its cloud up.")
    if gone := missing():
        click.echo(f"note: {gone}", err=True)
    if broken:
        raise broken[0]


@click.command()
@address_argument
@json_option
@click.pass_obj
def show(context: Invocation, address: str | None, as_json: bool) -> None:
    """Show a session's exercises, or the steps of one: why, the openstack command, the REST call, the way in Horizon."""
    from stacklab.replay.narrate import Narrator, named, outline

    console = context.console(as_json)
    session, steps = addressed(context, address)
    if address is None or address.count("/") == 0:
        console.result(
            {
                "session": session.name,
                "title": session.title,
                "exercises": [{"id": exercise.id, "title": exercise.title} for exercise in session.exercises],
                "steps": [named(step) for step in steps],
                "faults": [{"id": fault.id, "title": fault.title} for fault in session.faults],
            }
        )
        for line in outline(session):
            console.print(line)
        return
    narrator = Narrator(context.lab, session)
    narrated = [narrator.tell(step) for step in steps]
    console.result({"session": session.name, "title": session.title, "steps": narrated})
    exercise = next(exercise for exercise in session.exercises if exercise.id == steps[0].exercise)
    console.heading(f"{session.name}/{exercise.id}: {exercise.title}")
    console.indented(_wrapped(exercise.say), 0)
    for step, narration in zip(steps, narrated, strict=True):
        console.print()
        _tell(console, step, narration)
    console.print("\n$TOKEN is a token: openstack token issue -f value -c id")
    requests = [line for narration in narrated for line in narration["requests"]]
    if any(re.search(r"\$[A-Z_]+_ID\b", line) for line in requests):
        console.print(
            "$LAB_NET_ID and the like are ids: a comment says in which answer the id is; of what was there before:"
        )
        console.print("openstack network show public -f value -c id")
    if any(re.search(r'"\$[A-Z_]+/', line) for line in requests):
        versions = ", ".join(f"/{version} ({service})" for service, version in VERSIONS.items())
        console.print("$NETWORK and the like are the services' URLs: openstack catalog list;")
        console.print(f"where one ends without the API's version, add it: {versions}")


def counted(number: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _wrapped(text: str) -> str:
    """As wide as a terminal is, and as is easy to read."""
    import shutil
    import textwrap

    width = min(100, shutil.get_terminal_size((104, 24)).columns - 4)
    return textwrap.fill(text, max(width, 20), break_on_hyphens=False)


def _tell(console: Console, step: Step, narration: dict[str, object]) -> None:
    console.heading(f"{step.id}: {step.title}  (as {step.who})")
    console.indented(_wrapped(step.say))
    for key, title in (("commands", "command"), ("requests", "REST"), ("horizon", "Horizon")):
        value = narration[key]
        for line in [value] if isinstance(value, str) else list(value):  # type: ignore[call-overload]
            # What has several lines is a script, which a terminal is given as it stands: indented, its end would not be seen.
            begin = "\n" if "\n" in line else " "
            console.print(f"    {console.style(title.ljust(8), 'bright_black')}{begin}{line}")
    for line in narration["more"]:  # type: ignore[attr-defined]
        console.print(f"    {line}")


@click.command()
@address_argument
@click.option("--step", "stepwise", is_flag=True, help="Wait for a key before each step: run, skip, show, quit.")
@click.option("--from", "first", metavar="ID", shell_complete=complete_step, help="Begin with this step.")
@click.option("--to", "last", metavar="ID", shell_complete=complete_step, help="End with this step.")
@click.option("--via", type=click.Choice(["rest", "cli"]), default="rest", show_default=True, help="How to do it.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@trust_option
@json_option
@click.pass_obj
def replay(
    context: Invocation,
    address: str | None,
    stepwise: bool,
    first: str | None,
    last: str | None,
    via: str,
    dry_run: bool,
    trust: bool,
    as_json: bool,
) -> None:
    """Do a session's steps and check each one.

    What is there already, as declared, is left alone; what is there but different is reported, never changed.
    It sends the very requests that are shown as curl; --via cli runs the very openstack commands that are shown.
    """
    from stacklab.replay.apply import between
    from stacklab.replay.apply import replay as do_replay
    from stacklab.replay.narrate import Narrator

    console = context.console(as_json)
    session, steps = addressed(context, address)
    steps = between(session, steps, first, last)
    if dry_run:
        narrator = Narrator(context.lab, session)
        narrated_steps = [narrator.tell(step) for step in steps]
        console.result({"session": session.name, "steps": narrated_steps})
        for step, narrated in zip(steps, narrated_steps, strict=True):
            _tell(console, step, narrated)
            console.print()
        return
    if stepwise and not sys.stdin.isatty():
        raise click.UsageError("--step waits for keys, so it needs a terminal; leave it out, or name one step")
    session = trusted(console, context.lab, session, trust=trust)
    asked = (lambda step: _ask(console, Narrator(context.lab, session), step)) if stepwise else None
    results = do_replay(
        context.lab,
        session,
        steps,
        via,
        lambda shown: replayed(console, shown),
        lambda text: said(console, text),
        asked,
    )
    console.result({"session": session.name, "steps": [_as_json(applied) for applied in results]})
    made = sum(applied.outcome == "done" for applied in results)
    left = [applied for applied in results if applied.outcome == "not_applicable"]
    there = sum(applied.outcome == "already" for applied in results)
    skipped = f", {len(steps) - len(results)} skipped" if len(steps) > len(results) else ""
    console.print(f"{counted(len(results), 'step')}: {made} done, {there} there already{skipped}")
    if left:
        console.print(f"not applicable here: {', '.join(applied.step.id for applied in left)}")
    console.print(f"next: lab check {session.name}   lab undo {session.name}   lab reset")


def replayed(console: Console, shown: Shown) -> None:
    """A step that is about to be done, or was."""
    from stacklab.events import StageBegan, StageEnded

    name = f"{shown.step.exercise}/{shown.step.id}"
    if console.as_json:
        return
    if shown.applied is None:
        console.emit(StageBegan(name, f"{name}: {shown.step.title}"))
        return
    outcomes: dict[str, Literal["done", "already", "skipped"]]
    outcomes = {"done": "done", "already": "already", "not_applicable": "skipped"}
    console.emit(
        StageEnded(
            name,
            f"{name}: {shown.step.title}",
            outcomes[shown.applied.outcome],
            shown.applied.seconds,
            shown.applied.detail,
        )
    )


def said(console: Console, text: str) -> None:
    """What a step has brought to light."""
    console.indented(console.style(text, "cyan"))


def _as_json(applied: Applied) -> dict[str, object]:
    step = {"id": applied.step.id, "exercise": applied.step.exercise, "kind": applied.step.kind.name}
    return step | {"outcome": applied.outcome, "detail": applied.detail, "seconds": round(applied.seconds, 2)}


def _ask(console: Console, narrator: Narrator, step: Step) -> Literal["run", "skip", "quit"]:
    """One key: run, skip or quit ("show" shows and asks again)."""
    console.heading(f"{step.exercise}/{step.id}: {step.title}  (as {step.who})")
    while True:
        click.echo("    [r]un (or Enter)  [s]kip  s[h]ow  [q]uit ? ", nl=False)
        key = click.getchar().lower()
        click.echo(key if key.isprintable() else "")
        if key in ("r", "\r", "\n", " "):
            return "run"
        if key == "s":
            return "skip"
        if key == "q":
            return "quit"
        if key == "h":
            _tell(console, step, narrator.tell(step))


@click.command()
@address_argument
@trust_option
@json_option
@click.pass_obj
def check(context: Invocation, address: str | None, trust: bool, as_json: bool) -> None:
    """Grade what is in the cloud, whoever made it and however.

    Exit 0 only if no step failed and none is unknown.
    """
    from stacklab.replay.check import check_lab

    console = context.console(as_json)
    session, steps = addressed(context, address)
    session = trusted(console, context.lab, session, trust=trust)
    report = check_lab(context.lab, session, steps, lambda grade: _graded(context, console, session, grade))
    console.result(report.to_json())
    counts = f"{report.count('passed')} passed, {report.count('failed')} failed, {report.count('unknown')} cannot tell"
    console.print(f"{session.name}: {counts}, {report.count('not_applicable')} not applicable")
    if not report.good:
        click.get_current_context().exit(1)


def _graded(context: Invocation, console: Console, session: Session, grade: Grade) -> None:
    several = len(grade.findings) > 1
    actual = counted(len(grade.findings), "difference") if several else grade.actual
    console.print(f"{console.mark(grade.status)} {grade.exercise}/{grade.id}  {console.style(actual, 'bright_black')}")
    for finding in grade.findings if several else ():
        console.print(f"    found     {finding}")
    if grade.status in ("failed", "unknown"):
        console.print(f"    expected  {grade.expected}")
        console.print("    look     " + ("\n" if "\n" in grade.look else " ") + grade.look)
        # A step of another session than the lab's is known by its whole address only.
        here = session.name == context.lab.record.session
        name = grade.id if here else f"{session.name}/{grade.exercise}/{grade.id}"
        console.print(f"    hint      lab hint {name}")


@click.command()
@address_argument
@json_option
@click.pass_obj
def undo(context: Invocation, address: str | None, as_json: bool) -> None:
    """Remove what the lab's replay made (and what builds on it), in reverse order, and nothing else."""
    from stacklab.replay.undo import undo_steps

    console = context.console(as_json)
    session, steps = addressed(context, address, gone=True)
    undone: list[dict[str, str]] = []

    def told(step: Step, detail: str) -> None:
        undone.append({"id": step.id, "detail": detail})
        console.print(f"{console.mark('done')} {step.exercise}/{step.id}  {detail}")

    count = undo_steps(context.lab, session, steps, told)
    console.result({"session": session.name, "undone": undone})
    console.print(f"{counted(count, 'step')} undone" if count else "nothing to undo: the lab has made nothing there")
