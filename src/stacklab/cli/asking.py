"""Asking before something goes for good, or breaks on somebody's machine. `--yes` is the answer of scripts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from stacklab.console import Console


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
