"""`lab fixes list|show|apply` and `lab recover`: the repairs of DevStack's machine."""

from __future__ import annotations

from dataclasses import replace

import click

from stacklab.cli.options import Invocation, json_option
from stacklab.cloud.connection import Connection
from stacklab.conditions.catalogue import AFTER_REBOOT, ConditionCatalogue
from stacklab.conditions.machine import Target
from stacklab.conditions.runner import all_well, repair
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.stack.detached import require_stacked, unfinished
from stacklab.errors import NotServed
from stacklab.homes.plan import Plan
from stacklab.lab import Lab
from stacklab.replay.current import home_of


@click.group()
def fixes() -> None:
    """Repairs of the machine that the cloud runs on: after stack.sh, after a reboot.

    What you broke on purpose is repaired by something else: lab fix.

    \b
    lab fixes list                    what is well and what is not, with the evidence
    lab fixes show network-agent      why it is there, and exactly what it would run
    lab fixes apply network-agent     repair it, and see that it holds
    lab recover                       everything, after a reboot of the machine
    """


@fixes.command("list")
@json_option
@click.pass_obj
def list_(context: Invocation) -> None:
    """Look at everything that a fix could repair; changes nothing. Exit 0 only if all is well."""
    console = context.console
    deployment, catalogue = _opened(context.lab)
    stacked = _said_if_unfinished(context, deployment)
    rows = []
    for fix in catalogue.all():
        finding = fix.look()
        rows.append({"id": fix.id, "title": fix.title, "state": finding.state, "evidence": finding.evidence})
        console.print(f"{console.mark(finding.state)} {fix.id:<14} {fix.title}")
        console.indented(console.style(finding.evidence, "bright_black"), 4 + 13)
    console.result(rows)
    bad = [row["id"] for row in rows if row["state"] in ("bad", "unknown")]
    if bad and stacked:
        console.print(f"\nrepair:  lab fixes apply {' '.join(bad)}   (or lab recover: everything, in order)")
    if bad or not stacked:
        raise click.exceptions.Exit(1)


@fixes.command()
@click.argument("fix", metavar="ID")
@json_option
@click.pass_obj
def show(context: Invocation, fix: str) -> None:
    """Show why a fix is there, how things are, and the exact commands that it would run now as root; changes nothing."""
    console = context.console
    deployment, catalogue = _opened(context.lab)
    condition = catalogue[fix]
    _said_if_unfinished(context, deployment)
    finding = condition.look()
    applicable = finding.state != "not_applicable"
    commands = [condition.masked(action.text) for action in condition.repairing()] if applicable else []
    about = {"id": condition.id, "title": condition.title, "why": condition.why, "state": finding.state}
    console.result({**about, "evidence": finding.evidence, "commands": commands})
    console.heading(f"{condition.id}: {condition.title}")
    console.print(f"{condition.why}\n")
    console.print(f"{console.mark(finding.state)} {finding.state.replace('_', ' ')}")
    console.indented(f"{finding.evidence}\n")
    would = "what it runs as root:" if finding.state == "bad" else "what it would run as root, were it broken:"
    console.print(f"\n{would if commands else 'there is nothing to run'}")
    for text in commands:
        console.indented(text)


@fixes.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option(
    "--module/--permissive",
    "module",
    default=None,
    help="How SELinux is dealt with: the targeted policy module, or permissive mode. Remembered for this lab.",
)
@json_option
@click.pass_obj
def apply(context: Invocation, ids: tuple[str, ...], module: bool | None) -> None:
    """Repair what is broken, and see that it works; what is well is not touched.

    \b
    lab fixes apply apache memcached
    lab fixes apply selinux --module
    """
    _apply(context, ids, module)


@click.command()
@json_option
@click.pass_obj
def recover(context: Invocation) -> None:
    """Put back everything that a reboot of the machine took from the cloud, in order; instances are started, too.

    Safe at any time: what is well is not touched, and it can be interrupted and repeated. It takes a minute or two, because
    services are watched for more than a minute: the course's network agent fails again within that time.
    """
    _apply(context, AFTER_REBOOT)


def _apply(context: Invocation, ids: tuple[str, ...], module: bool | None = None) -> None:
    """Repair, and tell what came of it. Raises ServiceFailed."""
    lab, console = context.lab, context.console
    with lab.writing():
        deployment, catalogue = _opened(lab, module)
        chosen = catalogue.these(ids)
        require_stacked(deployment.machine)
        if module is not None:
            replace(Plan.of(lab), selinux="module" if module else "permissive").keep(lab)
        outcomes = repair(chosen, console.emit)
    results = [
        {"id": it.condition.id, "result": it.result, "changed": it.changed, "evidence": it.after.evidence}
        for it in outcomes
    ]
    console.result_line({"event": "repaired", "fixes": results})
    console.print(f"\n{all_well(outcomes)}")


def _opened(lab: Lab, module: bool | None = None) -> tuple[Deployment, ConditionCatalogue]:
    """Raises NoLab, NotRunning; HomeUnavailable where there is no machine; NotServed where DevStack made nothing."""
    home = home_of(lab)
    deployment = home.deployment()
    if deployment.profile.deployed_by == "packstack":
        raise NotServed(
            "these repairs are for what DevStack leaves undone and what a reboot takes from it; PackStack made this cloud",
            advice="lab status shows its services, lab restart NAME restarts one; packstack may be run again on the machine",
        )
    if module is not None:
        deployment = replace(deployment, permissive=not module)

    def cloud() -> Connection:
        """How the instances' fix reaches the API, when it does."""
        access = home.access()
        return Connection(access.clouds_file, access.admin)

    return deployment, ConditionCatalogue(Target(lambda: deployment, cloud), permissive=deployment.permissive)


def _said_if_unfinished(context: Invocation, deployment: Deployment) -> bool:
    """Whether stack.sh has ended well; says so first if not, for then "broken" means "not made yet"."""
    running = unfinished(deployment.machine)
    if running:
        note = f"note: {deployment.machine.name}: {running.said}; {running.todo}. What follows is no fault yet.\n"
        # With --json the document is all that may be on standard output.
        click.echo(context.aimed(note), err=context.as_json)
    return running is None
