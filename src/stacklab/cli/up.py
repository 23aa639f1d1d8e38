"""`lab up`."""

from __future__ import annotations

import click

from stacklab.cli.options import Context, complete_address, complete_home, json_option


@click.command()
@click.argument("session", required=False, shell_complete=complete_address)
@click.option(
    "--on",
    "home_name",
    shell_complete=complete_home,
    metavar="HOME",
    help="Where the cloud shall live: embedded. Without it, the best this machine has.",
)
@click.option(
    "--image", metavar="PATH|URL", help="Disk image for instances; else a cached, downloaded or home-made one."
)
@json_option
@click.pass_obj
def up(context: Context, session: str | None, home_name: str | None, image: str | None, as_json: bool) -> None:
    """Bring a session's cloud up, from wherever it stands.

    Whatever is done already is not done again, so the same command starts, resumes and repairs. Interrupt it at any time.

    \b
    lab up session4
    lab up session4 --image ~/cirros-0.6.3-x86_64-disk.img
    """
    from stacklab.bringup import bring_up
    from stacklab.desk import session_of

    lab, console = context.lab, context.console(as_json)
    chosen = session_of(lab, session)
    home = bring_up(lab, chosen, home_name, image, console.emit)
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
    console.print('  your shell   eval "$(lab openrc)"; openstack server list')
    console.print(f"  be graded    lab check {chosen.name}")
