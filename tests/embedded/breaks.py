"""Ways to break what a step has made in the cloud, and to mend it again; each session's tests choose from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stacklab.kinds.context import Workspace
from stacklab.replay.check import check
from stacklab.replay.vias import do
from tests.embedded.guests import until
from tests.embedded.mutation import Break, Mend, find


def done_anew(desk: Workspace, step: str) -> None:
    """What a step makes, made once more over what is there; until its check passes."""
    chosen = desk.session.step(step)
    do(desk.context(chosen), chosen, "rest")
    desk.memory.clear()
    until(f"{step} passes again", lambda: check(desk, [chosen]).grades[0].status == "passed")


def made_anew(step: str) -> Break:
    """What the step made has been deleted."""

    def broken(desk: Workspace) -> Mend:
        chosen = desk.session.step(step)
        context = desk.context(chosen)
        chosen.kind.remove(context, chosen.kind.undo_data(context, chosen.params, find(desk, step)))
        desk.memory.clear()
        return lambda: done_anew(desk, step)

    return broken


def renamed(service: str, collection: str, step: str) -> Break:
    """Nothing has that name any more: the thing has been given another one."""

    def broken(desk: Workspace) -> Mend:
        thing = find(desk, step)

        def name(value: str) -> None:
            if service == "image":
                body = [{"op": "replace", "path": "/name", "value": value}]
                headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
                desk.admin.sdk.image.patch(f"/images/{thing['id']}", json=body, headers=headers)
            else:
                desk.admin.put(service, collection, thing["id"], body={collection.removesuffix("s"): {"name": value}})

        name("something-else")
        return lambda: name(str(thing["name"]))

    return broken


def disabled(collection: str, pick: Callable[[Workspace], str]) -> Break:
    """Something of Keystone's is switched off."""

    def broken(desk: Workspace) -> Mend:
        path, key = (collection, pick(desk)), collection.removesuffix("s")

        def enable(on: bool) -> None:
            desk.admin.request("PATCH", "identity", path, body={key: {"enabled": on}})

        enable(False)
        return lambda: enable(True)

    return broken


def of(step: str) -> Callable[[Workspace], str]:
    """The id of a step's thing."""
    return lambda desk: str(find(desk, step)["id"])


def placement_service(desk: Workspace) -> str:
    """Placement: nothing that a check asks needs its entry in the catalogue."""
    return str(desk.admin.get("identity", "services", name="placement")["services"][0]["id"])


def placement_endpoint(desk: Workspace) -> str:
    """Its public endpoint."""
    query = {"service_id": placement_service(desk), "interface": "public"}
    return str(desk.admin.get("identity", "endpoints", **query)["endpoints"][0]["id"])


def without_service_roles(desk: Workspace) -> Mend:
    """Cinder's user loses its roles on the project `service`."""
    user = desk.admin.get("identity", "users", name="cinder")["users"][0]["id"]
    project = desk.admin.get("identity", "projects", name="service")["projects"][0]["id"]
    query = {"user.id": user, "scope.project.id": project}
    assignments = desk.admin.get("identity", "role_assignments", **query)["role_assignments"]
    paths = [("projects", project, "users", user, "roles", each["role"]["id"]) for each in assignments]
    for path in paths:
        desk.admin.delete("identity", *path)

    def mend() -> None:
        for path in paths:
            desk.admin.put("identity", *path, body=None)

    return mend


def without_role(desk: Workspace) -> Mend:
    """The learner loses the role on the project."""
    thing = find(desk, "member")
    path = ("projects", thing["project"], "users", thing["user"], "roles", thing["id"])
    desk.admin.delete("identity", *path)
    return lambda: desk.admin.put("identity", *path, body=None)


def without_rule(protocol: str) -> Break:
    """The security group no longer lets this in."""

    def broken(desk: Workspace) -> Mend:
        rules = find(desk, "security-group")["security_group_rules"]
        rule = next(each for each in rules if each["protocol"] == protocol)
        desk.admin.delete("network", "security-group-rules", rule["id"])
        kept = ("security_group_id", "direction", "protocol", "ethertype", "port_range_min", "port_range_max")
        body = {"security_group_rule": {key: rule[key] for key in kept}}
        return lambda: desk.admin.post("network", "security-group-rules", body=body)

    return broken


def without_address(step: str) -> Break:
    """The floating IP is allocated, but associated with nothing."""

    def broken(desk: Workspace) -> Mend:
        address = find(desk, step)

        def associate(port: Any) -> None:
            desk.admin.put("network", "floatingips", address["id"], body={"floatingip": {"port_id": port}})

        associate(None)
        return lambda: associate(address["port_id"])

    return broken


def other_flavor(desk: Workspace, ram: int = 512, **more: int) -> Mend:
    """A flavor of the same name, but larger."""
    compute, old = desk.admin.sdk.compute, find(desk, "flavor")
    compute.delete_flavor(old["id"])
    other = compute.create_flavor(name=old["name"], vcpus=1, ram=ram, disk=1, **more)

    def mend() -> None:
        compute.delete_flavor(other)
        compute.create_flavor(name=old["name"], vcpus=1, ram=256, disk=1, id=old["id"])

    return mend


def paused(step: str) -> Break:
    """The instance does not run."""

    def broken(desk: Workspace) -> Mend:
        server = find(desk, step)["id"]

        def become(action: str, status: str) -> None:
            desk.admin.post("compute", "servers", server, "action", body={action: None})
            until(f"{step} is {status}", lambda: find(desk, step)["status"] == status)

        become("pause", "PAUSED")
        return lambda: become("unpause", "ACTIVE")

    return broken
