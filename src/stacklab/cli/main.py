"""The command `lab`: finds the verb, and is the one place where an error becomes text and an exit code."""

from __future__ import annotations

import errno
import importlib
import io
import os
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from stacklab import __version__
from stacklab.cli.options import LAB_HELP, LABS_HELP, Invocation, with_lab_options

if TYPE_CHECKING:
    from stacklab.errors import LabError

VERBS = {
    # verb: (module, attribute, one line of help: known here so that `lab --help` imports none of the modules)
    "up": ("lifecycle", "up", "Bring a session's cloud up, from wherever it stands."),
    "status": ("state", "status", "Show what runs, and how far you are."),
    "show": ("learn", "show", "Show a session's steps: why, the command, the REST call, Horizon."),
    "list": ("learn", "list_", "List the course's sessions."),
    "replay": ("learn", "replay", "Do a session's steps, all or one at a time."),
    "check": ("learn", "check", "Grade what is in the cloud, whoever made it."),
    "hint": ("faults", "hint", "Show the hint for a step, or the next clue to what is broken."),
    "undo": ("learn", "undo", "Remove what the lab's replay made, and nothing else."),
    "faults": ("faults", "faults", "List what can be broken on purpose, and what is broken."),
    "break": ("faults", "break_", "Break something on purpose, for you to find and repair."),
    "fix": ("faults", "fix", "Repair what lab break has broken."),
    "ssh": ("cloud", "ssh", "Log in to an instance with the lab's key pair."),
    "shell": ("cloud", "shell", "Open a shell in the cloud's network, where floating IPs answer."),
    "netns": ("cloud", "netns", "Run one command in the cloud's network."),
    "openstack": ("cloud", "openstack", "Run the openstack client as the learner (or --admin)."),
    "openrc": ("cloud", "openrc", 'Print what a shell needs to use the cloud: eval "$(lab openrc)".'),
    "password": ("cloud", "password", "Print the login for Horizon (--admin: the administrator's)."),
    "logs": ("state", "logs", "Show the services' logs."),
    "attach": ("state", "attach", "Watch stack.sh on the lab's machine, from where you left it."),
    "restart": ("state", "restart", "Restart one service of the cloud."),
    "fixes": ("fixes", "fixes", "List, explain and apply repairs of the machine that the cloud runs on."),
    "recover": ("fixes", "recover", "Put back what a reboot of the machine took from the cloud."),
    "goto": ("lifecycle", "goto", "Bring the lab to a session's start, or to just before one of its steps."),
    "reset": ("lifecycle", "reset", "Put cloud and files back to the session's start, in seconds."),
    "down": ("lifecycle", "down", "Stop the cloud; what you made stays."),
    "destroy": ("lifecycle", "destroy", "Remove the lab and everything of it."),
    "doctor": ("doctor", "doctor", "Look at what each home needs of this machine, and repair it with --fix."),
    "profiles": ("deployment", "profiles", "List what DevStack can make of a machine, and how sure each fact is."),
    "render": ("deployment", "render", "Print the Vagrantfile or local.conf that lab up would write."),
    "prefetch": ("deployment", "prefetch", "Fetch now what deploying a profile needs, for a faster stack."),
    "validate": ("validate", "validate", "Read sessions, and tell what is wrong with them."),
    "schema": ("validate", "schema", "Print the JSON Schema of session files, for editors."),
    "completion": ("state", "completion", 'Print the shell\'s tab completion: eval "$(lab completion bash)".'),
}
ALIASES = {"start": "up", "grade": "check", "finish": "undo"}
"""What students of other vendors' courses type."""

COMPLETING = "_LAB_COMPLETE"

DEFECT = 70
"""Exit code for what is our fault (EX_SOFTWARE of sysexits.h)."""


class Verbs(click.Group):
    """Verbs that are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in VERBS:
            return None
        module, attribute, _ = VERBS[name]
        return with_lab_options(getattr(importlib.import_module(f"stacklab.cli.{module}"), attribute))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        verbs = [
            CompletionItem(verb, help=help_) for verb, (_, _, help_) in VERBS.items() if verb.startswith(incomplete)
        ]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from stacklab.suggest import closest

        if args and args[0] not in VERBS and args[0] not in ALIASES and not args[0].startswith("-"):
            ctx.fail(f"there is no verb '{args[0]}'; {closest(args[0], [*VERBS, *ALIASES], 'lab --help')}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, _, text) in VERBS.items()])
        with formatter.section("Also known as"):
            formatter.write_dl([(alias, f"the same as {name}") for alias, name in ALIASES.items()])


@click.group(cls=Verbs, subcommand_metavar="VERB ...", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--lab", "name", default="intro", envvar="LAB_NAME", show_default=True, help=LAB_HELP)
@click.option("--labs", multiple=True, metavar="DIR", type=click.Path(), help=LABS_HELP)
@click.version_option(__version__, prog_name="lab")
@click.pass_context
def cli(context: click.Context, name: str, labs: tuple[str, ...]) -> None:
    """The companion to an Introduction to OpenStack course.

    \b
    lab up session4          a running OpenStack at the start of session 4
    lab show session4        what there is to do, and how
    lab replay session4      do it all; with --step, one step at a time
    lab check session4       what is right and wrong with what is there
    lab reset                back to the start of the session

    Exit codes: 0 good, 1 a check failed or could not tell, 2 wrong usage, 10-19 this machine lacks something,
    20-29 the home, 30-39 the cloud or a step, 40-49 a name, or a session file, 50-59 the lab, 70 a defect of lab,
    130 interrupted.
    """
    invocation = context.ensure_object(Invocation)
    source = context.get_parameter_source("name")
    invocation.name_lab(name, on_the_line=source == click.core.ParameterSource.COMMANDLINE)
    invocation.add_labs(labs)


def main() -> None:
    """Run, and turn whatever is raised into one line, advice and an exit code."""
    _open_streams()
    code = run(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever presses Ctrl-C twice gets the same end, not a traceback
    sys.exit(code)


def _open_streams() -> None:
    """Whoever started us may have closed them, or want an encoding that has not all of our signs."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 -- as long as we are
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def run(arguments: list[str]) -> int:
    """The exit code for these arguments."""
    from stacklab.cloud.direct import LOOPBACK, past_the_proxy

    past_the_proxy(*LOOPBACK)
    if COMPLETING in os.environ:  # the shell asks what could come next; click answers and exits
        cli.main(arguments, prog_name="lab")
    before = os.environ.get("LAB_NAME")
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments  # the rest is another program's
    try:
        return _run(arguments, Invocation(as_json="--json" in ours))
    finally:
        os.environ.pop("LAB_NAME", None)
        os.environ |= {} if before is None else {"LAB_NAME": before}


def _run(arguments: list[str], invocation: Invocation) -> int:
    from stacklab.errors import Interrupted, LabError

    def fail(error: LabError) -> int:
        invocation.console.error(error)
        return error.exit_code

    try:
        # Not cli.main(): it swallows exit codes, interruptions and broken pipes, each of which has a meaning of its own here.
        with cli.make_context("lab", list(arguments), obj=invocation) as context:
            cli.invoke(context)
            sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except click.ClickException as error:
        if not invocation.as_json:
            vars(error)["message"] = invocation.aimed(error.message)  # final to click, for whoever does not end with it
            error.show()
            return error.exit_code
        return fail(_misused(error))
    except LabError as error:
        return fail(error)
    except (KeyboardInterrupt, click.Abort) as stop:
        handler = signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # a second Ctrl-C must not end the first one's explanation
        # Whoever was interrupted may know more: that stack.sh goes on without us, say.
        message = str(stop) or "interrupted; what was done stays done"
        try:
            return fail(Interrupted(message, advice=f"goes on from there: {shlex.join(['lab', *arguments])}"))
        finally:
            signal.signal(signal.SIGINT, handler)
    except BrokenPipeError:
        _drop_output()  # whoever read it (head, less) has left
        return 141
    except OSError as error:
        unwritten = _unwritten(error)
        if unwritten is None:
            return _defect()
        invocation.console.as_json &= bool(error.filename)  # what has no room on the output is not said there
        return fail(unwritten)
    except Exception:  # noqa: BLE001 -- the boundary: everything that gets here is a defect of ours, and is said to be one
        return _defect()
    return 0


def _drop_output() -> None:
    """The interpreter must not complain at exit about what nobody can have."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unwritten(error: OSError) -> LabError | None:
    """A full disk, be it under a file or under our output (`lab … > file`), or a place kept from us: no defects of ours."""
    from stacklab.errors import LabError, NotAllowed
    from stacklab.files import disk_error

    if error.filename and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
        advice = "lab keeps its files below HOME, or where XDG_STATE_HOME, XDG_DATA_HOME and XDG_CACHE_HOME say"
        return NotAllowed(f"{error.filename}: {error.strerror}", advice=advice)
    explained = disk_error(error, Path(error.filename or "the output"))
    if not isinstance(explained, LabError):
        return None
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
    return explained  # on stderr, where the output has no room


def _misused(error: click.ClickException) -> LabError:
    from stacklab.errors import WrongUsage

    context = error.ctx if isinstance(error, click.UsageError) else None
    return WrongUsage(error.format_message(), advice=f"{context.command_path if context else 'lab'} --help")


def _defect() -> int:
    from stacklab.places import state_home

    text = masked(traceback.format_exc())
    path: Any = state_home() / "defect.txt"
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        path = f"nowhere ({error.strerror})"
    sys.stderr.write(f"lab: this is a defect of lab itself: {text.strip().splitlines()[-1]}\n")
    sys.stderr.write(f"     → please report it with the trace in {path}; the lab's state is kept\n")
    return DEFECT


def masked(text: str) -> str:
    """`text` without any lab's secrets."""
    from stacklab.lab import all_labs

    for lab in all_labs():
        for secret in lab.secrets():
            text = text.replace(secret, "********")
    return text
