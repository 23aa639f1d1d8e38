"""Showing what a foreign session would run, and asking for it; the verbs that run steps share this."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stacklab.cli.options import Context
    from stacklab.console import Console
    from stacklab.course.session import Session, Step
    from stacklab.replay.consent import Allow, Foreign
    from stacklab.replay.trust import Trust

F = TypeVar("F", bound="Callable[..., Any]")


def trust_option(function: F) -> F:
    """--trust"""
    return click.option(
        "--trust", is_flag=True, help="Show what a foreign session runs here, and agree to it, for this command."
    )(function)


def agreement(
    context: Context,
    console: Console,
    session: Session,
    steps: Iterable[Step],
    *,
    trust: bool,
    needed: bool = True,
    known: Trust | None = None,
) -> Allow:
    """Show what these steps would run here and nobody has agreed to yet, and ask; what may run from now on.

    Without a terminal, or with --json, nobody can be asked: raises NotTrusted then, or on a no (`needed`), else leaves it to
    each step.
    """
    from stacklab.replay.consent import refused, to_agree_to
    from stacklab.replay.trust import Trust

    known = known or Trust(context.lab)
    for found in known.unknown(to_agree_to(session, steps)):
        if trust:
            _show(console, found)
            known.accept(found, once=True)
            continue
        can_ask = not console.as_json and sys.stdin.isatty() and sys.stdout.isatty()
        if can_ask and _asked(console, found):
            known.accept(found)
        elif needed:
            raise refused(found, asked=can_ask)
    return known.agreed


def agreement_to_all(context: Context, console: Console, *, trust: bool) -> Trust:
    """The same for everything that the journal has: a reset without checkpoints undoes all of it."""
    from stacklab.replay.current import journal_of, session_to_undo
    from stacklab.replay.learn import as_remembered
    from stacklab.replay.trust import Trust

    known = Trust(context.lab)
    for name in journal_of(context.lab).sessions():
        session = session_to_undo(context.lab, name)
        remembered = as_remembered(context.lab, session, list(session.steps()))
        agreement(context, console, *remembered, trust=trust, known=known)
    return known


def _asked(console: Console, found: Foreign) -> bool:
    _show(console, found)
    return click.confirm("Run it, now and whenever this lab meets exactly this again?", default=False)


def _show(console: Console, found: Foreign) -> None:
    from stacklab.plain import visible

    session, step = found.session, found.step
    text = [
        f"{session.name}/{step.exercise}/{step.id} is from {visible(str(session.file))}, not one of the course's own.",
        f"It would run or read this on a machine of yours, as {step.kind.name}:",
        *(f"    │ {visible(line)}" for line in found.text.split("\n")),
    ]
    # With --json the document on stdout must stay one; what is agreed to is seen all the same.
    for line in text:
        if console.as_json:
            click.echo(line, err=True)
        else:
            console.print(line)
