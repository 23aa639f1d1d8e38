"""Grading by mutation: each step's fact is broken in the real cloud; just that step, and those that need it, fail."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from stacklab.cloud.access import Ability
from stacklab.course.load import load_session
from stacklab.kinds.context import Workspace
from stacklab.lab import Lab
from stacklab.replay.bringup import reset
from stacklab.replay.check import check
from stacklab.replay.current import home_of, workspace_at
from stacklab.replay.vias import do
from tests.embedded.guests import LOGIN_SECONDS, PATIENCE
from tests.embedded.mutation import Break, Mend, Mutations, by_names, done_session, failed, find, in_guest, ssh

SESSION = load_session("session4")


@pytest.fixture(scope="module")
def done(running: Lab) -> Iterator[Workspace]:
    """The whole session, done."""
    yield done_session(running, "session4")
    reset(running, lambda detail: None)


def renamed(service: str, collection: str, key: str, step: str, verb: str = "PUT") -> Break:
    """Break by giving the thing another name."""

    def broken(desk: Workspace) -> Mend:
        thing = find(desk, step)

        def name(value: str) -> None:
            body: Any = {key: {"name": value}}
            if service == "image":
                body = [{"op": "replace", "path": "/name", "value": value}]
                headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
                desk.admin.sdk.image.patch(f"/images/{thing['id']}", json=body, headers=headers)
                return
            desk.admin.request(verb, service, (collection, thing["id"]), body=body)

        name("something-else")
        return lambda: name(thing["name"])

    return broken


def changed(
    service: str, path: tuple[str, ...], broken: Any, mended: Any, verb: str = "PATCH"
) -> Callable[[Workspace], Mend]:
    """Break by writing `broken`, mend by writing `mended`."""

    def act(desk: Workspace) -> Mend:
        desk.admin.request(verb, service, path, body=broken)
        return lambda: desk.admin.request(verb, service, path, body=mended)

    return act


def disabled(collection: str, key: str, pick: Callable[[Workspace], str]) -> Break:
    """Break by disabling something of Keystone's."""
    return lambda desk: changed(
        "identity", (collection, pick(desk)), {key: {"enabled": False}}, {key: {"enabled": True}}
    )(desk)


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
    roles = [one["role"]["id"] for one in desk.admin.get("identity", "role_assignments", **query)["role_assignments"]]
    paths = [("projects", project, "users", user, "roles", role) for role in roles]
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


def quota(service: str, **limits: tuple[int, int]) -> Break:
    """Another limit, and back."""

    def broken(desk: Workspace) -> Mend:
        path = ("quotas" if service == "network" else "os-quota-sets", find(desk, "project")["id"])
        key = "quota" if service == "network" else "quota_set"
        bodies = [{key: {name: values[index] for name, values in limits.items()}} for index in (0, 1)]
        desk.admin.put(service, *path, body=bodies[0])
        return lambda: desk.admin.put(service, *path, body=bodies[1])

    return broken


def without_icmp(desk: Workspace) -> Mend:
    """The security group no longer lets in ping."""
    group = find(desk, "security-group")
    rule = next(one for one in group["security_group_rules"] if one["protocol"] == "icmp")
    desk.admin.delete("network", "security-group-rules", rule["id"])
    again = {"security_group_id": group["id"], "direction": "ingress", "protocol": "icmp", "ethertype": "IPv4"}
    return lambda: desk.admin.post("network", "security-group-rules", body={"security_group_rule": again})


def without_gateway(desk: Workspace) -> Mend:
    """The router no longer leads to the subnet: its interface is gone (the floating IP must go first)."""
    router, mend_address = find(desk, "router"), without_floating_ip(desk)
    body = {"subnet_id": router["subnets"][0]}
    desk.admin.put("network", "routers", router["id"], "remove_router_interface", body=body)

    def mend() -> None:
        desk.admin.put("network", "routers", router["id"], "add_router_interface", body=body)
        mend_address()

    return mend


def without_floating_ip(desk: Workspace) -> Mend:
    """The floating IP is allocated, but associated with nothing."""
    address = find(desk, "floating-ip")
    path = ("floatingips", address["id"])
    desk.admin.put("network", *path, body={"floatingip": {"port_id": None}})
    return lambda: desk.admin.put("network", *path, body={"floatingip": {"port_id": address["port_id"]}})


def without_key(desk: Workspace) -> Mend:
    """The learner has deleted the key pair."""
    desk.learner.delete("compute", "os-keypairs", "lab-key")
    step = SESSION.step("key-pair")

    def mend() -> None:
        do(desk.context(step), step, "rest")

    return mend


def other_flavor(desk: Workspace) -> Mend:
    """A flavor of the same name, but larger."""
    compute, old = desk.admin.sdk.compute, find(desk, "flavor")
    compute.delete_flavor(old["id"])
    other = compute.create_flavor(name=old["name"], vcpus=1, ram=512, disk=1)

    def mend() -> None:
        compute.delete_flavor(other)
        compute.create_flavor(name=old["name"], vcpus=1, ram=256, disk=1, id=old["id"])

    return mend


def paused(desk: Workspace) -> Mend:
    """The instance does not run."""
    server = find(desk, "server")["id"]
    desk.admin.post("compute", "servers", server, "action", body={"pause": None})
    becomes(desk, "PAUSED")

    def mend() -> None:
        desk.admin.post("compute", "servers", server, "action", body={"unpause": None})
        becomes(desk, "ACTIVE")

    return mend


def becomes(desk: Workspace, status: str) -> None:
    """Wait for the server's status."""
    deadline = time.monotonic() + PATIENCE
    while find(desk, "server")["status"] != status:
        assert time.monotonic() < deadline
        time.sleep(0.3)


def chattering(desk: Workspace) -> Mend:
    """Something fills the console, so that the login prompt can no longer be seen on it."""
    in_guest(desk, "login", "yes chatter | head -n 4000 | sudo tee /dev/ttyS0 >/dev/null")
    return lambda: in_guest(desk, "login", "echo login: | sudo tee /dev/ttyS0 >/dev/null")


def locked_out(desk: Workspace) -> Mend:
    """The guest does not know the key, as long as somebody who is logged in already keeps it away."""
    step = SESSION.step("login")
    do(desk.context(step), step, "rest")  # it lets us in now
    line = "cd .ssh && mv authorized_keys gone && echo gone && cat; mv gone authorized_keys"
    inside = subprocess.Popen(ssh(desk, "login", line), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert inside.stdout
    assert inside.stdout.readline() == "gone\n"

    def mend() -> None:
        inside.communicate(timeout=LOGIN_SECONDS)
        do(desk.context(step), step, "rest")

    return mend


def detached(desk: Workspace) -> Mend:
    """The volume is nobody's disk."""
    step, thing = SESSION.step("attachment"), find(desk, "attachment")
    step.kind.remove(desk.context(step), thing)
    desk.memory.clear()

    def mend() -> None:
        do(desk.context(step), step, "rest")
        deadline = time.monotonic() + PATIENCE
        while check(desk, [step]).grades[0].status != "passed":
            assert time.monotonic() < deadline
            time.sleep(0.3)

    return mend


def faulty(name: str) -> Break:
    """Broken on purpose, as `lab break` does it."""

    def broken(desk: Workspace) -> Mend:
        fault = desk.faults()[name]
        fault.inject(lambda detail: None)
        return lambda: fault.clear(lambda detail: None)

    return broken


BREAKS: dict[str, Break] = {
    "services": disabled("services", "service", placement_service),
    "endpoints": disabled("endpoints", "endpoint", placement_endpoint),
    "service-users": without_service_roles,
    "project": disabled("projects", "project", lambda desk: find(desk, "project")["id"]),
    "user": disabled("users", "user", lambda desk: find(desk, "user")["id"]),
    "member": without_role,
    "quota": quota("network", network=(7, 2)),
    "over-quota": quota("block-storage", gigabytes=(500, 4)),
    "network": renamed("network", "networks", "network", "network"),
    "subnet": renamed("network", "subnets", "subnet", "subnet"),
    "router": without_gateway,
    "security-group": without_icmp,
    "key-pair": without_key,
    "image": renamed("image", "images", "image", "image"),
    "flavor": other_flavor,
    "server": paused,
    "console": chattering,
    "floating-ip": without_floating_ip,
    "login": locked_out,
    "volume": renamed("block-storage", "volumes", "volume", "volume"),
    "attachment": detached,
    "admin-view": renamed("compute", "servers", "server", "server"),
    "project-view": renamed("compute", "servers", "server", "server"),
    "repair-httpd": faulty("httpd"),
    "repair-agent": faulty("selinux-q-agt"),
    "repair-network": faulty("network"),
    "repair-glance-full": faulty("glance-full"),
    "repair-password": faulty("wrong-password"),
    "repair-quota": faulty("quota"),
    "repair-compute": faulty("nova-compute"),
}

SHARED = {
    # A repair is seen by doing, so it needs the catalogue, and the services' own accounts.
    "services": {step.id for step in SESSION.select("troubleshooting")},
    "service-users": {"repair-password"},
    # What these steps declare is declared by another one, too, so breaking it breaks both.
    "over-quota": {"quota"},
    "admin-view": {"server"},
    "project-view": {"server"},
    # What these faults break is asked by other steps, too, which then cannot tell.
    "repair-agent": {"quota", "network", "security-group"},
    "repair-password": {"quota", "volume"},
    "repair-quota": {"quota"},
}


def test_every_step_has_its_mutation() -> None:
    # This machine's clock is not the lab's: the faults of DevStack's machines are tested in tests/machine and tests/vm.
    assert set(BREAKS) == {step.id for step in SESSION.steps()} - {"repair-clock"}


MUTATIONS = Mutations(SESSION, BREAKS, SHARED)


@pytest.mark.parametrize("steps", MUTATIONS.rounds(), ids=by_names)
def test_breaking_what_steps_declare_fails_them_and_only_what_needs_them(
    done: Workspace, steps: tuple[str, ...]
) -> None:
    MUTATIONS.assert_noticed(done, steps)


def test_after_all_mutations_everything_is_as_it_was(done: Workspace) -> None:
    assert failed(done) == {}


def test_a_cloud_that_does_not_answer_is_cannot_tell_and_never_a_pass(done: Workspace, running: Lab) -> None:
    home = home_of(running)
    access = home.access()
    text = access.clouds_file.read_text(encoding="utf-8")
    elsewhere = access.clouds_file.with_name("nowhere.yaml")
    port = text.split("127.0.0.1:")[1].split("/")[0]
    elsewhere.write_text(text.replace(f":{port}/", ":9/"), encoding="utf-8")  # the discard port: nobody listens there
    desk = workspace_at(home, running, SESSION, lambda text: None, access=replace(access, clouds_file=elsewhere))
    # What was broken on purpose is looked at on the home, not with these logins.
    report = check(desk, [step for step in SESSION.steps() if step.exercise != "troubleshooting"])
    elsewhere.unlink()
    assert not report.good
    assert report.count("unknown") == len(report.grades)


def test_without_a_hypervisor_console_and_login_are_not_applicable(done: Workspace, running: Lab) -> None:
    home = home_of(running)
    without = replace(home.access(), hypervisor=Ability(False, "no QEMU here"))
    desk = workspace_at(home, running, SESSION, lambda text: None, access=without)
    grades = {grade.id: grade for grade in check(desk, SESSION.steps()).grades}
    assert {name for name, grade in grades.items() if grade.status == "not_applicable"} == {
        "console",
        "login",
        "repair-clock",
    }
    assert grades["console"].actual == "no QEMU here"
