"""`lab validate` and `lab schema`: for whoever writes sessions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stacklab.cli.completing import complete_file
from stacklab.cli.options import Invocation, json_option

if TYPE_CHECKING:
    from stacklab.console import Console
    from stacklab.replay.validate import ValidationReport


@click.command()
@click.argument("path", metavar="DIR|FILE", shell_complete=complete_file)
@json_option
@click.pass_obj
def validate(context: Invocation, path: str, as_json: bool) -> None:
    """Read the sessions of a directory (or one session), and tell what is wrong with them.

    What a mistake hides (a step that cannot be read at all, say) shows when that is repaired.

    Also what could be read, but is bad for learners, and everything that the sessions would run on their machines.
    Nothing of it is run. Exit 40 if anything is wrong.
    """
    from stacklab.errors import SessionInvalid
    from stacklab.replay.validate import validate as do_validate

    console = context.console(as_json)
    reports = do_validate(Path(path))
    wrong = sum(len(report.problems) for report in reports)
    console.result({"good": wrong == 0, "sessions": [report.to_json() for report in reports]})
    for report in reports:
        _show(console, report)
    if wrong:
        click.get_current_context().exit(SessionInvalid.exit_code)


def _show(console: Console, report: ValidationReport) -> None:
    from stacklab.cli.learn import counted
    from stacklab.plain import visible

    mark = console.mark("failed" if report.problems else "passed")
    number = len(report.problems)
    verdict = counted(report.steps, "step") if not number else counted(number, "problem")
    console.print(f"{mark} {visible(report.name)}: {verdict}")
    for problem in report.problems:
        console.print(f"    {visible(problem.text())}")
        if problem.advice:
            console.print(f"      → {visible(problem.advice)}")
    if report.scripts:
        console.print(f"    it would run or read on a machine ({counted(len(report.scripts), 'step')}):")
    for script in report.scripts:
        console.print(f"    {script.step} ({script.kind})")
        for line in script.text.split("\n"):
            console.print(f"      │ {visible(line)}")


@click.command()
@click.option("--markdown", is_flag=True, help="The page on the kinds of steps instead.")
def schema(markdown: bool) -> None:
    """Print the JSON Schema of session files: every key and every kind of step. Editors complete and check with it.

    \b
    # yaml-language-server: $schema=../../docs/session.schema.json
    """
    import json

    from stacklab.course.schema import kinds_page, session_schema

    click.echo(kinds_page().rstrip() if markdown else json.dumps(session_schema(), indent=1, ensure_ascii=False))
