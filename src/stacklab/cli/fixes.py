"""`lab fixes list|show|apply` and `lab recover`: the repairs of DevStack's machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from stacklab.cli.options import Invocation, json_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from stacklab.cloud.connection import Connection
    from stacklab.conditions.catalogue import ConditionCatalogue
    from stacklab.conditions.runner import RepairOutcome
    from stacklab.console import Console
    from stacklab.deploy.deployment import Deployment
    from stacklab.lab import Lab

MARKS = {
    "good": "passed", "warning": "passed", "bad": "failed", "not_applicable": "not_applicable", "unknown": "unknown",
}  # fmt: skip
"""A finding's state as the console knows it."""


def complete_fix(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A fix's id."""
    from stacklab.conditions.catalogue import ConditionCatalogue

    return [
        CompletionItem(fix.id, help=fix.title) for fix in ConditionCatalogue().all() if fix.id.startswith(incomplete)
    ]


class _Fixes(click.Group):
    """Knows that `lab fix` is something else."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            known = ", ".join(self.commands)
            ctx.fail(f"'{args[0]}' is none of {known}; what lab break has broken is repaired by: lab fix")
        return super().resolve_command(ctx, args)


@click.group(cls=_Fixes)
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
def list_(context: Invocation, as_json: bool) -> None:
    """Look at everything that a fix could repair; changes nothing. Exit 0 only if all is well."""
    lab, console = context.lab, context.console(as_json)
    deployment, catalogue = _opened(lab)
    stacked = _said_if_unfinished(deployment, as_json)
    rows = []
    for fix in catalogue.all():
        finding = fix.look()
        rows.append({"id": fix.id, "title": fix.title, "state": finding.state, "evidence": finding.evidence})
        console.print(f"{console.mark(MARKS[finding.state])} {fix.id:<14} {fix.title}")
        console.indented(console.style(finding.evidence, "bright_black"), 4 + 13)
    console.result(rows)
    bad = [str(row["id"]) for row in rows if row["state"] in ("bad", "unknown")]
    if bad and stacked:
        console.print()
        console.print(f"repair:  lab fixes apply {' '.join(bad)}   (or lab recover: everything, in order)")
    if bad or not stacked:
        click.get_current_context().exit(1)


@fixes.command()
@click.argument("fix", metavar="ID", shell_complete=complete_fix)
@click.option("--module/--permissive", "module", default=None, help="For selinux: as if this had been chosen.")
@json_option
@click.pass_obj
def show(context: Invocation, fix: str, module: bool | None, as_json: bool) -> None:
    """Show why a fix is there, how things are, and the exact commands that it would run now as root; changes nothing."""
    lab, console = context.lab, context.console(as_json)
    deployment, catalogue = _opened(lab, module)
    condition = catalogue[fix]
    _said_if_unfinished(deployment, as_json)
    console.heading(f"{condition.id}: {condition.title}")
    console.print(condition.why)
    console.print()
    finding = condition.look()
    evidence = finding.evidence
    console.print(f"{console.mark(MARKS[finding.state])} {finding.state.replace('_', ' ')}")
    console.indented(evidence)
    commands = []
    if finding.state != "not_applicable":
        commands = [condition.masked(action.text) for action in condition.repairing()]
    console.print()
    console.print(
        ("what it runs as root:" if finding.state == "bad" else "what it would run as root, were it broken:")
        if commands
        else "there is nothing to run"
    )
    for text in commands:
        console.indented(text)
    console.result(
        {
            "id": condition.id,
            "title": condition.title,
            "why": condition.why,
            "state": finding.state,
            "evidence": evidence,
            "commands": commands,
        }
    )


@fixes.command()
@click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=complete_fix)
@click.option("--all", "everything", is_flag=True, help="Everything, in order: the same as lab recover.")
@click.option(
    "--module/--permissive",
    "module",
    default=None,
    help="How SELinux is dealt with: the targeted policy module, or permissive mode. Remembered for this lab.",
)
@json_option
@click.pass_obj
def apply(context: Invocation, ids: tuple[str, ...], everything: bool, module: bool | None, as_json: bool) -> None:
    """Repair what is broken, and see that it works; what is well is not touched.

    \b
    lab fixes apply apache memcached
    lab fixes apply selinux --module
    """
    from stacklab.conditions.catalogue import AFTER_REBOOT
    from stacklab.conditions.runner import repair
    from stacklab.deploy.stack.detached import require_stacked

    if everything == bool(ids):
        raise click.UsageError("name fixes (lab fixes list shows them), or say --all")
    lab, console = context.lab, context.console(as_json)
    with lab.writing():
        deployment, catalogue = _opened(lab, module)
        chosen = catalogue.these(AFTER_REBOOT if everything else ids)
        require_stacked(deployment.machine)
        if module is not None:
            _remember(lab, module)
        _finish(console, repair(chosen, console.emit))


@click.command()
@json_option
@click.pass_obj
def recover(context: Invocation, as_json: bool) -> None:
    """Put back everything that a reboot of the machine took from the cloud, in order; instances are started, too.

    Safe at any time: what is well is not touched, and it can be interrupted and repeated. It takes a minute or two, because
    services are watched for more than a minute: the course's network agent fails again within that time.
    """
    from stacklab.conditions.catalogue import AFTER_REBOOT
    from stacklab.conditions.runner import repair
    from stacklab.deploy.stack.detached import require_stacked

    lab, console = context.lab, context.console(as_json)
    with lab.writing():
        deployment, catalogue = _opened(lab)
        require_stacked(deployment.machine)
        _finish(console, repair(catalogue.these(AFTER_REBOOT), console.emit))


def _opened(lab: Lab, module: bool | None = None) -> tuple[Deployment, ConditionCatalogue]:
    """Raises NoLab, NotRunning; HomeUnavailable where there is no machine; NotServed where DevStack made nothing."""
    from dataclasses import replace

    from stacklab.conditions.catalogue import ConditionCatalogue
    from stacklab.conditions.machine import Target
    from stacklab.errors import NotServed
    from stacklab.replay.current import home_of

    deployment = home_of(lab).deployment()
    if deployment.profile.deployed_by == "packstack":
        raise NotServed(
            "these repairs are for what DevStack leaves undone and what a reboot takes from it; PackStack made this cloud",
            advice="lab status shows its services, lab restart NAME restarts one; packstack may be run again on the machine",
        )
    if module is not None:
        deployment = replace(deployment, permissive=not module)
    return deployment, ConditionCatalogue(Target(lambda: deployment, _cloud(lab)), permissive=deployment.permissive)


def _said_if_unfinished(deployment: Deployment, as_json: bool) -> bool:
    """Whether stack.sh has ended well; says so first if not, for then "broken" means "not made yet"."""
    from stacklab.deploy.stack.detached import unfinished

    running = unfinished(deployment.machine)
    if running is None:
        return True
    # With --json the document is all that may be on standard output.
    click.echo(
        f"note: {deployment.machine.name}: {running.said}; {running.todo}. What follows is no fault yet.\n", err=as_json
    )
    return False


def _cloud(lab: Lab) -> Callable[[], Connection]:
    """How the instances' fix reaches the API. The login is looked for when it is needed."""
    from stacklab.cloud.connection import Connection
    from stacklab.replay.current import home_of

    def opened() -> Connection:
        access = home_of(lab).access()
        return Connection(access.clouds_file, access.admin)

    return opened


def _remember(lab: Lab, module: bool) -> None:
    from dataclasses import replace

    from stacklab.homes.plan import Plan

    replace(Plan.of(lab), selinux="module" if module else "permissive").keep(lab)


def _finish(console: Console, outcomes: list[RepairOutcome]) -> None:
    """Tell what came of it. Raises ServiceFailed."""
    from stacklab.conditions.runner import all_well

    results: list[dict[str, Any]] = [
        {
            "id": outcome.condition.id,
            "result": outcome.result,
            "changed": outcome.changed,
            "evidence": outcome.after.evidence,
        }
        for outcome in outcomes
    ]
    console.result_line({"event": "repaired", "fixes": results})
    console.print()
    console.print(all_well(outcomes))
