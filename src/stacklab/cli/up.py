"""`lab up`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stacklab.cli.completing import complete_address, complete_home, complete_profile, complete_services
from stacklab.cli.options import Invocation, json_option


@click.command()
@click.argument("session", required=False, shell_complete=complete_address)
@click.option(
    "--on",
    "home_name",
    shell_complete=complete_home,
    metavar="HOME",
    help="Where the cloud shall live: embedded (processes here), libvirt (the course's VM), ssh://user@host or "
    "ssh:ALIAS (a machine of yours). Without it, the best that this machine has in minutes.",
)
@click.option(
    "--image", metavar="PATH|URL", help="Disk image for instances; else a cached, downloaded or home-made one."
)
@click.option(
    "--profile",
    shell_complete=complete_profile,
    metavar="NAME",
    help="What DevStack makes of the machine; lab profiles lists them.",
)
@click.option(
    "--with",
    "services",
    metavar="NAME,...",
    shell_complete=complete_services,
    help="Optional services, like heat,barbican (libvirt, ssh).",
)
@click.option(
    "--selinux",
    type=click.Choice(["permissive", "module"]),
    help="How SELinux is dealt with where it enforces; permissive is usual.",
)
@click.option("--cpus", type=click.IntRange(1), help="Of the VM (libvirt).")
@click.option("--memory", type=click.IntRange(1), metavar="MIB", help="Of the VM (libvirt).")
@click.option("--disk", type=click.IntRange(1), metavar="GIB", help="Of the VM (libvirt).")
@click.option("--box", metavar="PATH|URL", help="A Vagrant box in place of the profile's (libvirt).")
@click.option("--even-if-used", "used", is_flag=True, default=None, help="Go on although the machine looks used (ssh).")
@json_option
@click.pass_obj
def up(
    context: Invocation, /, session: str | None, home_name: str | None, image: str | None, as_json: bool, **more: Any
) -> None:
    """Bring a session's cloud up, from wherever it stands.

    Whatever is done already is not done again, so the same command starts, resumes and repairs. Interrupt it at any time.

    \b
    lab up session4
    lab up session4 --image ~/cirros-0.6.3-x86_64-disk.img
    lab up session4 --on libvirt
    lab up session4 --on ssh://stack@192.0.2.7 --profile debian12-2026.1 --with swift,heat
    """
    from stacklab.homes.plan import Plan
    from stacklab.replay.bringup import bring_up
    from stacklab.replay.current import session_of

    lab, console = context.lab, context.console(as_json)
    chosen = session_of(lab, session)
    services = tuple(name.strip() for name in (more.pop("services") or "").split(",") if name.strip())
    if more["box"] and "://" not in more["box"]:
        more["box"] = str(Path(more["box"]).expanduser().absolute())  # the next lab up may be run elsewhere
    home = bring_up(lab, chosen, Plan.wanted(home_name, services=services, **more), image, console.emit)
    access = home.access()
    console.result_line(
        {"event": "up", "lab": lab.name, "session": chosen.name, "home": home.name, "clouds": str(access.clouds_file)}
    )
    if not access.hypervisor.there:
        console.print(console.style(f"! {access.hypervisor.why}", "yellow"))
    console.print()
    console.heading(f"{chosen.name} is ready: {chosen.title}")
    if access.dashboard:
        console.print(f"  Horizon      {access.dashboard}   (lab password shows the logins)")
    console.print(f"  see          lab show {chosen.name}")
    console.print(f"  do it        lab replay {chosen.name} --step")
    console.print('  your shell   eval "$(lab openrc --admin)"; openstack service list')
    console.print(f"  be graded    lab check {chosen.name}")
