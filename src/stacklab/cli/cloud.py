"""`lab openstack`, `openrc`, `ssh`, `netns`, `shell`: ways into the cloud for the learner's own hands."""

from __future__ import annotations

import os
import runpy
import shlex
import sys

import click

from stacklab.cli.options import Invocation, admin_option, json_option
from stacklab.cloud.access import LEARNER, CloudAccess
from stacklab.cloud.connection import Connection
from stacklab.cloud.direct import no_proxy
from stacklab.errors import CloudRefused, HomeUnavailable, LabError
from stacklab.kinds.client import environment, openstack_program
from stacklab.replay.current import home_of, interruption
from stacklab.replay.entry import ssh_argv

CREDENTIALS = (
    "AUTH_URL USERNAME PASSWORD PROJECT_NAME PROJECT_ID TOKEN AUTH_TYPE REGION_NAME CACERT"  # of OS_…, which would win
)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@admin_option
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def openstack(context: Invocation, admin: bool, words: tuple[str, ...]) -> None:
    """Run the openstack client on the lab's cloud.

    \b
    lab openstack server list
    lab openstack --admin -- project list --long

    The learner's user is made by a session's steps (session4/project); until then only --admin can log in.
    """
    if interrupted := interruption(context.lab):
        raise interrupted
    access = home_of(context.lab).access()
    program, env = openstack_program(), environment(access.clouds_file, access.admin if admin else access.learner)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["openstack", *(words[1:] if words[:1] == ("--",) else words)]
    try:
        # In this process: whoever ends us ends it, and yet we hear how it ended.
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if end.code == 1 and words and not admin:  # it says only that authentication is required
            _tell_if_refused(access, admin=admin)
        raise
    except KeyboardInterrupt:
        sys.exit(130)  # it had hardly begun; nothing goes on from there


@click.command()
@admin_option
@click.pass_obj
def openrc(context: Invocation, admin: bool) -> None:
    """Print what a shell needs to use the cloud: eval "$(lab openrc)".

    It names the lab's clouds.yaml (entries lab-admin and lab-learner); the password itself is not printed.
    """
    access = home_of(context.lab).access()
    click.echo(f"unset {' '.join(f'OS_{name}' for name in CREDENTIALS.split())}")
    if no_proxy():
        click.echo(f"export no_proxy={shlex.quote(no_proxy())} NO_PROXY={shlex.quote(no_proxy())}")
    click.echo(f"export OS_CLIENT_CONFIG_FILE={shlex.quote(str(access.clouds_file))}")
    click.echo(f"export OS_CLOUD={access.admin if admin else access.learner}")
    click.echo("# for the REST calls: export TOKEN=$(openstack token issue -f value -c id)")
    if not admin:
        until = "# a session's steps make the learner's user (session4/project); until then: lab openrc --admin"
        click.echo(context.aimed(until))


@click.command()
@admin_option
@json_option
@click.pass_obj
def password(context: Invocation, admin: bool) -> None:
    """Print the user name and the generated password that Horizon's login page asks for."""
    home = home_of(context.lab)
    user = "admin" if admin else LEARNER["learner"]
    secret = context.lab.secret("admin" if admin else "learner")
    context.console.result({"user": user, "password": secret})
    context.console.print(f"{user} {secret}")
    if home.status().state == "running":
        _tell_if_refused(home.access(), admin=admin)


def _tell_if_refused(access: CloudAccess, *, admin: bool) -> None:
    """Whether the cloud lets this user in now; on stderr, for stdout is somebody else's."""
    try:
        _ = Connection(access.clouds_file, access.admin if admin else access.learner).token
    except LabError as error:
        refused = isinstance(error, CloudRefused) and error.status == 401 and not admin
        made = "a session's steps make this user and its role (session4/project), with the password that lab password prints"
        why = made if refused else error.message
        click.echo(f"note: the cloud does not take this login now; {why}", err=True)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def netns(context: Invocation, command: tuple[str, ...]) -> None:
    """Run one command in the cloud's network, where floating IPs answer and Open vSwitch is.

    \b
    lab netns -- ping -c 3 172.24.4.10
    lab netns -- ovn-nbctl show
    """
    _become_inside(context, list(command[1:] if command[:1] == ("--",) else command))


@click.command()
@click.pass_obj
def shell(context: Invocation) -> None:
    """Open a shell in the cloud's network: you are where DevStack's machine would be.

    \b
    ping 172.24.4.10               a floating IP
    ssh -i KEY lab@172.24.4.10     with the key that lab show session4/login names
    ovn-nbctl show; ovs-vsctl show; ip address
    """
    _become_inside(context, [os.environ.get("SHELL", "/bin/sh")])


def _become_inside(context: Invocation, words: list[str]) -> None:
    access = home_of(context.lab).access()
    if not access.inside:
        raise HomeUnavailable(
            "this cloud has no network of its own on this machine",
            advice="LAB_NETWORK=ovn lab up gives an embedded cloud one; lab ssh INSTANCE goes into an instance",
        )
    argv = [*access.inside, *words]
    os.execvp(argv[0], argv)  # noqa: S606 -- becomes that command, arguments apart


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("instance")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("-l", "--user", help="Whom to log in as; else whom the lab's image lets in.")
@click.pass_obj
def ssh(context: Invocation, instance: str, command: tuple[str, ...], user: str | None) -> None:
    """Log in to an instance (by name or id) with the lab's key pair, or run a command in it.

    \b
    lab ssh lab-vm
    lab ssh lab-vm -- uname -a
    """
    words = list(command[1:] if command[:1] == ("--",) else command)
    argv, why = ssh_argv(context.lab, instance, user, words)
    if why:
        click.echo(why, err=True)
    os.execvp(argv[0], argv)  # noqa: S606 -- becomes ssh, arguments apart
