"""What several verbs share: the lab they work on, where they print, their arguments, and what they ask for."""

from __future__ import annotations

import os
import re
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import click

from stacklab.cli.completing import complete_address

if TYPE_CHECKING:
    from stacklab.console import Console
    from stacklab.course.session import Session, Step
    from stacklab.lab import Lab

LAB_HELP = "Which lab to work on; most people have one only."
LABS_HELP = (
    "A directory of sessions beside the course's own; may be given again. Also LAB_LABS, with ':' between several."
)

json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    help="JSON for scripts: a document, or a line an event where something takes time.",
)
address_argument = click.argument(
    "address", required=False, metavar="[SESSION[/EXERCISE[/STEP]]]", shell_complete=complete_address
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
trust_option = click.option(
    "--trust", is_flag=True, help="Show what a foreign session runs here, and agree to it, for this command."
)
admin_option = click.option("--admin", is_flag=True, help="As the cloud's administrator instead of the learner.")
profile_option = click.option("--profile", metavar="NAME", help="What DevStack makes of a machine: lab profiles.")


def words(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """The parts of A,B,…, each once."""
    return tuple(dict.fromkeys(word.strip() for word in (value or "").split(",") if word.strip()))


services_option = click.option(
    "--with", "services", metavar="NAME,...", callback=words, help="Optional services, like heat,barbican (DevStack)."
)


@dataclass
class Invocation:
    """What the command line says to every verb: which lab, and which directories of sessions. The group passes it to them."""

    as_json: bool = False
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

    @cached_property
    def console(self) -> Console:
        """Where to print; whatever is shown there is aimed at this lab."""
        from stacklab.console import Console

        return Console(as_json=self.as_json, aim=self.aimed)


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
            click.Option(["--lab"], callback=_name_lab, expose_value=False, help=LAB_HELP),
            click.Option(
                ["--labs"], callback=_add_labs, expose_value=False, multiple=True, metavar="DIR",
                type=click.Path(), help=LABS_HELP,
            ),
        ]  # fmt: skip
        for below in command.commands.values() if isinstance(command, click.Group) else ():
            with_lab_options(below)
    return command


# --- what an argument names ------------------------------------------------------------------------------------------


def addressed(context: Invocation, address: str | None, *, gone: bool = False) -> tuple[Session, list[Step]]:
    """The session and the steps that an argument names. Raises UnknownName, NoLab.

    `gone`: also those that only the journal remembers, because their file is gone or has changed.
    """
    from stacklab.course.session import StepAddress
    from stacklab.errors import UnknownName
    from stacklab.replay.current import journal_of, session_of
    from stacklab.replay.undo import recorded_session, session_to_undo

    find = session_to_undo if gone else session_of
    session: Session | None = None
    if address is None:
        session = find(context.lab, None)
        return session, list(session.steps())
    parsed = StepAddress.parse(address)
    try:
        session = find(context.lab, parsed.session)
        return session, session.select(parsed.exercise, parsed.step)
    except UnknownName as error:
        if gone and session:
            recorded = recorded_session(journal_of(context.lab), parsed.session)
            if recorded.exercises:
                return session, recorded.select(parsed.exercise, parsed.step)
        word = address.strip("/").rpartition("/")[2] if session else parsed.session
        error.advice = known_elsewhere(context, word, first=session.name if session else None) or error.advice
        raise


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


# --- asking: before something goes for good, breaks on somebody's machine, or comes from outside and would run here ----


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
    if not trust and (console.as_json or not (sys.stdin.isatty() and sys.stdout.isatty())):
        require_trusted(lab, session)
    _show_scripts(console, session)
    if trust:
        return replace(session, agreed=True)
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
        *(line for script in scripts(session) for line in script.lines("  ")),
    ]
    for line in lines:
        # With --json the document on stdout must stay one; what is agreed to is seen all the same.
        if console.as_json:
            click.echo(line, err=True)
        else:
            console.print(line)
