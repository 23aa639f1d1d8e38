"""`lab render` and `lab profiles`: what a deployment would use, without a lab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stacklab.cli.options import Context, complete_profile, json_option

if TYPE_CHECKING:
    from stacklab.console import Console
    from stacklab.deploy.profile import Profile
    from stacklab.deploy.settings import Settings
    from stacklab.homes.libvirt.site import Site
    from stacklab.lab import Lab

DEFAULT_PROFILE = "centos7-pike"
EXAMPLE_ADDRESS = "192.0.2.10"
"""For showing, where no machine is known (RFC 5737)."""
HOW = {
    "run": "done on a machine",
    "tried": "tried in parts, elsewhere",
    "read": "read in DevStack's source",
    "documented": "documented, not tried",
    "unproven": "unproven",
    "yours": "from your configuration",
}


@click.command()
@click.argument("what", type=click.Choice(["vagrantfile", "local.conf"]))
@click.option("--profile", "name", metavar="NAME", shell_complete=complete_profile, help="Instead of the lab's own.")
@click.option("--with", "services", metavar="NAME,...", help="Optional services, like heat,barbican.")
@click.option("--session", "session_name", metavar="NAME", help="With the services that this session needs.")
@click.option(
    "--variant", "variants", multiple=True, metavar="NAME", help="A variant of the profile: lab profiles NAME."
)
@click.option("--why", is_flag=True, help="List the fragments of local.conf and what chose each, instead of the file.")
@json_option
@click.pass_obj
def render(
    context: Context,
    what: str,
    name: str | None,
    services: str | None,
    session_name: str | None,
    variants: tuple[str, ...],
    why: bool,
    as_json: bool,
) -> None:
    """Print the Vagrantfile or DevStack's local.conf as lab up would write it, passwords masked.

    Works without a lab; with one, its profile, services and address are used where nothing else is said.
    """
    from stacklab.deploy.profiles import load_profile, load_settings, with_variants
    from stacklab.homes.plan import Plan

    lab, console, settings = context.lab, context.console(as_json), load_settings()
    plan = Plan.of(lab) if lab.exists() else Plan()
    profile = load_profile(name or plan.profile or DEFAULT_PROFILE)
    profile = with_variants(profile, [*(one for one in settings.variants if one in profile.variants), *variants])
    if what == "vagrantfile":
        text = _vagrantfile(lab, profile, plan)
        console.result({"file": "Vagrantfile", "profile": profile.name, "text": text})
        console.print(text.rstrip("\n"))
        return
    _local_conf(console, lab, (profile, settings), _split(services) or list(plan.services), session_name, why)


def _split(names: str | None) -> list[str]:
    return [one.strip() for one in (names or "").split(",") if one.strip()]


def _local_conf(
    console: Console,
    lab: Lab,
    how: tuple[Profile, Settings],
    services: list[str],
    session_name: str | None,
    why: bool,
) -> None:
    from stacklab.course.load import load_session
    from stacklab.deploy import localconf
    from stacklab.homes.libvirt.site import SiteFile

    profile, settings = how
    kept = lab.record.get("session") if lab.exists() else None
    chosen = session_name or (str(kept) if kept else None)
    session = load_session(chosen) if chosen else None
    used = localconf.fragments(profile, settings, services=services, session=session)
    site = SiteFile(lab).read()
    address = str(site.address) if site else EXAMPLE_ADDRESS
    text = localconf.masked(profile, settings, services=services, session=session, host_ip=address)
    console.result(
        {
            "file": "local.conf",
            "profile": profile.name,
            "fragments": [
                {"name": one.name, "chosen": one.chosen, "why": one.why, "path": str(one.path)} for one in used
            ],
            "text": text,
        }
    )
    if why:
        console.table(("FRAGMENT", "CHOSEN BY", "WHY"), [(one.name, one.chosen, one.why) for one in used])
    else:
        console.print(text.rstrip("\n"))


def _vagrantfile(lab: Lab, profile: Profile, plan: Any) -> str:
    from stacklab.homes.libvirt.site import SiteFile
    from stacklab.homes.libvirt.vagrantfile import render as rendered
    from stacklab.homes.libvirt.vagrantfile import sized

    site = SiteFile(lab).read() or _example(lab, profile)
    size = sized(profile, plan.cpus, plan.memory, plan.disk)
    return rendered(site, profile, size, console=lab.home_directory / "console.log")


def _example(lab: Lab, profile: Profile) -> Site:
    """Where a VM would be that has not been made: its name and networks are chosen when it is."""
    from stacklab.deploy.profiles import load_settings
    from stacklab.homes.libvirt.site import RANGE, Site

    settings = load_settings()
    networks = str(next(RANGE.subnets(new_prefix=23)))
    uri = settings.libvirt_uri or "qemu:///system"
    box, version = profile.box.name, profile.box.version or ""
    return Site(f"lab-{lab.name}-0000", uri, settings.libvirt_pool, "qemu", networks, box=box, version=version)


@click.command()
@click.argument("name", required=False, shell_complete=complete_profile)
@json_option
@click.pass_obj
def profiles(context: Context, name: str | None, as_json: bool) -> None:
    """List the profiles, or tell one: what it is, what it can serve, and how sure each of its facts is."""
    from stacklab.deploy.profiles import load_profile, profile_names

    console = context.console(as_json)
    if name is None:
        found = [load_profile(one) for one in profile_names()]
        console.result([_summary(one) for one in found])
        rows = [(one.name, one.title, f"{one.usual_minutes} min", one.summary) for one in found]
        console.table(("PROFILE", "WHAT", "STACKS IN", ""), rows)
        return
    profile = load_profile(name)
    console.result(profile.model_dump(mode="json"))
    _tell(console, profile)


def _summary(profile: Profile) -> dict[str, object]:
    sure = {how: sum(mark.how == how for mark in profile.marks.values()) for how in HOW}
    return {
        "name": profile.name,
        "title": profile.title,
        "summary": profile.summary,
        "distribution": profile.distribution,
        "release": profile.release,
        "usual_minutes": profile.usual_minutes,
        "services": [name for name, service in profile.services.items() if service.refused is None],
        "marks": {how: count for how, count in sure.items() if count},
    }


def _tell(console: Console, profile: Profile) -> None:
    console.heading(f"{profile.name}: {profile.title}")
    console.print(profile.summary)
    console.print()
    console.table(
        ("SERVICE", "", "WHAT"),
        [
            (name, "refused" if service.refused else "--with", " ".join((service.refused or service.title).split()))
            for name, service in profile.services.items()
        ],
    )
    if profile.variants:
        console.print()
        rows = [
            (name, "by itself there" if variant.when else "deploy.variants", f"{variant.title}: {variant.why}")
            for name, variant in profile.variants.items()
        ]
        console.table(("VARIANT", "CHOSEN", "WHAT"), rows)
    console.print()
    rows = [(path, HOW[mark.how], mark.source) for path, mark in profile.marks.items()]
    console.table(("FACT", "HOW SURE", "SOURCE"), rows)
