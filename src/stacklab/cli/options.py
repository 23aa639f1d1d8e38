"""What several verbs share: the lab they work on, their arguments, and completion for them."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stacklab.cli.completing import complete_address, complete_directory, complete_lab

if TYPE_CHECKING:
    from collections.abc import Callable

    from stacklab.console import Console
    from stacklab.course.session import Session, Step
    from stacklab.lab import Lab

LAB_HELP = "Which lab to work on; most people have one only."
LABS_HELP = (
    "A directory of sessions beside the course's own; may be given again. Also LAB_LABS, with ':' between several."
)
F = TypeVar("F", bound="Callable[..., Any]")


@dataclass
class Invocation:
    """What the command line says to every verb: which lab, and which directories of sessions. The group passes it to them."""

    lab_name: str = "intro"
    labs: tuple[str, ...] = ()
    _named: str | None = None

    def name_lab(self, name: str, *, on_the_line: bool = True) -> None:
        """Work on this lab, and so do the processes that we start."""
        self.lab_name = name
        if on_the_line:
            self._named = os.environ["LAB_NAME"] = name

    def add_labs(self, directories: tuple[str, ...]) -> None:
        """Look for sessions there, too. Raises UnknownName for what is no directory."""
        from stacklab.course.search import add_to_search_path

        add_to_search_path(directories)
        self.labs += directories

    @property
    def lab(self) -> Lab:
        """The lab. Raises UnknownName for a name that cannot be one."""
        from stacklab.lab import Lab

        return Lab(self.lab_name)

    def aimed(self, text: str) -> str:
        """`text`, whose commands name lab and labs where the command line did: typed as shown, they work on the same ones."""
        from stacklab.cli.main import ALIASES, VERBS

        named = [("--lab", self._named)] if self._named else []
        options = "".join(
            f"{option} {shlex.quote(value)} " for option, value in [*named, *(("--labs", d) for d in self.labs)]
        )
        if not options:
            return text
        verbs = "|".join([*VERBS, *ALIASES])
        return re.sub(
            rf"(?<![\w/.-])(?<!the )(?<!this )(?<!your )lab (?=(?:{verbs})\b)", lambda _: f"lab {options}", text
        )

    def console(self, as_json: bool = False, *, verbatim: bool = False) -> Console:
        """Where to print. Whatever is shown there is aimed at this lab, unless it is somebody's file or log (`verbatim`)."""
        from stacklab.console import Console

        return Console(as_json=as_json, aim=str if verbatim else self.aimed)


def _name_lab(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.find_root().params["name"] = value  # what completion looks at
        if invocation := ctx.find_object(Invocation):
            invocation.name_lab(value)


def _add_labs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
    if value:
        ctx.find_root().params["labs"] = (*(ctx.find_root().params.get("labs") or ()), *value)
        if not ctx.resilient_parsing and (invocation := ctx.find_object(Invocation)):
            invocation.add_labs(value)


def with_lab_options(command: click.Command) -> click.Command:
    """`--lab` and `--labs` after the verb, too."""
    if not any("--lab" in param.opts for param in command.params):
        command.params += [
            click.Option(["--lab"], callback=_name_lab, expose_value=False, shell_complete=complete_lab, help=LAB_HELP),
            click.Option(
                ["--labs"], callback=_add_labs, expose_value=False, multiple=True, metavar="DIR",
                shell_complete=complete_directory, help=LABS_HELP,
            ),
        ]  # fmt: skip
        for below in command.commands.values() if isinstance(command, click.Group) else ():
            with_lab_options(below)
    return command


def address_argument(function: F) -> F:
    """SESSION[/EXERCISE[/STEP]]; without it, the session that is up."""
    return click.argument(
        "address", required=False, metavar="[SESSION[/EXERCISE[/STEP]]]", shell_complete=complete_address
    )(function)


def json_option(function: F) -> F:
    """--json"""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="JSON for scripts: a document, or a line an event where something takes time.",
    )(function)


def addressed(context: Invocation, address: str | None, *, gone: bool = False) -> tuple[Session, list[Step]]:
    """The session and the steps that an argument names. Raises UnknownName, NoLab.

    `gone`: also those that only the journal remembers, because their file is gone or has changed.
    """
    from stacklab.course.session import StepAddress
    from stacklab.errors import UnknownName
    from stacklab.replay.current import journal_of, session_of
    from stacklab.replay.undo import recorded_session, session_to_undo

    find = session_to_undo if gone else session_of
    if address is None:
        session = find(context.lab, None)
        return session, list(session.steps())
    parsed = StepAddress.parse(address)
    try:
        session = find(context.lab, parsed.session)
    except UnknownName as error:
        error.advice = known_elsewhere(context, parsed.session) or error.advice
        raise
    try:
        return session, session.select(parsed.exercise, parsed.step)
    except UnknownName as error:
        recorded = recorded_session(journal_of(context.lab), parsed.session) if gone else None
        if recorded is None or not recorded.exercises:
            word = address.strip("/").rpartition("/")[2]
            error.advice = known_elsewhere(context, word, first=session.name) or error.advice
            raise
        return session, recorded.select(parsed.exercise, parsed.step)


def known_elsewhere(context: Invocation, word: str, *, first: str | None = None) -> str:
    """Advice for a word that names nothing where it stood, but an exercise or a step somewhere else; empty if it does not.

    `first`: the session to look in before others; else the one that is up.
    """
    from stacklab.course.load import load_session
    from stacklab.course.search import all_sessions
    from stacklab.errors import SessionInvalid

    begin = first or context.lab.record.session
    for name in sorted(all_sessions(context.lab.labs), key=lambda name: name != begin):
        with suppress(SessionInvalid):  # `lab validate` says what is wrong with it
            for step in load_session(name, also=context.lab.labs).steps():
                for place in (f"{name}/{step.exercise}", f"{name}/{step.exercise}/{step.id}"):
                    if place.endswith(f"/{word}"):
                        return f"did you mean '{place}'?"
    return ""
