"""`lab status`, `logs`, `restart`, `attach`, `completion`: how the lab's cloud and the learner stand."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import click
from click.shell_completion import get_completion_class

from stacklab.cli.completing import complete_service
from stacklab.cli.options import Invocation, json_option
from stacklab.console import Console
from stacklab.course.session import Session
from stacklab.deploy.stack.detached import called
from stacklab.deploy.stack.following import follow
from stacklab.errors import SessionInvalid, UnknownName
from stacklab.homes.base import HomeStatus
from stacklab.logs import follow_logs
from stacklab.replay.breaking import broken_faults, in_words
from stacklab.replay.current import home_of, interruption, session_of
from stacklab.replay.progress import ExerciseProgress, Progress, ProgressFile, whole_course
from stacklab.suggest import closest

STOPPED, DEGRADED = 23, 21
"""Exit codes of a status that is not `running`."""


@click.command()
@json_option
@click.pass_obj
def status(context: Invocation) -> None:
    """Show what runs, and how far you are. Exit 0 only if the cloud is usable."""
    lab, console = context.lab, context.console
    home = home_of(lab)
    cloud, interrupted, broken = home.status(), interruption(lab), broken_faults(lab)
    if interrupted:
        state = "degraded" if cloud.state == "running" else cloud.state
        cloud = replace(cloud, state=state, notes=[*cloud.notes, interrupted.message])
    standing, trouble = None, None
    try:
        session = session_of(lab, None)
        standing = ProgressFile(lab).of(session)
    except (SessionInvalid, UnknownName) as error:  # the cloud is worth showing all the same
        trouble = error
    course = whole_course(lab)
    about = {"lab": lab.name, "home": home.name, "state": cloud.state, "dashboard": cloud.dashboard}
    named = [None if fault.surprise else fault.address for fault in broken]
    services = [asdict(service) | {"log": str(service.log) if service.log else None} for service in cloud.services]
    rows = {"sessions": [_row(name, known) for name, known in course.items()], "services": services}
    of_session = {"session": lab.record.session, **_standing(standing)}
    console.result({**about, **of_session, "broken_on_purpose": named, **rows, "notes": cloud.notes})
    _show_cloud(console, lab.name, home.name, cloud)
    if interrupted:
        console.print(f"    → {interrupted.advice}")
    if broken:
        console.print(f"broken on purpose: {in_words(broken)}   (lab hint: a clue; lab fix repairs it)")
    if trouble:
        raise trouble
    if standing:
        _show_standing(console, session, standing, course)
    if interrupted:
        raise click.exceptions.Exit(interrupted.exit_code)
    if cloud.state in ("absent", "stopped"):
        console.print("→ lab up starts it")
        raise click.exceptions.Exit(STOPPED)
    if cloud.state != "running":
        raise click.exceptions.Exit(DEGRADED)


def _standing(standing: Progress | None) -> dict[str, Any]:
    """Of the session that is up, for --json."""
    if standing is None:
        return {"passed": 0, "failed": 0, "steps": 0, "next": None, "exercises": []}
    numbers = {"passed": standing.counts.passed, "failed": standing.counts.failed, "steps": standing.counts.total}
    exercises = [asdict(exercise) | {"state": exercise.state} for exercise in standing.exercises]
    return {**numbers, "next": standing.next.id if standing.next else None, "exercises": exercises}


def _row(name: str, known: tuple[Session, Progress] | None) -> dict[str, Any]:
    """Of one session of the course, for --json."""
    if known is None:
        return {"session": name, "readable": False}
    session, progress = known
    labs = str(session.file.parent.parent) if session.foreign else None
    about = {"session": name, "readable": True, "title": session.title, "from": labs}
    following = progress.next.id if progress.next else None
    numbers = {"exercises": len(session.exercises), **asdict(progress.counts)}
    return {**about, **numbers, "next": following, "at": progress.at}


def _show_cloud(console: Console, lab: str, home: str, status: HomeStatus) -> None:
    console.print(f"lab:     {lab}, home {home}: {console.mark(status.state)} {status.state}")
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
            console.wrapped("  ! ", f"{service.name}: {service.reason}")
    total = sum(service.memory or 0 for service in status.services)
    if total:
        console.print(f"  together {total >> 20} MB")
    reasons = {service.reason for service in status.services}
    for note in status.notes:
        if not any(reason and reason in note for reason in reasons):
            console.wrapped("note:    ", note)
    if status.dashboard:
        console.print(f"Horizon: {status.dashboard}")


def _age(value: float) -> str:
    return (
        f"{int(value)} s" if value < 120 else f"{int(value) // 60} min" if value < 7200 else f"{int(value) // 3600} h"
    )


def _show_standing(
    console: Console, session: Session, standing: Progress, course: dict[str, tuple[Session, Progress] | None]
) -> None:
    """The course's table, the session's exercises, and what comes next."""
    head = ("  SESSION", "EXERCISES", "PASSED", "FAILED", "N/A", "STEPS")
    rows = []
    for name, known in course.items():
        numbers = ["cannot be read", "", "", "", ""]
        if known:
            counts = known[1].counts
            values = (len(known[0].exercises), counts.passed, counts.failed, counts.not_applicable, counts.total)
            numbers = [str(value).rjust(len(title)) for value, title in zip(values, head[1:], strict=True)]
        rows.append((("▸ " if name == session.name else "  ") + name, *numbers))
    console.print()
    console.table(head, rows)
    console.print()
    console.heading(f"{session.name}: {session.title}")
    for exercise in standing.exercises:
        _show_exercise(console, exercise)
    console.print(f"{standing.counts.passed} of {standing.counts.total} steps passed when last looked at")
    if standing.next:
        console.wrapped("next:    ", standing.next.title)
        console.print(f"         lab show {session.name}/{standing.next.exercise}/{standing.next.id}")


def _show_exercise(console: Console, exercise: ExerciseProgress) -> None:
    counts = exercise.counts
    parts = [f"{counts.passed} of {counts.total}"]
    parts += [f", {counts.not_applicable} not applicable"] if counts.not_applicable else []
    parts += [f"; failed: {', '.join(exercise.failed)}"] if exercise.failed else []
    parts += [f"; cannot tell: {counts.unknown}"] if counts.unknown else []
    console.wrapped(f"  {console.mark(exercise.state)} ", f"{exercise.id:<18} {''.join(parts)}")


# --- the services ----------------------------------------------------------------------------------------------------


@click.command()
@click.argument("service", required=False, shell_complete=complete_service)
@click.option("-f", "--follow", "following", is_flag=True, help="Go on as the log grows; Ctrl-C ends it.")
@click.option(
    "-n", "--lines", default=20, show_default=True, type=click.IntRange(0), help="How many of the last lines."
)
@click.pass_obj
def logs(context: Invocation, service: str | None, following: bool, lines: int) -> None:
    """Show the last lines of a service's log (of all logs, without a name)."""
    console = context.console
    service_logs = home_of(context.lab).logs(service)
    console.aim = str  # what services say is shown as it stands
    for name, log in service_logs.items():
        if len(service_logs) > 1:
            console.heading(f"{name}  {log.where}")
        for line in log.last(lines):
            console.print(line)
    if following:
        with suppress(KeyboardInterrupt):  # how one stops looking, not an interruption of work
            for name, line in follow_logs(service_logs):
                console.print(f"{name}: {line}" if len(service_logs) > 1 else line)


@click.command()
@click.argument("service", shell_complete=complete_service)
@json_option
@click.pass_obj
def restart(context: Invocation, service: str) -> None:
    """Restart one service of the cloud and wait until it answers."""
    lab = context.lab
    home = home_of(lab)
    names, plain = home.service_names(), service.removesuffix(".service").removeprefix("devstack@")
    if plain not in names:
        raise UnknownName(f"there is no service '{service}'", advice=closest(plain, names, "lab status"))
    with lab.writing(), context.console.working(f"restarting {service}", 8) as progress:
        home.restart(service, progress)


@click.command()
@json_option
@click.pass_obj
def attach(context: Invocation) -> None:
    """Watch stack.sh (or packstack) on the lab's machine, from where you left it.

    The run is the machine's: leaving (Ctrl-C), a lost connection or a sleeping laptop do not end it. When it is done,
    lab up goes on with the rest.
    """
    lab, console = context.lab, context.console
    deployment = home_of(lab).deployment()
    with console.working(called(deployment.profile.program), lab.usual_seconds("stack")) as progress:
        outcome = follow(deployment, progress)
    console.print(outcome)
    console.print(f"goes on with the rest: lab up {lab.record.session or ''}".rstrip())


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), default="bash")
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the shell's tab completion.

    \b
    eval "$(lab completion bash)"        now, in this shell
    lab completion bash >> ~/.bashrc     in every new one
    """
    completion_class = get_completion_class(shell)
    assert completion_class is not None  # noqa: S101 -- the choice above holds only shells that click knows
    click.echo(completion_class(ctx.find_root().command, {}, "lab", "_LAB_COMPLETE").source())
