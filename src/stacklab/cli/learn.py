"""`lab list`, `show`, `replay`, `check`, `undo`: the course."""

from __future__ import annotations

import re
import sys
from typing import Any, Literal

import click

from stacklab.cli.options import Invocation, address_argument, addressed, json_option, trust_option, trusted
from stacklab.cloud.connection import VERSIONS
from stacklab.console import Console
from stacklab.course.load import load_session
from stacklab.course.search import all_sessions, missing
from stacklab.course.session import Session, Step
from stacklab.errors import SessionInvalid
from stacklab.replay.apply import Applied
from stacklab.replay.apply import replay as do_replay
from stacklab.replay.check import Grade, check_lab
from stacklab.replay.narrate import Narrator, named, outline
from stacklab.replay.undo import undo_steps

KEYS: dict[str, Literal["run", "skip", "quit", "show"]] = {"r": "run", "s": "skip", "q": "quit", "h": "show"}
KEYS |= dict.fromkeys(("\r", "\n", " "), "run")
"""What a key means, before a step."""


def counted(number: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@click.command("list")
@json_option
@click.pass_obj
def list_(context: Invocation) -> None:
    """List the course's sessions."""
    console = context.console
    sessions, broken = [], []
    for name in all_sessions(context.lab.labs):
        try:
            sessions.append(load_session(name, also=context.lab.labs))
        except SessionInvalid as error:
            broken.append(error)
    rows: list[dict[str, Any]] = [
        {
            "session": session.name,
            "title": session.title,
            "steps": len(list(session.steps())),
            "from": str(session.file.parent.parent) if session.foreign else None,
        }
        for session in sessions
    ]
    console.result(rows)
    columns = ["session", "steps", "title", *(["from"] if any(row["from"] for row in rows) else [])]
    console.table([name.upper() for name in columns], [[str(row[name] or "") for name in columns] for row in rows])
    console.print("\nlab show SESSION lists its exercises; lab up SESSION brings its cloud up.")
    if gone := missing():
        click.echo(f"note: {gone}", err=True)
    if broken:
        raise broken[0]


# --- show ------------------------------------------------------------------------------------------------------------


@click.command()
@address_argument
@json_option
@click.pass_obj
def show(context: Invocation, address: str | None) -> None:
    """Show a session's exercises, or the steps of one: why, the openstack command, the REST call, the way in Horizon."""
    console = context.console
    session, steps = addressed(context, address)
    if address is None or "/" not in address:
        about = {
            "session": session.name,
            "title": session.title,
            "exercises": [{"id": exercise.id, "title": exercise.title} for exercise in session.exercises],
            "steps": [named(step) for step in steps],
            "faults": [{"id": fault.id, "title": fault.title} for fault in session.faults],
        }
        console.result(about)
        for line in outline(session):
            console.print(line)
        return
    narrator = Narrator(context.lab, session)
    narrated = [narrator.tell(step) for step in steps]
    console.result({"session": session.name, "title": session.title, "steps": narrated})
    exercise = next(exercise for exercise in session.exercises if exercise.id == steps[0].exercise)
    console.heading(f"{session.name}/{exercise.id}: {exercise.title}")
    console.wrapped("", exercise.say)
    for step, narration in zip(steps, narrated, strict=True):
        console.print()
        _tell(console, step, narration)
    console.print("\n$TOKEN is a token: openstack token issue -f value -c id")
    requests = "\n".join(line for narration in narrated for line in narration["requests"])
    if re.search(r"\$[A-Z_]+_ID\b", requests):
        console.print(
            "$LAB_NET_ID and the like are ids: a comment says in which answer the id is; of what was there before:\n"
            "openstack network show public -f value -c id"
        )
    if re.search(r'"\$[A-Z_]+/', requests):
        versions = ", ".join(f"/{version} ({service})" for service, version in VERSIONS.items())
        console.print("$NETWORK and the like are the services' URLs: openstack catalog list;")
        console.print(f"where one ends without the API's version, add it: {versions}")


def _tell(console: Console, step: Step, narration: dict[str, Any]) -> None:
    console.heading(f"{step.id}: {step.title}  (as {step.who})")
    console.wrapped("    ", step.say)
    lines = [("command", command) for command in narration["commands"]]
    lines += [("REST", request) for request in narration["requests"]]
    for title, line in [*lines, ("Horizon", narration["horizon"])]:
        console.typed(f"    {console.style(title.ljust(8), 'bright_black')} ", line)
    for line in narration["more"]:
        console.print(f"    {line}")


# --- replay ----------------------------------------------------------------------------------------------------------


@click.command()
@address_argument
@click.option("--step", "stepwise", is_flag=True, help="Wait for a key before each step: run, skip, show, quit.")
@click.option("--via", type=click.Choice(["rest", "cli"]), default="rest", show_default=True, help="How to do it.")
@trust_option
@json_option
@click.pass_obj
def replay(context: Invocation, address: str | None, stepwise: bool, via: str, trust: bool) -> None:
    """Do a session's steps and check each one. What would be done is shown by lab show.

    What is there already, as declared, is left alone; what is there but different is reported, never changed.
    It sends the very requests that are shown as curl; --via cli runs the very openstack commands that are shown.
    """
    lab, console = context.lab, context.console
    session, steps = addressed(context, address)
    if stepwise and not sys.stdin.isatty():
        raise click.UsageError("--step waits for keys, so it needs a terminal; leave it out, or name one step")
    session = trusted(console, lab, session, trust=trust)
    ask = (lambda step: _ask(console, Narrator(lab, session), step)) if stepwise else None
    results = do_replay(lab, session, steps, via, console.emit_text, console.shown, ask)
    console.result({"session": session.name, "steps": [_as_json(applied) for applied in results]})
    outcomes = [applied.outcome for applied in results]
    skipped = f", {len(steps) - len(results)} skipped" if len(steps) > len(results) else ""
    there = f"{outcomes.count('already')} there already{skipped}"
    console.print(f"{counted(len(results), 'step')}: {outcomes.count('done')} done, {there}")
    if "not_applicable" in outcomes:
        left = [applied.step.id for applied in results if applied.outcome == "not_applicable"]
        console.print(f"not applicable here: {', '.join(left)}")
    console.print(f"next: lab check {session.name}   lab undo {session.name}   lab reset")


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
        answer = KEYS.get(key)
        if answer == "show":
            _tell(console, step, narrator.tell(step))
        elif answer:
            return answer


# --- check, undo -----------------------------------------------------------------------------------------------------


@click.command()
@address_argument
@trust_option
@json_option
@click.pass_obj
def check(context: Invocation, address: str | None, trust: bool) -> None:
    """Grade what is in the cloud, whoever made it and however.

    Exit 0 only if no step failed and none is unknown.
    """
    console = context.console
    session, steps = addressed(context, address)
    session = trusted(console, context.lab, session, trust=trust)
    report = check_lab(context.lab, session, steps, lambda grade: _graded(context, session, grade))
    counts = report.counts()
    console.result({"session": session.name, **counts, "steps": [grade.to_json() for grade in report.grades]})
    words = {"unknown": "cannot tell", "not_applicable": "not applicable"}
    told = (f"{count} {words.get(status, status)}" for status, count in counts.items())
    console.print(f"{session.name}: {', '.join(told)}")
    if not report.good:
        raise click.exceptions.Exit(1)


def _graded(context: Invocation, session: Session, grade: Grade) -> None:
    console, several = context.console, len(grade.findings) > 1
    actual = counted(len(grade.findings), "difference") if several else grade.actual
    console.print(f"{console.mark(grade.status)} {grade.exercise}/{grade.id}  {console.style(actual, 'bright_black')}")
    for finding in grade.findings if several else ():
        console.print(f"    found     {finding}")
    if grade.status in ("failed", "unknown"):
        console.print(f"    expected  {grade.expected}")
        console.typed("    look      ", grade.look)
        # A step of another session than the lab's is known by its whole address only.
        here = session.name == context.lab.record.session
        name = grade.id if here else f"{session.name}/{grade.exercise}/{grade.id}"
        console.print(f"    hint      lab hint {name}")


@click.command()
@address_argument
@json_option
@click.pass_obj
def undo(context: Invocation, address: str | None) -> None:
    """Remove what the lab's replay made (and what builds on it), in reverse order, and nothing else."""
    console = context.console
    session, steps = addressed(context, address, gone=True)
    undone: list[dict[str, str]] = []

    def note(step: Step, detail: str) -> None:
        undone.append({"id": step.id, "detail": detail})
        console.print(f"{console.mark('done')} {step.exercise}/{step.id}  {detail}")

    undo_steps(context.lab, session, steps, note)
    console.result({"session": session.name, "undone": undone})
    nothing = "nothing to undo: the lab has made nothing there"
    console.print(f"{counted(len(undone), 'step')} undone" if undone else nothing)
