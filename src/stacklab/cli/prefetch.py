"""`lab prefetch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from stacklab.cli.completing import complete_profile, complete_services, one_more
from stacklab.cli.options import Invocation, json_option

if TYPE_CHECKING:
    from stacklab.console import Console
    from stacklab.prefetch.plan import FetchOutcome

ALL = ("git", "wheels", "files", "box")
KINDS = ("fetched", "updated", "already", "skipped", "failed")


def complete_parts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """One more of the parts, after those that are there."""
    return one_more(incomplete, ALL)


def _words(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in value.split(",") if word.strip()))


def _parts(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    words = _words(ctx, param, value)
    for word in words:
        if word not in ALL:
            raise click.BadParameter(f"'{word}' is none of {', '.join(ALL)}")
    return words


@click.command()
@click.argument("profile", shell_complete=complete_profile)
@click.option(
    "--with",
    "services",
    default="",
    callback=_words,
    shell_complete=complete_services,
    metavar="A,B",
    help="Optional services, as for lab up.",
)
@click.option(
    "--only", "parts", default=",".join(ALL), callback=_parts, shell_complete=complete_parts, metavar="PARTS",
    help="Some of git,wheels,files,box.",
)  # fmt: skip
@json_option
@click.pass_obj
def prefetch(
    context: Invocation,
    profile: str,
    services: tuple[str, ...],
    parts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Fetch now what deploying a profile needs, so that lab up takes it from here, and less time.

    Interrupt it at any time: the same command goes on from there, and brings up to date what is there. Exit 0 only if all of it
    is there.

    \b
    lab prefetch centos7-pike
    lab prefetch debian12-2026.1 --with heat --only git,wheels
    """
    _fill(context.console(as_json), profile, services, parts)


def _fill(console: Console, name: str, services: tuple[str, ...], parts: tuple[str, ...]) -> None:
    from stacklab.cache import cache_root
    from stacklab.deploy.profile.load import load_profile, load_settings
    from stacklab.errors import DownloadFailed
    from stacklab.prefetch.fill import fill

    profile, settings = load_profile(name), load_settings()
    outcomes: list[FetchOutcome] = []
    trouble: DownloadFailed | None = None
    try:
        with console.working(f"fetching what {profile.title} needs") as progress:
            for outcome in fill(profile, services, parts, settings, progress):
                outcomes.append(outcome)
                console.result_line({"event": "prefetched", **outcome.as_json()})
                # Hundreds of packages: the failed ones are lines of their own, the others a sum
                if outcome.part != "wheels" or outcome.outcome == "failed":
                    _show(console, outcome)
            _complete(outcomes)
    except DownloadFailed as error:  # what did come is told all the same
        trouble = error
    totals = {part: _total([outcome for outcome in outcomes if outcome.part == part]) for part in parts}
    for part, total in totals.items():
        if total["things"]:
            counts = ", ".join(f"{total[key]} {key}" for key in KINDS if total[key])
            console.print(
                f"  {part:<7} {total['things']:>4} {_things(total['things'])}, {_size(total['bytes'])}: {counts}"
            )
    console.result_line({"event": "prefetch", "profile": profile.name, "cache": str(cache_root()), "parts": totals})
    console.print(f"all in {cache_root()}")
    if trouble:
        raise trouble


def _complete(outcomes: list[FetchOutcome]) -> None:
    """Raises DownloadFailed if something could not be fetched."""
    from stacklab.errors import DownloadFailed

    failed = [outcome for outcome in outcomes if outcome.outcome == "failed"]
    if failed:
        names = ", ".join(outcome.name for outcome in failed[:3]) + (" …" if len(failed) > 3 else "")
        advice = failed[0].error.advice if failed[0].error else ""
        raise DownloadFailed(f"{len(failed)} {_things(len(failed))} could not be fetched: {names}", advice=advice)


def _total(outcomes: list[FetchOutcome]) -> dict[str, int]:
    counts = {kind: sum(outcome.outcome == kind for outcome in outcomes) for kind in KINDS}
    return {"things": len(outcomes), "bytes": sum(outcome.size for outcome in outcomes), **counts}


def _show(console: Console, outcome: FetchOutcome) -> None:
    mark = console.mark(outcome.outcome if outcome.outcome in ("failed", "skipped") else "done")
    size = f"  {_size(outcome.size)}" if outcome.size else ""
    detail = f"  {console.style(outcome.detail, 'bright_black')}" if outcome.detail else ""
    console.print(f"{mark} {outcome.part}: {outcome.name}  {outcome.outcome}{size}{detail}")


def _things(count: int) -> str:
    return "thing" if count == 1 else "things"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
