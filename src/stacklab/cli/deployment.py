"""`lab profiles`, `render`, `prefetch`: what a deployment is made of, without a lab."""

from __future__ import annotations

import click

from stacklab.cache import cache_root
from stacklab.cli.learn import counted
from stacklab.cli.options import Invocation, json_option, profile_option, services_option, words
from stacklab.console import Console
from stacklab.course.load import load_session
from stacklab.deploy.localconf import render as localconf
from stacklab.deploy.packstack import answers
from stacklab.deploy.profile.load import chosen_variants, load_profile, load_settings, profile_names
from stacklab.deploy.profile.model import Profile
from stacklab.errors import DownloadFailed, LabError
from stacklab.homes.libvirt.site import RANGE, VmSite
from stacklab.homes.libvirt.vagrantfile import render as vagrantfile
from stacklab.homes.libvirt.vagrantfile import sized
from stacklab.homes.plan import Plan
from stacklab.lab import Lab
from stacklab.prefetch.fill import PARTS, fill
from stacklab.prefetch.plan import FetchOutcome

DEFAULT_PROFILE = "centos7-pike"
EXAMPLE_ADDRESS = "192.0.2.10"
"""For showing, where no machine is known (RFC 5737)."""
OUTCOMES = ("fetched", "updated", "already", "skipped", "failed")


# --- profiles --------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("name", required=False)
@json_option
@click.pass_obj
def profiles(context: Invocation, name: str | None) -> None:
    """List the profiles with what has been run of each, or show one: what it is, what it can serve, and its variants."""
    if name is None:
        _list(context.console)
    else:
        profile = load_profile(name)
        context.console.result(profile.model_dump(mode="json"))
        _show(context.console, profile)


def _list(console: Console) -> None:
    """All of them; one that is broken keeps nobody from seeing the others, and is what the verb ends with."""
    load_settings()  # what is wrong with the configuration would be said of each profile
    readable: list[Profile] = []
    broken: dict[str, LabError] = {}
    for name in profile_names():
        try:
            readable.append(load_profile(name))
        except LabError as error:
            broken[name] = error
    summary = {"name", "title", "summary", "tested", "distribution", "release", "usual_minutes"}
    rows = [{**profile.model_dump(mode="json", include=summary), "services": profile.served} for profile in readable]
    for name, why in broken.items():
        rows.append({"name": name, "error": why.id, "message": why.message, "advice": why.advice})
    console.result(rows)
    cells = [(profile.name, profile.title, f"{profile.usual_minutes} min", profile.tested) for profile in readable]
    console.table(("PROFILE", "WHAT", "STACKS IN", "WHAT HAS BEEN RUN"), cells)
    for name, why in broken.items():
        console.print(f"{console.mark('failed')} {name}: {why.message}")
        if why.advice:
            console.print(f"     → {why.advice}")
    if broken:
        raise click.exceptions.Exit(next(iter(broken.values())).exit_code)


def _show(console: Console, profile: Profile) -> None:
    console.heading(f"{profile.name}: {profile.title}")
    console.print(f"{profile.summary}\nWhat has been run of it: {profile.tested}\n")
    rows = [
        (name, "refused" if service.refused else "--with", " ".join((service.refused or service.title).split()))
        for name, service in profile.services.items()
    ]
    console.table(("SERVICE", "", "WHAT"), rows)
    if profile.variants:
        rows = [
            (name, "by itself there" if variant.when else "deploy.variants", f"{variant.title}: {variant.why}")
            for name, variant in profile.variants.items()
        ]
        console.print()
        console.table(("VARIANT", "CHOSEN", "WHAT"), rows)


# --- render ----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("what", type=click.Choice(["vagrantfile", "local.conf", "answer-file"]))
@profile_option
@services_option
@click.option("--why", is_flag=True, help="List the fragments of local.conf and what chose each, instead of the file.")
@json_option
@click.pass_obj
def render(context: Invocation, what: str, profile: str | None, services: tuple[str, ...], why: bool) -> None:
    """Print the Vagrantfile, DevStack's local.conf or PackStack's answer file as lab up would write it, passwords masked.

    Of a lab that DevStack deploys, the answer file is that of the same machine deployed by PackStack.

    Works without a lab; with one, its profile, services, session and address are used where nothing else is said.
    """
    if why and what != "local.conf":
        raise click.UsageError(f"--why tells of the fragments of local.conf; {what} has none")
    lab, console, settings = context.lab, context.console, load_settings()
    plan = Plan.of(lab)
    loaded = load_profile(profile or plan.profile or DEFAULT_PROFILE)
    loaded = loaded.with_variants(chosen_variants(loaded, settings))
    session = load_session(lab.record.session, also=lab.labs) if lab.record.session else None
    asked_by = dict.fromkeys(session.services, f"session {session.name}") if session else {}
    asked = list(dict.fromkeys([*asked_by, *(services or plan.services)]))
    site = VmSite.of(lab)
    address, more = str(site.address) if site else EXAMPLE_ADDRESS, {"example_address": site is None}
    rows: list[dict[str, str]] = []
    if what == "vagrantfile":
        text, more = _vagrantfile(lab, loaded, plan, site), {}
    elif what == "answer-file":
        loaded = answers.profile_like(loaded)
        text = answers.render(loaded, services=asked, host_ip=address)
    else:
        text = localconf.render(loaded, settings, services=asked, asked_by=asked_by, host_ip=address)
        rows = [
            {"name": it.name, "chosen": it.chosen, "why": it.why, "path": str(it.path)}
            for it in localconf.fragments(loaded, settings, services=asked, asked_by=asked_by)
        ]
    if more.get("example_address"):
        first, rest = text.split("\n", 1)
        text = f"{first}\n# There is no machine to take an address from: {address} stands for it.\n{rest}"
    console.aim = str  # it is a file, which is shown as it stands
    file = "Vagrantfile" if what == "vagrantfile" else what
    fragments = {"fragments": rows} if rows else {}
    console.result({"file": file, "profile": loaded.name, "text": text, **more, **fragments})
    if why:
        cells = [(row["name"], row["chosen"], row["why"]) for row in rows]
        console.table(("FRAGMENT", "CHOSEN BY", "WHY"), cells)
    else:
        console.print(text.rstrip("\n"))


def _vagrantfile(lab: Lab, profile: Profile, plan: Plan, site: VmSite | None) -> str:
    """Of the lab's VM, or of one that has not been made: its name and networks are chosen when it is."""
    if site is None:
        settings = load_settings()
        networks = str(next(RANGE.subnets(new_prefix=23)))
        uri = settings.libvirt_uri or "qemu:///system"
        box, version = profile.box.name, profile.box.version or ""
        name = f"lab-{lab.name}-0000"
        site = VmSite(name, uri, settings.libvirt_pool, "qemu", networks, box=box, version=version)
    return vagrantfile(site, profile, sized(profile, plan), console=lab.home_directory / "console.log")


# --- prefetch --------------------------------------------------------------------------------------------------------


def _parts(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    parts = words(ctx, param, value)
    for part in parts:
        if part not in PARTS:
            raise click.BadParameter(f"'{part}' is none of {', '.join(PARTS)}")
    return parts


@click.command()
@click.argument("profile")
@services_option
@click.option(
    "--only", "parts", default=",".join(PARTS), callback=_parts, metavar="PARTS", help="Some of git,wheels,files,box."
)
@json_option
@click.pass_obj
def prefetch(context: Invocation, profile: str, services: tuple[str, ...], parts: tuple[str, ...]) -> None:
    """Fetch now what deploying a profile needs, so that lab up takes it from here, and less time.

    Interrupt it at any time: the same command goes on from there, and brings up to date what is there. Exit 0 only if all of it
    is there.

    \b
    lab prefetch centos7-pike
    lab prefetch debian12-2026.1 --with heat --only git,wheels
    """
    console, loaded = context.console, load_profile(profile)
    outcomes: list[FetchOutcome] = []
    trouble: DownloadFailed | None = None
    try:
        with console.working(f"fetching what {loaded.title} needs") as progress:
            for outcome in fill(loaded, services, parts, load_settings(), progress):
                outcomes.append(outcome)
                console.result_line({"event": "prefetched", **outcome.as_json()})
                # Hundreds of packages: the failed ones are lines of their own, the others a sum
                if outcome.part != "wheels" or outcome.outcome == "failed":
                    _show_outcome(console, outcome)
            _require_all(outcomes)
    except DownloadFailed as error:  # what did come is told all the same
        trouble = error
    totals: dict[str, dict[str, int]] = {}
    for part in parts:
        of_part = [outcome for outcome in outcomes if outcome.part == part]
        counts = {kind: sum(outcome.outcome == kind for outcome in of_part) for kind in OUTCOMES}
        size = sum(outcome.size for outcome in of_part)
        totals[part] = {"things": len(of_part), "bytes": size, **counts}
        if of_part:
            came = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
            console.print(f"  {part:<7} {counted(len(of_part), 'thing'):>10}, {_size(size)}: {came}")
    console.result_line({"event": "prefetch", "profile": loaded.name, "cache": str(cache_root()), "parts": totals})
    console.print(f"all in {cache_root()}")
    if trouble:
        raise trouble


def _require_all(outcomes: list[FetchOutcome]) -> None:
    """Raises DownloadFailed if something could not be fetched."""
    failed = [outcome for outcome in outcomes if outcome.outcome == "failed"]
    if failed:
        names = ", ".join(outcome.name for outcome in failed[:3]) + (" …" if len(failed) > 3 else "")
        advice = failed[0].error.advice if failed[0].error else ""
        raise DownloadFailed(f"{counted(len(failed), 'thing')} could not be fetched: {names}", advice=advice)


def _show_outcome(console: Console, outcome: FetchOutcome) -> None:
    mark = console.mark(outcome.outcome if outcome.outcome in ("failed", "skipped") else "done")
    size = f"  {_size(outcome.size)}" if outcome.size else ""
    detail = f"  {console.style(outcome.detail, 'bright_black')}" if outcome.detail else ""
    console.print(f"{mark} {outcome.part}: {outcome.name}  {outcome.outcome}{size}{detail}")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
