"""`lab render` and `lab profiles`: what a deployment would use, without a lab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stacklab.cli.completing import (
    DEFAULT_PROFILE,
    complete_profile,
    complete_services,
    complete_session,
    complete_variant,
)
from stacklab.cli.options import Invocation, json_option

if TYPE_CHECKING:
    from stacklab.console import Console
    from stacklab.course.session import Session
    from stacklab.deploy.profile.model import Profile
    from stacklab.deploy.profile.settings import Settings
    from stacklab.homes.libvirt.site import VmSite
    from stacklab.lab import Lab

EXAMPLE_ADDRESS = "192.0.2.10"
"""For showing, where no machine is known (RFC 5737)."""


@click.command()
@click.argument("what", type=click.Choice(["vagrantfile", "local.conf", "answer-file"]))
@click.option("--profile", "name", metavar="NAME", shell_complete=complete_profile, help="Instead of the lab's own.")
@click.option(
    "--with", "services", metavar="NAME,...", shell_complete=complete_services,
    help="Optional services, like heat,barbican.",
)  # fmt: skip
@click.option(
    "--session", "session_name", metavar="NAME", shell_complete=complete_session,
    help="With the services that this session needs.",
)  # fmt: skip
@click.option(
    "--variant", "variants", multiple=True, metavar="NAME", shell_complete=complete_variant,
    help="A variant of the profile: lab profiles NAME.",
)  # fmt: skip
@click.option("--why", is_flag=True, help="List the fragments of local.conf and what chose each, instead of the file.")
@json_option
@click.pass_obj
def render(
    context: Invocation,
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
    from stacklab.deploy.profile.load import chosen_variants, load_profile, load_settings
    from stacklab.homes.plan import Plan

    if why and what != "local.conf":
        raise click.UsageError(f"--why tells of the fragments of local.conf; {what} has none")
    lab, console, settings = context.lab, context.console(as_json, verbatim=True), load_settings()
    plan = Plan.of(lab) if lab.exists() else Plan()
    profile = load_profile(name or plan.profile or DEFAULT_PROFILE)
    profile = profile.with_variants([*chosen_variants(profile, settings), *variants])
    asked = [name.strip() for name in (services or "").split(",") if name.strip()] or list(plan.services)
    asked_by: dict[str, str] = {}
    session = _session(lab, session_name)
    if session and what != "vagrantfile":
        asked = list(dict.fromkeys([*session.services, *asked]))
        asked_by = dict.fromkeys(session.services, f"session {session.name}")
    more: dict[str, Any]
    if what == "vagrantfile":
        text, more = _vagrantfile(lab, profile, plan), {}
    elif what == "answer-file":
        profile, text, more = _answer_file(lab, profile, asked)
    else:
        text, more = _local_conf(lab, profile, settings, asked, asked_by)
    file = "Vagrantfile" if what == "vagrantfile" else what
    console.result({"file": file, "profile": profile.name, "text": text} | more)
    if why:
        rows = [(fragment["name"], fragment["chosen"], fragment["why"]) for fragment in more["fragments"]]
        console.table(("FRAGMENT", "CHOSEN BY", "WHY"), rows)
    else:
        console.print(text.rstrip("\n"))


def _session(lab: Lab, name: str | None) -> Session | None:
    """The session that was named, else the lab's."""
    from stacklab.course.load import load_session

    chosen = name or (lab.record.session if lab.exists() else None)
    return load_session(chosen, also=lab.labs) if chosen else None


def _local_conf(
    lab: Lab, profile: Profile, settings: Settings, services: list[str], asked_by: dict[str, str]
) -> tuple[str, dict[str, Any]]:
    from stacklab.deploy.localconf import render as localconf

    fragments = localconf.fragments(profile, settings, services=services, asked_by=asked_by)
    address, example = _address(lab)
    text = localconf.render(profile, settings, services=services, asked_by=asked_by, host_ip=address)
    used = [
        {"name": fragment.name, "chosen": fragment.chosen, "why": fragment.why, "path": str(fragment.path)}
        for fragment in fragments
    ]
    return _noted(text, address, example), {"example_address": example, "fragments": used}


def _answer_file(lab: Lab, profile: Profile, services: list[str]) -> tuple[Profile, str, dict[str, Any]]:
    from stacklab.deploy.packstack import answers

    by_packstack = answers.profile_like(profile)
    address, example = _address(lab)
    text = answers.render(by_packstack, services=services, host_ip=address)
    return by_packstack, _noted(text, address, example), {"example_address": example}


def _address(lab: Lab) -> tuple[str, bool]:
    """The machine's, and whether it only stands for one because there is no machine."""
    from stacklab.homes.libvirt.site import SiteFile

    site = SiteFile(lab).read()
    return (EXAMPLE_ADDRESS, True) if site is None else (str(site.address), False)


def _noted(text: str, address: str, example: bool) -> str:
    """With a comment after the file's own first line, where the address is none."""
    first, rest = text.split("\n", 1)
    note = f"# There is no machine to take an address from: {address} stands for it.\n" if example else ""
    return f"{first}\n{note}{rest}"


def _vagrantfile(lab: Lab, profile: Profile, plan: Any) -> str:
    from stacklab.homes.libvirt.site import SiteFile
    from stacklab.homes.libvirt.vagrantfile import render as rendered
    from stacklab.homes.libvirt.vagrantfile import sized

    site = SiteFile(lab).read() or _example(lab, profile)
    size = sized(profile, plan.cpus, plan.memory, plan.disk)
    return rendered(site, profile, size, console=lab.home_directory / "console.log")


def _example(lab: Lab, profile: Profile) -> VmSite:
    """Where a VM would be that has not been made: its name and networks are chosen when it is."""
    from stacklab.deploy.profile.load import load_settings
    from stacklab.homes.libvirt.site import RANGE, VmSite

    settings = load_settings()
    networks = str(next(RANGE.subnets(new_prefix=23)))
    uri = settings.libvirt_uri or "qemu:///system"
    box, version = profile.box.name, profile.box.version or ""
    return VmSite(f"lab-{lab.name}-0000", uri, settings.libvirt_pool, "qemu", networks, box=box, version=version)


@click.command()
@click.argument("name", required=False, shell_complete=complete_profile)
@json_option
@click.pass_obj
def profiles(context: Invocation, name: str | None, as_json: bool) -> None:
    """List the profiles with what has been run of each, or show one: what it is, what it can serve, and its variants."""
    from stacklab.deploy.profile.load import load_profile

    console = context.console(as_json)
    if name is None:
        _list(console)
        return
    profile = load_profile(name)
    console.result(profile.model_dump(mode="json"))
    _show(console, profile)


def _list(console: Console) -> None:
    """All of them; one that is broken keeps nobody from seeing the others, and is what the verb ends with."""
    from stacklab.deploy.profile.load import load_profile, load_settings, profile_names
    from stacklab.errors import LabError

    load_settings()  # what is wrong with the configuration would be said of each profile
    readable: list[Profile] = []
    broken: dict[str, LabError] = {}
    for name in profile_names():
        try:
            readable.append(load_profile(name))
        except LabError as error:
            broken[name] = error
    summary = {"name", "title", "summary", "tested", "distribution", "release", "usual_minutes"}
    console.result(
        [
            *({**profile.model_dump(mode="json", include=summary), "services": profile.served} for profile in readable),
            *(
                {"name": name, "error": why.id, "message": why.message, "advice": why.advice}
                for name, why in broken.items()
            ),
        ]
    )
    rows = [(profile.name, profile.title, f"{profile.usual_minutes} min", profile.tested) for profile in readable]
    console.table(("PROFILE", "WHAT", "STACKS IN", "WHAT HAS BEEN RUN"), rows)
    for name, why in broken.items():
        console.print(f"{console.mark('failed')} {name}: {why.message}")
        if why.advice:
            console.print(f"     → {why.advice}")
    if broken:
        raise click.exceptions.Exit(next(iter(broken.values())).exit_code)


def _show(console: Console, profile: Profile) -> None:
    console.heading(f"{profile.name}: {profile.title}")
    console.print(profile.summary)
    console.print(f"What has been run of it: {profile.tested}")
    console.print()
    rows = [
        (name, "refused" if service.refused else "--with", " ".join((service.refused or service.title).split()))
        for name, service in profile.services.items()
    ]
    console.table(("SERVICE", "", "WHAT"), rows)
    if profile.variants:
        console.print()
        rows = [
            (name, "by itself there" if variant.when else "deploy.variants", f"{variant.title}: {variant.why}")
            for name, variant in profile.variants.items()
        ]
        console.table(("VARIANT", "CHOSEN", "WHAT"), rows)
