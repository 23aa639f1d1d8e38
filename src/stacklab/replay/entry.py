"""The way into an instance: which ssh command, and what it stands for."""

from __future__ import annotations

import shlex
from typing import Any

from stacklab.cloud.access import LEARNER
from stacklab.cloud.connection import Connection
from stacklab.errors import InstanceUnreachable, UnknownName
from stacklab.kinds.instance import ssh_options
from stacklab.lab import Lab
from stacklab.replay.assets import Assets
from stacklab.replay.current import home_of
from stacklab.suggest import closest


def ssh_argv(lab: Lab, instance: str, user: str | None, command: list[str]) -> tuple[list[str], str]:
    """The ssh command for an instance (by name or id), and a line on what its address stands for.

    Raises UnknownName, InstanceUnreachable, NotRunning.
    """
    access = home_of(lab).access()
    admin = Connection(access.clouds_file, access.admin)
    servers = admin.get("compute", "servers", "detail", all_tenants="1")["servers"]
    server = _chosen(instance, servers, admin)
    if not access.hypervisor.there:
        raise InstanceUnreachable(
            f"{server['name']} cannot be logged in to: {access.hypervisor.why}", advice="lab status"
        )
    if server["status"] != "ACTIVE":
        raise InstanceUnreachable(
            f"{server['name']} is {server['status']}", advice=f"lab openstack server start {server['name']}"
        )
    way = access.ssh_endpoint(server["id"])
    if way is None:
        raise InstanceUnreachable(f"there is no way into {server['name']} from here", advice="lab logs nova")
    assets = Assets(lab)
    options = ssh_options(assets.private_key, server["id"], way)
    words = command if len(command) < 2 else [shlex.join(command)]  # one word may be a whole line
    argv = ["ssh", *options, f"{user or assets.login_user}@{way.host}", *words]
    return argv, f"via {way.host}:{way.port}, {way.why}"


def _chosen(instance: str, servers: list[dict[str, Any]], admin: Connection) -> dict[str, Any]:
    """By id, else by name; the learner's own before anybody else's of the same name."""
    matching = [server for server in servers if instance in (server["id"], server["name"])]
    if not matching:
        names = [server["name"] for server in servers]
        raise UnknownName(
            f"there is no instance '{instance}'",
            advice=closest(instance, names, "lab openstack --admin server list --all-projects"),
        )
    projects = admin.get("identity", "projects", name=LEARNER["learner_project"])["projects"]
    own = {project["id"] for project in projects}
    return min(matching, key=lambda server: server["tenant_id"] not in own)
