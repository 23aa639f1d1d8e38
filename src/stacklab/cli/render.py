"""`lab render` and `lab profiles`: what a deployment would use, without a lab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stacklab.cli.completing import DEFAULT_PROFILE, complete_services, complete_session, complete_variant
from stacklab.cli.options import Context, complete_profile, json_option

if TYPE_CHECKING:
    from stacklab.console import Console
    from stacklab.deploy.profile.model import Profile
    from stacklab.deploy.profile.settings import Settings
    from stacklab.homes.libvirt.site import Site
    from stacklab.lab import Lab

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
@click.argument("what", type=click.Choice(["vagrantfile", "local.conf", "answer-file"]))
@click.option("--profile", "name", metavar="NAME", shell_complete=complete_profile, help="Instead of the lab's own.")
@click.option(
    "--with",
    "services",
    metavar="NAME,...",
    shell_complete=complete_services,
    help="Optional services, like heat,barbican.",
)
@click.option(
    "--session",
    "session_name",
    metavar="NAME",
    shell_complete=complete_session,
    help="With the services that this session needs.",
)
@click.option(
    "--variant", "variants", multiple=True, metavar="NAME", shell_complete=complete_variant,
    help="A variant of the profile: lab profiles NAME.",
)  # fmt: skip
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
    """Print the Vagrantfile, DevStack's local.conf or PackStack's answer file as lab up would write it, passwords masked.

    Of a lab that DevStack deploys, the answer file is that of the same machine deployed by PackStack.

    Works without a lab; with one, its profile, services and address are used where nothing else is said.
    """
    from stacklab.deploy.profile.load import chosen_variants, load_profile, load_settings, with_variants
    from stacklab.homes.plan import Plan

    if why and what != "local.conf":
        raise click.UsageError(f"--why tells of the fragments of local.conf; {what} has none")
    lab, console, settings = context.lab, context.console(as_json), load_settings()
    plan = Plan.of(lab) if lab.exists() else Plan()
    profile = load_profile(name or plan.profile or DEFAULT_PROFILE)
    profile = with_variants(profile, [*chosen_variants(profile, settings), *variants])
    if what == "vagrantfile":
        text = _vagrantfile(lab, profile, plan)
        console.result({"file": "Vagrantfile", "profile": profile.name, "text": text})
        console.print(text.rstrip("\n"))
        return
    if what == "answer-file":
        _answer_file(console, lab, profile, _split(services) or list(plan.services), session_name)
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
    from stacklab.deploy.localconf import render as localconf
    from stacklab.homes.libvirt.site import SiteFile

    profile, settings = how
    kept = lab.record.session if lab.exists() else None
    chosen = session_name or (str(kept) if kept else None)
    session = load_session(chosen, also=lab.labs) if chosen else None
    used = localconf.fragments(profile, settings, services=services, session=session)
    site = SiteFile(lab).read()
    address = str(site.address) if site else EXAMPLE_ADDRESS
    text = localconf.masked(profile, settings, services=services, session=session, host_ip=address)
    if site is None:
        text = _with_note(text, f"# There is no machine to take an address from: {address} stands for it.")
    console.result(
        {
            "file": "local.conf",
            "profile": profile.name,
            "example_address": site is None,
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


def _answer_file(console: Console, lab: Lab, profile: Profile, services: list[str], session_name: str | None) -> None:
    from stacklab.course.load import load_session
    from stacklab.deploy.packstack import answers
    from stacklab.homes.libvirt.site import SiteFile

    by_packstack = answers.profile_like(profile)
    kept = lab.record.session if lab.exists() else None
    chosen = session_name or (str(kept) if kept else None)
    needed = load_session(chosen).services if chosen else ()
    site = SiteFile(lab).read()
    address = str(site.address) if site else EXAMPLE_ADDRESS
    text = answers.masked(by_packstack, services=[*needed, *services], host_ip=address)
    if site is None:
        text = _with_note(text, f"# There is no machine to take an address from: {address} stands for it.")
    console.result({"file": "answer-file", "profile": by_packstack.name, "example_address": site is None, "text": text})
    console.print(text.rstrip("\n"))


def _with_note(text: str, note: str) -> str:
    """A comment after the file's own first line."""
    first, rest = text.split("\n", 1)
    return f"{first}\n{note}\n{rest}"


def _vagrantfile(lab: Lab, profile: Profile, plan: Any) -> str:
    from stacklab.homes.libvirt.site import SiteFile
    from stacklab.homes.libvirt.vagrantfile import render as rendered
    from stacklab.homes.libvirt.vagrantfile import sized

    site = SiteFile(lab).read() or _example(lab, profile)
    size = sized(profile, plan.cpus, plan.memory, plan.disk)
    return rendered(site, profile, size, console=lab.home_directory / "console.log")


def _example(lab: Lab, profile: Profile) -> Site:
    """Where a VM would be that has not been made: its name and networks are chosen when it is."""
    from stacklab.deploy.profile.load import load_settings
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
    from stacklab.deploy.profile.load import load_profile

    console = context.console(as_json)
    if name is None:
        _list(console)
        return
    profile = load_profile(name)
    console.result(profile.model_dump(mode="json"))
    _tell(console, profile)


def _list(console: Console) -> None:
    """All of them; one that is broken keeps nobody from seeing the others, and is what the verb ends with."""
    from stacklab.deploy.profile.load import load_profile, load_settings, misnamed, profile_names
    from stacklab.errors import LabError

    load_settings()  # what is wrong with the configuration would be said of each profile
    found: list[Profile] = []
    broken: dict[str, LabError] = {}
    for name in profile_names():
        try:
            found.append(load_profile(name))
        except LabError as error:
            broken[name] = error
    told = [
        {"name": name, "error": why.id, "message": why.message, "advice": why.advice} for name, why in broken.items()
    ]
    console.result([*(_summary(one) for one in found), *told])
    rows = [(one.name, one.title, f"{one.usual_minutes} min", one.summary) for one in found]
    console.table(("PROFILE", "WHAT", "STACKS IN", ""), rows)
    for name, why in broken.items():
        console.print(f"{console.mark('failed')} {name}: {why.message}")
        if why.advice:
            console.print(f"     → {why.advice}")
    for path in misnamed():
        console.print(console.style(f"! {path} is left out: profiles end in .yaml", "yellow"))
    if broken:
        raise click.exceptions.Exit(next(iter(broken.values())).exit_code)


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
