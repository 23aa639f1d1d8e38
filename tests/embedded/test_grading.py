"""Grading by mutation: each step's fact is broken in the real cloud; just that step, and those that need it, fail."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
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
from tests.embedded.breaks import (
    disabled,
    made_anew,
    of,
    other_flavor,
    paused,
    placement_endpoint,
    placement_service,
    renamed,
    without_address,
    without_role,
    without_rule,
    without_service_roles,
)
from tests.embedded.guests import LOGIN_SECONDS
from tests.embedded.mutation import Break, Mend, Mutations, by_names, done_session, failed, find, in_guest, ssh

SESSION = load_session("session4")


@pytest.fixture(scope="module")
def done(running: Lab) -> Iterator[Workspace]:
    """The whole session, done."""
    yield done_session(running, "session4")
    reset(running, lambda detail: None)


def quota(service: str, **limits: tuple[int, int]) -> Break:
    """Another limit, and back."""

    def broken(desk: Workspace) -> Mend:
        path = ("quotas" if service == "network" else "os-quota-sets", find(desk, "project")["id"])
        key = "quota" if service == "network" else "quota_set"
        bodies = [{key: {name: values[index] for name, values in limits.items()}} for index in (0, 1)]
        desk.admin.put(service, *path, body=bodies[0])
        return lambda: desk.admin.put(service, *path, body=bodies[1])

    return broken


def without_gateway(desk: Workspace) -> Mend:
    """The router no longer leads to the subnet: its interface is gone (the floating IP must go first)."""
    router, mend_address = find(desk, "router"), without_address("floating-ip")(desk)
    body = {"subnet_id": router["subnets"][0]}
    desk.admin.put("network", "routers", router["id"], "remove_router_interface", body=body)

    def mend() -> None:
        desk.admin.put("network", "routers", router["id"], "add_router_interface", body=body)
        mend_address()

    return mend


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


def faulty(name: str) -> Break:
    """Broken on purpose, as `lab break` does it."""

    def broken(desk: Workspace) -> Mend:
        fault = desk.faults()[name]
        fault.inject(lambda detail: None)
        return lambda: fault.clear(lambda detail: None)

    return broken


BREAKS: dict[str, Break] = {
    "services": disabled("services", placement_service),
    "endpoints": disabled("endpoints", placement_endpoint),
    "service-users": without_service_roles,
    "project": disabled("projects", of("project")),
    "user": disabled("users", of("user")),
    "member": without_role,
    "quota": quota("network", network=(7, 2)),
    "over-quota": quota("block-storage", gigabytes=(500, 4)),
    "network": renamed("network", "networks", "network"),
    "subnet": renamed("network", "subnets", "subnet"),
    "router": without_gateway,
    "security-group": without_rule("icmp"),
    "key-pair": made_anew("key-pair"),
    "image": renamed("image", "images", "image"),
    "flavor": other_flavor,
    "server": paused("server"),
    "console": chattering,
    "floating-ip": without_address("floating-ip"),
    "login": locked_out,
    "volume": renamed("block-storage", "volumes", "volume"),
    "attachment": made_anew("attachment"),
    "admin-view": renamed("compute", "servers", "server"),
    "project-view": renamed("compute", "servers", "server"),
    "repair-httpd": faulty("httpd"),
    "repair-agent": faulty("selinux-q-agt"),
    "repair-network": faulty("network"),
    "repair-glance-full": faulty("glance-full"),
    "repair-password": faulty("wrong-password"),
    "repair-quota": faulty("quota"),
    "repair-compute": faulty("nova-compute"),
}


def changed(service: str, collection: str, step: str, wrong: dict[str, Any], right: dict[str, Any]) -> Break:
    """The thing is as declared, but for what is easily overlooked."""

    def broken(desk: Workspace) -> Mend:
        path, key = (collection, find(desk, step)["id"]), collection.removesuffix("s").replace("-", "_")
        desk.admin.put(service, *path, body={key: wrong})
        return lambda: desk.admin.put(service, *path, body={key: right})

    return broken


def other_password(desk: Workspace) -> Mend:
    """The user is there, and the lab's password does not let in."""

    def password(value: str) -> None:
        body = {"user": {"password": value}}
        desk.admin.request("PATCH", "identity", ("users", find(desk, "user")["id"]), body=body)

    password("another-one")
    return lambda: password(desk.secrets("learner"))


def administrator(desk: Workspace) -> Mend:
    """The learner has the role, and with it one that may do everything."""
    thing = find(desk, "member")
    admin = desk.admin.get("identity", "roles", name="admin")["roles"][0]["id"]
    path = ("projects", thing["project"], "users", thing["user"], "roles", admin)
    desk.admin.put("identity", *path, body=None)

    def mend() -> None:
        desk.admin.delete("identity", *path)

    return mend


def with_any_protocol(desk: Workspace) -> Mend:
    """Beside the two rules the group has one that lets in everything."""
    rule = {"security_group_id": find(desk, "security-group")["id"], "direction": "ingress", "ethertype": "IPv4"}
    made = desk.admin.post("network", "security-group-rules", body={"security_group_rule": rule})

    def mend() -> None:
        desk.admin.delete("network", "security-group-rules", made["security_group_rule"]["id"])

    return mend


def leading_nowhere(desk: Workspace) -> Mend:
    """The subnet has no gateway; as long as the router has an interface there, Neutron would not let it be taken away."""
    mend_router = without_gateway(desk)
    mend_subnet = changed("network", "subnets", "subnet", {"gateway_ip": None}, {"gateway_ip": "10.4.0.1"})(desk)

    def mend() -> None:
        mend_subnet()
        mend_router()

    return mend


def of_other_bytes(desk: Workspace) -> Mend:
    """An active image of that name and format holds something else."""
    image, right = find(desk, "image"), desk.admin.sdk.image
    right.update_image(image["id"], name="kept-aside")
    other = desk.learner.sdk.image.create_image(
        image["name"], data=bytes(1 << 16), disk_format="raw", container_format="bare", wait=True
    )

    def mend() -> None:
        right.delete_image(other.id)
        right.update_image(image["id"], name=image["name"])

    return mend


def with_swap(desk: Workspace) -> Mend:
    """A flavor with the three numbers, and swap and a second disk besides."""
    return other_flavor(desk, ram=256, swap=64, ephemeral=1)


LOOKS_RIGHT: dict[str, Break] = {
    "user": other_password,
    "member": administrator,
    "network": changed("network", "networks", "network", {"shared": True}, {"shared": False}),
    "subnet": leading_nowhere,
    "router": changed("network", "routers", "router", {"admin_state_up": False}, {"admin_state_up": True}),
    "security-group": with_any_protocol,
    "image": of_other_bytes,
    "flavor": with_swap,
}
"""What a glance would pass."""

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


@pytest.mark.parametrize("step", LOOKS_RIGHT)
def test_what_only_looks_right_fails_its_step(done: Workspace, step: str) -> None:
    mend = LOOKS_RIGHT[step](done)
    try:
        done.memory.clear()
        grade = check(done, [SESSION.step(step)]).grades[0]
    finally:
        mend()
    assert grade.status == "failed", grade


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
    assert report.counts()["unknown"] == len(report.grades)


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
