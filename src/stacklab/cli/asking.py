"""Asking before something goes for good, or breaks on somebody's machine. `--yes` is the answer of scripts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from stacklab.console import Console


def agreed(console: Console, question: str, *, yes: bool) -> bool:
    """Whether they agree. An answer may come through a pipe; where nobody can answer, click.UsageError says what to do."""
    if yes:
        return True
    if console.as_json:
        raise click.UsageError(f"{question} With --json nobody is asked: --yes agrees")
    try:
        return click.confirm(question, default=False)
    except click.Abort as error:
        if sys.stdin.isatty():
            raise
        click.echo()  # the question's own line ends here
        raise click.UsageError("nobody is here to answer: --yes agrees") from error
