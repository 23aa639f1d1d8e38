"""Completion of what is asked of a profile: `--with`, `--variant`, and the session of `--session`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from stacklab.cli.options import known_sessions

if TYPE_CHECKING:
    from stacklab.deploy.profile.model import Profile

DEFAULT_PROFILE = "centos7-pike"


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
    names = profile.variants if profile else {}
    return [CompletionItem(name, help=names[name].title) for name in names if name.startswith(incomplete)]


def complete_session(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A session."""
    return [CompletionItem(name) for name in known_sessions(ctx) if name.startswith(incomplete)]


def _profile(ctx: click.Context) -> Profile | None:
    """The profile that the line names so far, else the lab's own; None where it cannot be read, for then nothing completes."""
    from stacklab.deploy.profile.load import load_profile, profile_names
    from stacklab.errors import LabError
    from stacklab.homes.plan import Plan
    from stacklab.lab import Lab

    try:
        # An option that still waits for its value keeps click from giving the arguments before it their names.
        before = next((word for word in ctx.args if word in profile_names()), None)
        named = ctx.params.get("profile") or ctx.params.get("name") or before
        lab = Lab(ctx.find_root().params.get("name") or "intro")
        planned = Plan.of(lab).profile if lab.exists() else None
        return load_profile(str(named or planned or DEFAULT_PROFILE))
    except LabError:
        return None
