"""Asking before something goes for good, breaks on somebody's machine, or comes from outside and would run here.

`--yes` and `--trust` are the answers of scripts.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from stacklab.console import Console
    from stacklab.course.session import Session
    from stacklab.lab import Lab

F = TypeVar("F", bound="Callable[..., Any]")


def trust_option(function: F) -> F:
    """--trust"""
    return click.option(
        "--trust", is_flag=True, help="Show what a foreign session runs here, and agree to it, for this command."
    )(function)


def agreed(console: Console, question: str, *, yes: bool) -> bool:
    """Whether they agree. An answer may come through a pipe; raises NobodyToAsk where none can come."""
    from stacklab.errors import Interrupted, NobodyToAsk

    if yes:
        return True
    if console.as_json:
        raise NobodyToAsk(f"{question} With --json nobody is asked", advice="--yes agrees")
    try:
        return click.confirm(question, default=False)
    except click.Abort as error:
        if sys.stdin.isatty():
            raise Interrupted("interrupted at the question, which counts as no") from error
        click.echo()  # the question's own line ends here
        raise NobodyToAsk("nobody is here to answer", advice="--yes agrees") from error


def trusted(console: Console, lab: Lab, session: Session, *, trust: bool) -> Session:
    """The session, agreed to: all that one from outside would run here is shown, and asked for, unless it was before.

    Raises NoLab, and NotTrusted on a no, and where nobody can be asked: without a terminal, or with --json.
    """
    from stacklab.errors import NotTrusted
    from stacklab.replay.trust import is_trusted, remember, require_trusted

    lab.require()
    if is_trusted(lab, session):
        return session
    if trust:
        _show_scripts(console, session)
        return replace(session, agreed=True)
    if console.as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        require_trusted(lab, session)
    _show_scripts(console, session)
    if not click.confirm("Run it, now and as long as its file stays exactly as it is?", default=False):
        raise NotTrusted(
            f"nothing of '{session.name}' was run: you did not agree", advice="the same command asks again"
        )
    remember(lab, session)
    return session


def _show_scripts(console: Console, session: Session) -> None:
    from stacklab.plain import visible
    from stacklab.replay.trust import scripts

    lines = [
        f"{session.name} is from {visible(str(session.file))}, not one of the course's own.",
        "Its steps would run, read or fetch this on a machine of yours:",
    ]
    for script in scripts(session):
        lines += [
            f"  {visible(script.step)} ({script.kind})",
            *(f"    │ {visible(line)}" for line in script.text.split("\n")),
        ]
    for line in lines:
        # With --json the document on stdout must stay one; what is agreed to is seen all the same.
        if console.as_json:
            click.echo(line, err=True)
        else:
            console.print(line)
