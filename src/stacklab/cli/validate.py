"""`lab validate` and `lab schema`: for whoever writes sessions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from stacklab.cli.learn import counted
from stacklab.cli.options import Invocation, json_option
from stacklab.course.schema import kinds_page, session_schema
from stacklab.errors import SessionInvalid
from stacklab.plain import visible
from stacklab.replay.validate import validate as do_validate


@click.command()
@click.argument("path", metavar="DIR|FILE", type=click.Path())
@json_option
@click.pass_obj
def validate(context: Invocation, path: str) -> None:
    """Read the sessions of a directory (or one session), and tell what is wrong with them.

    What a mistake hides (a step that cannot be read at all, say) shows when that is repaired.

    Also what could be read, but is bad for learners, and everything that the sessions would run on their machines.
    Nothing of it is run. Exit 40 if anything is wrong.
    """
    console = context.console
    reports = do_validate(Path(path))
    good = not any(report.problems for report in reports)
    console.result({"good": good, "sessions": [asdict(report) for report in reports]})
    for report in reports:
        number = len(report.problems)
        verdict = counted(number, "problem") if number else counted(report.steps, "step")
        console.print(f"{console.mark('failed' if number else 'passed')} {visible(report.name)}: {verdict}")
        for problem in report.problems:
            console.print(f"    {visible(problem.text())}")
            if problem.advice:
                console.print(f"      → {visible(problem.advice)}")
        if report.scripts:
            console.print(f"    it would run or read on a machine ({counted(len(report.scripts), 'step')}):")
        for script in report.scripts:
            console.print("\n".join(script.lines("    ")))
    if not good:
        raise click.exceptions.Exit(SessionInvalid.exit_code)


@click.command()
@click.option("--markdown", is_flag=True, help="The page on the kinds of steps instead.")
def schema(markdown: bool) -> None:
    """Print the JSON Schema of session files: every key and every kind of step. Editors complete and check with it.

    \b
    # yaml-language-server: $schema=../../docs/session.schema.json
    """
    click.echo(kinds_page().rstrip() if markdown else json.dumps(session_schema(), indent=1, ensure_ascii=False))
