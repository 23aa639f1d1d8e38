"""What the shell completes: names of labs, sessions, steps, services, homes, profiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from stacklab.course.session import Session
    from stacklab.deploy.profile.model import Profile
    from stacklab.lab import Lab

DEFAULT_PROFILE = "centos7-pike"
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def items(incomplete: str, names: Iterable[str], titles: Iterable[str] = ()) -> list[CompletionItem]:
    """Those of the names that begin with what was typed; `titles` explain them."""
    explained = dict(zip(names, titles, strict=False)) if titles else dict.fromkeys(names, "")
    return [CompletionItem(name, help=title) for name, title in explained.items() if name.startswith(incomplete)]


def _completes(names: Callable[[click.Context], Iterable[str]]) -> Complete:
    return lambda ctx, param, incomplete: items(incomplete, names(ctx))


def lab_of(ctx: click.Context) -> Lab:
    """The lab that the line names so far: the group itself does not run while the shell completes."""
    from stacklab.lab import Lab

    return Lab(ctx.find_root().params.get("name") or "intro")


def known_sessions(ctx: click.Context) -> list[str]:
    """Names of all sessions, those of `--labs` on the line and those of the lab's own session's directory among them."""
    from stacklab.course.search import add_to_search_path, all_sessions
    from stacklab.errors import UnknownName

    with suppress(UnknownName):  # nothing completes from a directory that is not there
        add_to_search_path(ctx.find_root().params.get("labs") or ())
    return list(all_sessions(lab_of(ctx).labs))


def named_session(ctx: click.Context, incomplete: str) -> Session | None:
    """The session that the word begins with, else the lab's own; None where there is none."""
    from stacklab.replay.current import session_of

    name, slash, _ = incomplete.partition("/")
    chosen = name if slash else lab_of(ctx).record.session
    return session_of(lab_of(ctx), chosen) if chosen in known_sessions(ctx) else None


def complete_address(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """SESSION, SESSION/EXERCISE, SESSION/EXERCISE/STEP."""
    parts = incomplete.split("/")
    session = named_session(ctx, incomplete) if len(parts) > 1 else None
    if len(parts) == 1:
        return items(incomplete, known_sessions(ctx))
    if session is None:
        return []
    if len(parts) == 2:
        return items(incomplete, [f"{session.name}/{exercise.id}" for exercise in session.exercises])
    return items(incomplete, [f"{session.name}/{step.exercise}/{step.id}" for step in session.steps()])


def complete_step(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A step's id, of the session that is up."""
    session = named_session(ctx, "")
    steps = list(session.steps()) if session else []
    return items(incomplete, [step.id for step in steps], [step.title for step in steps])


def complete_fault(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """SESSION/FAULT of the session that is named, or else of the lab's own."""
    session = named_session(ctx, incomplete)
    faults = [f"{session.name}/{case.id}" for case in session.faults] if session else []
    return items(incomplete, [*faults, *([] if "/" in incomplete else known_sessions(ctx))])


def _services(ctx: click.Context) -> Iterable[str]:
    from stacklab.replay.current import home_of

    return home_of(lab_of(ctx)).service_names()


def _labs(ctx: click.Context) -> Iterable[str]:
    from stacklab.lab import all_labs

    return [lab.name for lab in all_labs()]


def _homes(ctx: click.Context) -> Iterable[str]:
    from stacklab.homes import HOMES

    return [*(name for name in HOMES if name != "ssh"), "ssh://"]


def _profiles(ctx: click.Context) -> Iterable[str]:
    from stacklab.deploy.profile.load import profile_names

    return profile_names()


complete_session = _completes(known_sessions)
complete_service = _completes(_services)
complete_lab = _completes(_labs)
complete_home = _completes(_homes)
complete_profile = _completes(_profiles)


def complete_directory(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Left to the shell."""
    return [CompletionItem(incomplete, type="dir")]


def complete_file(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Left to the shell."""
    return [CompletionItem(incomplete, type="file")]


# --- what is asked of a profile ------------------------------------------------------------------------------------


def one_more(incomplete: str, known: Iterable[str]) -> list[CompletionItem]:
    """A,B,… with one more of `known` that is not there yet."""
    before, comma, begun = incomplete.rpartition(",")
    there = before.split(",")
    return [CompletionItem(f"{before}{comma}{name}") for name in known if name.startswith(begun) and name not in there]


def complete_services(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """One more service that the profile serves, after those that are there."""
    profile = _profile(ctx)
    return one_more(incomplete, profile.served) if profile else []


def complete_variant(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A variant of the profile."""
    profile = _profile(ctx)
    variants = profile.variants if profile else {}
    return items(incomplete, variants, [variant.title for variant in variants.values()])


def _profile(ctx: click.Context) -> Profile | None:
    """The profile that the line names so far, else the lab's own; None where it cannot be read, for then nothing completes."""
    from stacklab.deploy.profile.load import load_profile, profile_names
    from stacklab.errors import LabError
    from stacklab.homes.plan import Plan

    try:
        # An option that still waits for its value keeps click from giving the arguments before it their names.
        before = next((word for word in ctx.args if word in profile_names()), None)
        named = ctx.params.get("profile") or ctx.params.get("name") or before
        planned = Plan.of(lab_of(ctx)).profile if lab_of(ctx).exists() else None
        return load_profile(str(named or planned or DEFAULT_PROFILE))
    except LabError:
        return None
