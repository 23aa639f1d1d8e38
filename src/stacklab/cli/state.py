"""`lab status`, `logs`, `restart`, `reset`, `down`, `destroy`, `completion`: the lab's cloud as a whole."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from stacklab.cli.asking import agreed
from stacklab.cli.completing import complete_service, complete_session
from stacklab.cli.options import Invocation, json_option
from stacklab.cli.standing import as_json as session_json
from stacklab.cli.standing import show_standing, whole_course

if TYPE_CHECKING:
    from stacklab.console import Console
    from stacklab.homes.base import HomeStatus
    from stacklab.lab import Lab


@click.command()
@json_option
@click.pass_obj
def status(context: Invocation, as_json: bool) -> None:
    """Show what runs, and how far you are. Exit 0 only if the cloud is usable."""
    from dataclasses import asdict, replace

    from stacklab.errors import SessionInvalid, UnknownName
    from stacklab.replay.breaking import broken_faults, in_words
    from stacklab.replay.current import home_of, interruption, session_of
    from stacklab.replay.progress import ProgressFile

    lab, console = context.lab, context.console(as_json)
    home = home_of(lab)
    cloud, interrupted = home.status(), interruption(lab)
    if interrupted and cloud.state == "running":
        cloud = replace(cloud, state="degraded")
    standing, trouble = None, None
    try:
        session = session_of(lab, None)
        standing = ProgressFile(lab).of(session)
    except (SessionInvalid, UnknownName) as error:  # the cloud is worth showing all the same
        trouble = error
    course = whole_course(lab)
    broken = broken_faults(lab)
    services = [asdict(service) | {"log": str(service.log) if service.log else None} for service in cloud.services]
    console.result(
        {
            "lab": lab.name,
            "home": home.name,
            "state": cloud.state,
            "dashboard": cloud.dashboard,
            "session": lab.record.session,
            "passed": standing.passed if standing else 0,
            "failed": standing.failed if standing else 0,
            "steps": standing.total if standing else 0,
            "next": standing.next.id if standing and standing.next else None,
            "exercises": [asdict(exercise) | {"state": exercise.state} for exercise in standing.exercises]
            if standing
            else [],
            "sessions": [session_json(name, progress) for name, progress in course.items()],
            "broken_on_purpose": [None if fault.surprise else fault.address for fault in broken],
            "services": services,
            "notes": [*cloud.notes, *([interrupted.message] if interrupted else [])],
        }
    )
    _show_status(console, lab, home.name, cloud)
    if interrupted:
        console.print(f"! {interrupted.message}\n    → {interrupted.advice}")
    if broken:
        console.print(f"broken on purpose: {in_words(broken)}   (lab hint: a clue; lab fix repairs it)")
    if trouble:
        raise trouble
    assert standing is not None  # noqa: S101 -- else there was trouble
    show_standing(console, session, standing, course, running=cloud.state == "running")
    if interrupted:
        click.get_current_context().exit(interrupted.exit_code)
    if cloud.state in ("absent", "stopped"):
        console.print("→ lab up starts it")
    if cloud.state != "running":
        click.get_current_context().exit(23 if cloud.state in ("absent", "stopped") else 21)


def _show_status(console: Console, lab: Lab, home: str, status: HomeStatus) -> None:
    console.print(f"lab:     {lab.name}, home {home}: {console.mark(status.state)} {status.state}")
    rows = []
    for service in status.services:
        age = _age(time.time() - service.since) if service.since and service.state == "running" else ""
        memory = f"{service.memory >> 20} MB" if service.memory else ""
        restarts = f"restarted {service.restarts}x" if service.restarts else ""
        rows.append((f"  {service.name}", service.state, str(service.pid or ""), age, memory, restarts))
    if rows:
        console.table(("  SERVICE", "STATE", "PID", "SINCE", "MEMORY", ""), rows)
    for service in status.services:
        if service.reason:
            console.wrapped("  ! ", f"{service.name}: {shortened(service.reason, 160)}")
    total = sum(service.memory or 0 for service in status.services)
    if total:
        console.print(f"  together {total >> 20} MB")
    reasons = {service.reason for service in status.services}
    for note in status.notes:
        if not any(reason and reason in note for reason in reasons):
            console.wrapped("note:    ", shortened(note, 160))
    if status.dashboard:
        console.print(f"Horizon: {status.dashboard}")


def shortened(text: str, width: int) -> str:
    """The beginning of a text, at a word's end; the log has the rest."""
    import textwrap

    return textwrap.shorten(text, width, placeholder=" …")


def _age(value: float) -> str:
    return (
        f"{int(value)} s" if value < 120 else f"{int(value) // 60} min" if value < 7200 else f"{int(value) // 3600} h"
    )


@click.command()
@click.argument("service", required=False, shell_complete=complete_service)
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows; Ctrl-C ends it.")
@click.option(
    "-n", "--lines", default=20, show_default=True, type=click.IntRange(0), help="How many of the last lines."
)
@click.pass_obj
def logs(context: Invocation, service: str | None, follow: bool, lines: int) -> None:
    """Show the last lines of a service's log (of all logs, without a name)."""
    from stacklab.logs import follow_logs
    from stacklab.replay.current import home_of

    console = context.console(verbatim=True)
    service_logs = home_of(context.lab).logs(service)
    for name, log in service_logs.items():
        if len(service_logs) > 1:
            console.heading(f"{name}  {log.where}")
        for line in log.last(lines):
            console.print(line)
    if follow:
        with suppress(KeyboardInterrupt):  # how one stops looking, not an interruption of work
            for name, line in follow_logs(service_logs):
                console.print(f"{name}: {line}" if len(service_logs) > 1 else line)


@click.command()
@click.argument("service", shell_complete=complete_service)
@json_option
@click.pass_obj
def restart(context: Invocation, service: str, as_json: bool) -> None:
    """Restart one service of the cloud and wait until it answers."""
    from stacklab.replay.current import home_of

    lab, console = context.lab, context.console(as_json)
    with lab.writing(), console.working(f"restarting {service}", 8) as progress:
        home_of(lab).restart(service, progress)


@click.command()
@click.argument("session", required=False, shell_complete=complete_session)
@click.option("--yes", is_flag=True, help="Do not ask before things are removed (home ssh, which has no checkpoints).")
@json_option
@click.pass_obj
def reset(context: Invocation, session: str | None, yes: bool, as_json: bool) -> None:
    """Put cloud and files back to the start of the session, or of another one; the services keep running.

    Everything made since then is gone, also what you made yourself: instances, images, volumes, networks, users.
    """
    from stacklab.cli.goto import confirmed
    from stacklab.replay.bringup import reset as do_reset
    from stacklab.replay.current import home_of, session_of

    lab, console = context.lab, context.console(as_json)
    chosen = session_of(lab, session)
    if not home_of(lab).checkpoints.saves and not confirmed(context, console, yes=yes):
        return
    with console.working(f"back to the start of {chosen.name}", 3) as progress:
        do_reset(lab, progress, chosen)
    if home_of(lab).status().state == "stopped":
        console.print("the cloud is stopped: lab up starts it")


@click.command()
@json_option
@click.pass_obj
def down(context: Invocation, as_json: bool) -> None:
    """Stop the cloud and its instances; what you made stays, and lab up brings it back."""
    from stacklab.replay.bringup import stop

    console = context.console(as_json)
    with console.working("stopping the cloud", 5) as progress:
        stop(context.lab, progress)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--purge", is_flag=True, help="Also what labs share: OpenStack's software, images; when no other lab is left."
)
@json_option
@click.pass_obj
def destroy(context: Invocation, yes: bool, purge: bool, as_json: bool) -> None:
    """Remove the lab and everything of it, and say what was removed."""
    from stacklab.replay.bringup import destroy as do_destroy

    lab, console = context.lab, context.console(as_json)
    if not purge and not lab.remains():
        lab.require()
    if not agreed(console, f"Remove lab '{lab.name}' with everything in its cloud?", yes=yes):
        console.print("nothing was removed")
        return
    removed = []
    with console.working("removing the lab", 5) as progress:
        for thing in do_destroy(lab, progress) if lab.remains() else ():
            removed.append(thing)
            console.print(f"  removed {thing}")
    others = _purge(lab, console, removed) if purge else []
    console.result_line({"event": "destroyed", "lab": lab.name, "removed": removed, "other_labs": others})


def _purge(lab: Lab, console: Console, removed: list[str]) -> list[str]:
    """Returns the labs because of which nothing was purged."""
    from stacklab.replay.bringup import purge, who_else

    others = who_else(lab)
    if others:
        console.print(f"! the software and images that labs share stay: needed by {', '.join(others)}")
        return others
    with console.working("removing what labs share", 5):
        for thing in purge(lab):
            removed.append(thing)
            console.print(f"  removed {thing}")
    return []


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), default="bash")
def completion(shell: str) -> None:
    """Print the shell's tab completion.

    \b
    eval "$(lab completion bash)"        now, in this shell
    lab completion bash >> ~/.bashrc     in every new one
    """
    from click.shell_completion import get_completion_class

    from stacklab.cli.main import cli

    completion_class = get_completion_class(shell)
    assert completion_class is not None  # noqa: S101 -- the choice above holds only shells that click knows
    click.echo(completion_class(cli, {}, "lab", "_LAB_COMPLETE").source())
