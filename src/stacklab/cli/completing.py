"""What the shell completes: names of sessions, exercises, steps, faults, services."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from stacklab.course.session import Session
    from stacklab.lab import Lab

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completes(names: Callable[[click.Context, str], Iterable[str]]) -> Complete:
    """Those of the names that begin with what was typed."""
    return lambda ctx, param, begun: [CompletionItem(name) for name in names(ctx, begun) if name.startswith(begun)]


def lab_of(ctx: click.Context) -> Lab:
    """The lab that the line names so far: the group itself does not run while the shell completes."""
    from stacklab.lab import Lab

    return Lab(ctx.find_root().params.get("name") or "intro")


def known_sessions(ctx: click.Context, begun: str = "") -> list[str]:
    """Names of all sessions, those of `--labs` on the line and those of the lab's own session's directory among them."""
    from stacklab.course.search import add_to_search_path, all_sessions
    from stacklab.errors import UnknownName

    with suppress(UnknownName):  # nothing completes from a directory that is not there
        add_to_search_path(ctx.find_root().params.get("labs") or ())
    return list(all_sessions(lab_of(ctx).labs))


def named_session(ctx: click.Context, begun: str) -> Session | None:
    """The session that the word begins with, else the lab's own; None where there is none."""
    from stacklab.replay.current import session_of

    name, slash, _ = begun.partition("/")
    chosen = name if slash else lab_of(ctx).record.session
    return session_of(lab_of(ctx), chosen) if chosen in known_sessions(ctx) else None


def _addresses(ctx: click.Context, begun: str) -> Iterable[str]:
    """SESSION, SESSION/EXERCISE, SESSION/EXERCISE/STEP."""
    session = named_session(ctx, begun) if "/" in begun else None
    if session is None:
        return known_sessions(ctx)
    if begun.count("/") == 1:
        return [f"{session.name}/{exercise.id}" for exercise in session.exercises]
    return [f"{session.name}/{step.exercise}/{step.id}" for step in session.steps()]


def _steps(ctx: click.Context, begun: str) -> Iterable[str]:
    """Of the session that is up."""
    session = named_session(ctx, "")
    return [step.id for step in session.steps()] if session else []


def _faults(ctx: click.Context, begun: str) -> Iterable[str]:
    """SESSION/FAULT of the session that is named, or else of the lab's own."""
    session = named_session(ctx, begun)
    return [f"{session.name}/{case.id}" for case in session.faults] if session else []


def _services(ctx: click.Context, begun: str) -> Iterable[str]:
    from stacklab.replay.current import home_of

    return home_of(lab_of(ctx)).service_names()


complete_session = _completes(known_sessions)
complete_address = _completes(_addresses)
complete_step = _completes(_steps)
complete_fault = _completes(lambda ctx, begun: [*_faults(ctx, begun), *known_sessions(ctx)])
complete_hint = _completes(lambda ctx, begun: [*_steps(ctx, begun), *_faults(ctx, begun)])
complete_service = _completes(_services)
