"""`lab up`, `goto`, `reset`, `down`, `destroy`: the lab comes, goes back, stops, and goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stacklab.cli.completing import complete_address, complete_session, complete_step
from stacklab.cli.learn import counted
from stacklab.cli.options import (
    Invocation,
    agreed,
    json_option,
    profile_option,
    services_option,
    trust_option,
    trusted,
    yes_option,
)
from stacklab.homes.plan import Plan
from stacklab.replay import bringup, moving
from stacklab.replay.clear import what_goes
from stacklab.replay.current import home_of, session_of
from stacklab.replay.narrate import Narrator


@click.command()
@click.argument("session", required=False, shell_complete=complete_address)
@click.option(
    "--on",
    "home_name",
    metavar="HOME",
    help="Where the cloud shall live: embedded (processes here), libvirt (the course's VM), ssh://user@host or "
    "ssh:ALIAS (a machine of yours). Without it, the best that this machine has in minutes.",
)
@click.option(
    "--image", metavar="PATH|URL", help="Disk image for instances; else a cached, downloaded or home-made one."
)
@profile_option
@services_option
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
def up(context: Invocation, /, session: str | None, home_name: str | None, image: str | None, **more: Any) -> None:
    """Bring a session's cloud up, from wherever it stands.

    Whatever is done already is not done again, so the same command starts, resumes and repairs. Interrupt it at any time.

    \b
    lab up session4
    lab up session4 --image ~/cirros-0.6.3-x86_64-disk.img
    lab up session4 --on libvirt
    lab up session4 --on ssh://stack@192.0.2.7 --profile debian12-2026.1 --with swift,heat
    """
    lab, console = context.lab, context.console
    chosen = session_of(lab, session)
    if more["box"] and "://" not in more["box"]:
        more["box"] = str(Path(more["box"]).expanduser().absolute())  # the next lab up may be run elsewhere
    home = bringup.bring_up(lab, chosen, Plan.wanted(home_name, **more), image, console.emit)
    access = home.access()
    event = {"event": "up", "lab": lab.name, "session": chosen.name, "home": home.name}
    console.result_line({**event, "clouds": str(access.clouds_file)})
    if not access.hypervisor.there:
        console.warning(access.hypervisor.why)
    console.print()
    console.heading(f"{chosen.name} is ready: {chosen.title}")
    if access.dashboard:
        console.print(f"  Horizon      {access.dashboard}   (lab password shows the logins)")
    console.print(f"  see          lab show {chosen.name}")
    console.print(f"  do it        lab replay {chosen.name} --step")
    console.print('  your shell   eval "$(lab openrc --admin)"; openstack service list')
    console.print(f"  be graded    lab check {chosen.name}")


# --- going back ------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("session", required=False, shell_complete=complete_session)
@click.option(
    "--step", metavar="ID", shell_complete=complete_step, help="Go to just before this step: your turn at it."
)
@yes_option
@trust_option
@json_option
@click.pass_obj
def goto(context: Invocation, session: str | None, step: str | None, yes: bool, trust: bool) -> None:
    """Bring the lab to the start of a session, or to just before one of its steps.

    Cloud and files go back to the nearest checkpoint, then the steps before are done for you. Everything made since then is
    gone, also what you made yourself. Without --step it is the same as lab reset SESSION. Home ssh, which has no checkpoints,
    shows what would be removed, and asks.

    \b
    lab goto session4 --step router      everything before the router is there; the router is yours to make
    """
    lab, console = context.lab, context.console
    chosen = session_of(lab, session)
    turn = chosen.step_at(step) if step else next(chosen.steps())
    moving.require_running(lab, chosen)
    if turn != next(chosen.steps()):
        chosen = trusted(console, lab, chosen, trust=trust)
    if not _confirmed(context, yes=yes):
        return
    arrived = moving.goto(lab, chosen, step, console.emit_text, console.shown, console.working)
    look = Narrator(lab, chosen).look(turn)
    event = {"event": "arrived", "session": chosen.name, "exercise": turn.exercise, "step": turn.id, "as": turn.who}
    done = [{"id": applied.step.id, "outcome": applied.outcome} for applied in arrived.applied]
    result = {"checkpoint": arrived.checkpoint, "done": done, "saved": arrived.saved, "notes": arrived.notes}
    console.result_line({**event, "title": turn.title, "look": look, **result})
    for note in arrived.notes:
        console.warning(note)
    made = f", then {counted(len(arrived.applied), 'step')} done for you" if arrived.applied else ""
    console.print(f"went back to the checkpoint '{arrived.checkpoint}'{made}\n")
    address = f"{chosen.name}/{turn.exercise}/{turn.id}"
    console.heading(f"your turn: {address}: {turn.title}  (as {turn.who})")
    console.print(f"  how          lab show {address}")
    console.print(f"  look         {look}")
    console.print(f"  be graded    lab check {address}")
    console.print(f"  stuck?       lab hint {turn.id}")


def _confirmed(context: Invocation, *, yes: bool) -> bool:
    """Show what going back without checkpoints removes, and ask. With --json, --yes has to be said."""
    console, home = context.console, home_of(context.lab)
    if home.checkpoints.saves:
        return True
    console.print("This home has no checkpoints, so what is there is removed, for good:")
    for thing in what_goes(context.lab, home) or ["(nothing)"]:
        console.print(f"  {thing}")
    if agreed(console, "Remove it?", yes=yes):
        return True
    console.print("nothing was removed")
    return False


@click.command()
@click.argument("session", required=False, shell_complete=complete_session)
@yes_option
@json_option
@click.pass_obj
def reset(context: Invocation, session: str | None, yes: bool) -> None:
    """Put cloud and files back to the start of the session, or of another one; the services keep running.

    Everything made since then is gone, also what you made yourself: instances, images, volumes, networks, users. Home ssh,
    which has no checkpoints, shows what would be removed, and asks.
    """
    lab, console = context.lab, context.console
    chosen = session_of(lab, session)
    if not _confirmed(context, yes=yes):
        return
    with console.working(f"back to the start of {chosen.name}", 3) as progress:
        bringup.reset(lab, progress, chosen)
    if home_of(lab).status().state == "stopped":
        console.print("the cloud is stopped: lab up starts it")


# --- stopping, and the end -------------------------------------------------------------------------------------------


@click.command()
@json_option
@click.pass_obj
def down(context: Invocation) -> None:
    """Stop the cloud and its instances; what you made stays, and lab up brings it back."""
    with context.console.working("stopping the cloud", 5) as progress:
        bringup.stop(context.lab, progress)


@click.command()
@yes_option
@click.option(
    "--purge", is_flag=True, help="Also what labs share: OpenStack's software, images; when no other lab is left."
)
@json_option
@click.pass_obj
def destroy(context: Invocation, yes: bool, purge: bool) -> None:
    """Remove the lab and everything of it, and say what was removed."""
    lab, console = context.lab, context.console
    if not purge and not lab.remains():
        lab.require()
    if not agreed(console, f"Remove lab '{lab.name}' with everything in its cloud?", yes=yes):
        console.print("nothing was removed")
        return
    removed = []
    with console.working("removing the lab", 5) as progress:
        for thing in bringup.destroy(lab, progress) if lab.remains() else ():
            removed.append(thing)
            console.print(f"  removed {thing}")
    others = bringup.who_else(lab) if purge else []
    if others:
        console.print(f"! the software and images that labs share stay: needed by {', '.join(others)}")
    elif purge:
        with console.working("removing what labs share", 5):
            for thing in bringup.purge(lab):
                removed.append(thing)
                console.print(f"  removed {thing}")
    console.result_line({"event": "destroyed", "lab": lab.name, "removed": removed, "other_labs": others})
