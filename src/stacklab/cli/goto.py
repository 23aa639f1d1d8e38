"""`lab goto`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stacklab.cli.asking import agreed, trust_option, trusted
from stacklab.cli.completing import complete_session, complete_step
from stacklab.cli.options import Invocation, json_option

if TYPE_CHECKING:
    from stacklab.console import Console
    from stacklab.replay.moving import Arrived


@click.command()
@click.argument("session", required=False, shell_complete=complete_session)
@click.option(
    "--step", metavar="ID", shell_complete=complete_step, help="Go to just before this step: your turn at it."
)
@click.option("--yes", is_flag=True, help="Do not ask before things are removed (home ssh, which has no checkpoints).")
@trust_option
@json_option
@click.pass_obj
def goto(context: Invocation, session: str | None, step: str | None, yes: bool, trust: bool, as_json: bool) -> None:
    """Bring the lab to the start of a session, or to just before one of its steps.

    Cloud and files go back to the nearest checkpoint, then the steps before are done for you. Everything made since then is
    gone, also what you made yourself. Without --step it is the same as lab reset SESSION.

    \b
    lab goto session4 --step router      everything before the router is there; the router is yours to make
    """
    from stacklab.cli.learn import replayed, said
    from stacklab.errors import NotRunning
    from stacklab.replay.current import home_of, session_of
    from stacklab.replay.moving import goto as do_goto
    from stacklab.replay.narrate import Narrator

    lab, console = context.lab, context.console(as_json)
    chosen = session_of(lab, session)
    steps = list(chosen.steps())
    turn = chosen.step_at(step) if step else steps[0]
    home = home_of(lab)
    try:
        home.access()
    except NotRunning as error:
        raise NotRunning(error.message, advice=f"lab up {chosen.name}") from error
    if turn is not steps[0]:
        chosen = trusted(console, lab, chosen, trust=trust)
    if not home.checkpoints.saves and not confirmed(context, console, yes=yes):
        return
    arrived = do_goto(
        lab,
        chosen,
        step,
        lambda shown: replayed(console, shown),
        lambda text: said(console, text),
        console.working,
    )
    look = Narrator(lab, chosen).look(arrived.step)
    console.result_line(_as_json(arrived, look))
    _show(context, console, arrived, look)


def confirmed(context: Invocation, console: Console, *, yes: bool) -> bool:
    """Show what a reset without checkpoints removes, and ask. With --json, --yes has to be said."""
    from stacklab.replay.clear import what_goes
    from stacklab.replay.current import home_of

    going = what_goes(context.lab, home_of(context.lab))
    console.print("This home has no checkpoints, so what is there is removed, for good:")
    for thing in going:
        console.print(f"  {thing}")
    if not going:
        console.print("  (nothing)")
    if agreed(console, "Remove it?", yes=yes):
        return True
    console.print("nothing was removed")
    return False


def _as_json(arrived: Arrived, look: str) -> dict[str, object]:
    turn = arrived.step
    return {
        "event": "arrived",
        "session": arrived.session.name,
        "exercise": turn.exercise,
        "step": turn.id,
        "as": turn.who,
        "title": turn.title,
        "look": look,
        "checkpoint": arrived.checkpoint,
        "done": [{"id": applied.step.id, "outcome": applied.outcome} for applied in arrived.applied],
        "saved": arrived.saved,
        "notes": arrived.notes,
    }


def _show(context: Invocation, console: Console, arrived: Arrived, look: str) -> None:
    from stacklab.cli.learn import counted

    for note in arrived.notes:
        console.print(console.style(f"! {note}", "yellow"))
    made = f", then {counted(len(arrived.applied), 'step')} done for you" if arrived.applied else ""
    console.print(f"went back to the checkpoint '{arrived.checkpoint}'{made}")
    session, turn = arrived.session, arrived.step
    address = f"{session.name}/{turn.exercise}/{turn.id}"
    console.print()
    console.heading(f"your turn: {address}: {turn.title}  (as {turn.who})")
    console.print(f"  how          lab show {address}")
    console.print(f"  look         {look}")
    console.print(f"  be graded    lab check {address}")
    console.print(f"  stuck?       lab hint {turn.id}")
