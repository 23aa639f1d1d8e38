"""`lab attach`: watch a stack that runs on the lab's machine."""

from __future__ import annotations

import click

from stacklab.cli.options import Invocation, json_option


@click.command()
@json_option
@click.pass_obj
def attach(context: Invocation, as_json: bool) -> None:
    """Watch stack.sh (or packstack) on the lab's machine, from where you left it.

    The run is the machine's: leaving (Ctrl-C), a lost connection or a sleeping laptop do not end it. When it is done,
    lab up goes on with the rest.
    """
    from stacklab.deploy.stack.detached import called
    from stacklab.deploy.stack.following import follow
    from stacklab.replay.current import home_of

    lab, console = context.lab, context.console(as_json)
    deployment = home_of(lab).deployment()
    with console.working(called(deployment.profile.program), lab.usual_seconds("stack")) as progress:
        outcome = follow(deployment, progress)
    console.print(outcome)
    console.print(f"goes on with the rest: lab up {lab.record.session or ''}".rstrip())
