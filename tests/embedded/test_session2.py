"""Session 2 on a real cloud: the tour, three ways to one list, a streamed image, objects, a volume that outlives its server."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stacklab.course.load import load_session
from stacklab.course.session import Step
from stacklab.errors import CloudRefused
from stacklab.kinds import KINDS
from stacklab.kinds.component import ComponentParams, version_address
from stacklab.kinds.context import Workspace
from stacklab.kinds.declaration import AssetRef
from stacklab.lab import Lab
from stacklab.replay.apply import apply_step
from stacklab.replay.bringup import reset
from stacklab.replay.check import check
from stacklab.replay.current import home_of, journal_of, workspace_at
from stacklab.replay.narrate import narrate
from stacklab.replay.undo import dependants, undo
from stacklab.replay.vias import do
from tests.embedded.breaks import (
    disabled,
    done_anew,
    made_anew,
    of,
    other_flavor,
    placement_endpoint,
    placement_service,
    renamed,
    without_address,
    without_role,
    without_rule,
    without_service_roles,
)
from tests.embedded.guests import PATIENCE
from tests.embedded.inventory import inventory, outline
from tests.embedded.mutation import Break, Mend, Mutations, applicable, by_names, failed, find, in_guest
from tests.embedded.test_session4 import assert_becomes

SESSION = load_session("session2")
ONCE = {"by-client", "by-dashboard", "read", "large-object"}
"""Steps whose check takes seconds: looked at where they are meant, and all together at the end."""
TOGETHER = ("first-server", "first-address", "first-attachment", "write", "first-gone")
"""One fact: a server of that name was there, and is deleted."""


def open_workspace(lab: Lab) -> Workspace:
    """The lab's cloud, opened for session 2."""
    return workspace_at(home_of(lab), lab, SESSION, lambda text: None)


@pytest.fixture(scope="module")
def outlines(running: Lab) -> dict[str, Any]:
    """What each way of doing the session left, as far as the second server; filled as the tests go."""
    return {}


@pytest.fixture(scope="module")
def done(running: Lab, outlines: dict[str, Any]) -> Iterator[Workspace]:
    """The whole session, done."""
    reset(running, lambda detail: None)
    desk = open_workspace(running)
    outlines["before"] = inventory(desk.admin)
    for step in SESSION.steps():
        if step.id == "second-server":
            outlines["rest"] = outline(desk.admin)
        apply_step(desk, journal_of(running), step, "rest")
    yield desk
    reset(running, lambda detail: None)


# --- grading by mutation -------------------------------------------------------------------------------------------


def elsewhere(kind: str, address: Callable[[Workspace], str], interface: str = "public") -> Break:
    """The catalogue sends everybody who asks for this type of service to another address."""

    def broken(desk: Workspace) -> Mend:
        service = next(
            service for service in desk.admin.get("identity", "services")["services"] if service["type"] == kind
        )
        query = {"service_id": service["id"], "interface": interface}
        endpoint = desk.admin.get("identity", "endpoints", **query)["endpoints"][0]
        path = ("endpoints", endpoint["id"])
        desk.admin.request("PATCH", "identity", path, body={"endpoint": {"url": address(desk)}})

        def mend() -> None:
            desk.admin.request("PATCH", "identity", path, body={"endpoint": {"url": endpoint["url"]}})

        return mend

    return broken


def nowhere(desk: Workspace) -> str:
    """The discard port: nobody listens there."""
    return "http://127.0.0.1:9/"


def horizon_page(desk: Workspace) -> str:
    """An address that answers, but not with versions."""
    return f"{desk.access.dashboard}auth/login"


def glance(desk: Workspace) -> str:
    """An address that answers with versions, but knows no networks."""
    return version_address(desk.admin.endpoint("image"))


def without_horizon(desk: Workspace) -> Mend:
    """Horizon's address is one where nobody answers."""
    access = desk.access
    desk.access = replace(access, dashboard=nowhere(desk))

    def mend() -> None:
        desk.access = access

    return mend


def relogin(broken: Break) -> Break:
    """Break what ends the learner's tokens, and let them log in again afterwards: Keystone counts in whole seconds."""

    def act(desk: Workspace) -> Mend:
        mend = broken(desk)

        def mended() -> None:
            mend()
            time.sleep(1.1)
            desk.learner.forget()

        return mended

    return act


def stored(*path: str, data: bytes = b"", headers: dict[str, str] | None = None, verb: str = "PUT") -> Break:
    """Something is written into the learner's account; mended by doing the step anew."""

    def broken(desk: Workspace) -> Mend:
        where = desk.learner.address("object-store", "tour-box", *path)
        desk.learner.fetch(verb, where, headers=headers, data=data)
        step = {(): "container", ("keys/lab-key.pub",): "object"}.get(path)

        def mend() -> None:
            if step is None:
                desk.learner.fetch("DELETE", where)
            else:
                done_anew(desk, step)

        return mend

    return broken


def object_deleted(desk: Workspace) -> Mend:
    """The object is gone, and so not listed."""
    desk.learner.fetch("DELETE", desk.learner.address("object-store", "tour-box", "keys/lab-key.pub"))
    return lambda: done_anew(desk, "object")


def in_one_piece(desk: Workspace) -> Mend:
    """The large object is the same bytes, but not in segments."""
    step = SESSION.step("large-object")
    where = desk.learner.address("object-store", "tour-box", "images/guest.img")
    with desk.context(step).asset(step.params.source).path.open("rb") as data:  # type: ignore[attr-defined]
        desk.learner.fetch("PUT", where, data=data)
    return lambda: done_anew(desk, "large-object")


def wiped(desk: Workspace) -> Mend:
    """Somebody writes over the beginning of the volume."""
    in_guest(desk, "read", "head -c 24 /dev/zero | sudo dd of=/dev/vdb conv=fsync,notrunc")
    return lambda: in_guest(desk, "read", "echo 'this outlives its server' | sudo dd of=/dev/vdb conv=fsync,notrunc")


def another_first(desk: Workspace) -> Mend:
    """A server of the first one's name lives, so that one is not gone; and it is not the one that was declared."""
    server, volume = find(desk, "second-server"), find(desk, "volume")
    compute = desk.learner.sdk.compute
    flavor = compute.find_flavor("m1.nano", ignore_missing=False).id
    network = find(desk, "network")["id"]
    other = compute.create_server(
        name="tour-first", image_id=server["image"]["id"], flavor_id=flavor, networks=[{"uuid": network}]
    )
    assert volume["status"] == "in-use"

    def mend() -> None:
        compute.delete_server(other)
        compute.wait_for_delete(other, wait=PATIENCE)

    return mend


BREAKS: dict[str, Break] = {
    "project": relogin(disabled("projects", of("project"))),
    "user": relogin(disabled("users", of("user"))),
    "member": relogin(without_role),
    "services": disabled("services", placement_service),
    "endpoints": disabled("endpoints", placement_endpoint),
    "service-users": without_service_roles,
    "keystone": elsewhere("identity", nowhere),
    "glance": elsewhere("image", horizon_page),
    "nova": elsewhere("compute", nowhere),
    "placement": disabled("services", placement_service),
    "neutron": elsewhere("network", horizon_page),
    "cinder": elsewhere("block-storage", nowhere),
    "swift": elsewhere("object-store", nowhere),
    "horizon": without_horizon,
    "network": renamed("network", "networks", "network"),
    "by-http": elsewhere("network", glance),
    "by-client": elsewhere("network", glance),
    "by-dashboard": elsewhere(
        "network", glance, "internal"
    ),  # Horizon is at home in the cloud, so that is what it asks
    "image": renamed("image", "images", "image"),
    "container": stored(headers={"X-Container-Meta-Course": "another"}, verb="POST"),
    "object": stored("keys/lab-key.pub", data=b"another key"),
    "listing": object_deleted,
    "large-object": in_one_piece,
    "deletion": stored("drafts/letter", data=b"back again"),
    "subnet": renamed("network", "subnets", "subnet"),
    "router": renamed("network", "routers", "router"),
    "security-group": without_rule("tcp"),
    "key-pair": made_anew("key-pair"),
    "flavor": other_flavor,
    "volume": renamed("block-storage", "volumes", "volume"),
    "second-server": renamed("compute", "servers", "second-server"),
    "second-address": without_address("second-address"),
    "second-attachment": made_anew("second-attachment"),
    "read": wiped,
}

SHARED: dict[str, set[str]] = {
    # What these steps are about, other steps are about, too, so breaking it breaks both.
    "endpoints": {"placement"},
    "placement": {"services", "endpoints"},
    "services": {"endpoints"},
    "by-http": {"by-client"},
    "by-client": {"by-http"},
    "listing": {"object"},
}


def test_every_step_that_makes_sense_here_has_its_mutation(done: Workspace) -> None:
    assert set(BREAKS) | set(TOGETHER) == applicable(done)


MUTATIONS = Mutations(SESSION, BREAKS, SHARED, slow=ONCE)


@pytest.mark.parametrize("steps", MUTATIONS.rounds(), ids=by_names)
def test_breaking_what_steps_declare_fails_them_and_only_what_needs_them(
    done: Workspace, steps: tuple[str, ...]
) -> None:
    MUTATIONS.assert_noticed(done, steps)


def test_a_first_server_that_lives_is_not_gone_and_nothing_that_it_was_for_counts(done: Workspace) -> None:
    mend = another_first(done)
    try:
        found = failed(done, ONCE)
    finally:
        mend()
    assert set(TOGETHER) <= set(found)
    assert all(found[step].startswith("failed") for step in TOGETHER), found
    assert set(found) <= dependants(SESSION, [SESSION.step("first-server")]), found


def test_after_all_mutations_everything_is_as_it_was(done: Workspace) -> None:
    assert failed(done) == {}


# --- the tour ------------------------------------------------------------------------------------------------------

OPTIONAL = [
    step for step in SESSION.steps() if step.kind.name == "component" and step.exercise in ("adopted", "others")
]


@pytest.mark.parametrize("step", [step for step in OPTIONAL if step.id != "horizon"], ids=lambda step: str(step.id))
def test_an_optional_project_is_told_how_to_switch_on_fails_when_it_is_silent_and_passes_when_it_answers(
    running: Lab, step: Step
) -> None:
    desk = open_workspace(running)
    grade = check(desk, [step]).grades[0]
    assert grade.status == "not_applicable"
    assert "lab up session2" in grade.actual or "no profile of lab serves it" in grade.actual
    kind = step.params.types[0]  # type: ignore[attr-defined]
    service = desk.admin.post("identity", "services", body={"service": {"type": kind, "name": step.id}})["service"]
    try:
        assert check(desk, [step]).grades[0].status == "failed"  # registered, but nowhere to go
        body = {"service_id": service["id"], "interface": "public", "region_id": "RegionOne", "url": nowhere(desk)}
        endpoint = desk.admin.post("identity", "endpoints", body={"endpoint": body})["endpoint"]
        assert check(desk, [step]).grades[0].status == "failed"  # nobody answers there
        answers = {"endpoint": {"url": f"{glance(desk)}v1/$(project_id)s"}}
        desk.admin.request("PATCH", "identity", ("endpoints", endpoint["id"]), body=answers)
        assert check(desk, [step]).grades[0].status == "passed"
    finally:
        desk.admin.delete("identity", "services", service["id"])


def test_a_required_project_that_nobody_registered_fails(running: Lab) -> None:
    desk = open_workspace(running)
    scene = desk.context(SESSION.step("nova"))
    params = ComponentParams(name="Nothing", types=["nothing"], required=True)
    assert KINDS["component"].applicable(scene, params) is None
    answer = KINDS["component"].find(scene, params)
    assert answer is not None
    assert answer[1][0].expected == "a service of type nothing"


# --- three ways ----------------------------------------------------------------------------------------------------


def test_the_curl_lines_typed_into_a_shell_get_a_token_and_the_list(done: Workspace, running: Lab) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed; to enable this test run: scripts/system-packages test")
    step = SESSION.step("by-http")
    lines = narrate(done, done.offline(step), step)["requests"]
    password = running.secret("learner")
    assert password not in "".join(lines)
    typed = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        env={**os.environ, "LEARNER_PASSWORD": password},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "tour-net" in {network["name"] for network in json.loads(typed.stdout)["networks"]}, typed.stderr


def test_the_client_is_seen_to_ask_keystone_first_and_then_the_address_of_its_catalogue(done: Workspace) -> None:
    step = SESSION.step("by-client")
    told: list[str] = []
    done.say = told.append
    do(done.context(step), step, "rest")
    asked = [line.removeprefix("it asked: ") for line in told if line.startswith("it asked")]
    assert asked[0].startswith(f"GET {done.admin.auth_url}")
    assert f"POST {done.admin.auth_url}/auth/tokens" in asked
    assert asked[-1] == f"GET {done.admin.endpoint('network')}/networks"


@pytest.mark.parametrize("by", ["by-http", "by-dashboard"])
def test_a_wrong_password_is_a_failure_and_not_an_unknown(done: Workspace, by: str) -> None:
    secrets = done.secrets
    done.secrets = lambda name: "wrong"
    try:
        grade = check(done, [SESSION.step(by)]).grades[0]
    finally:
        done.secrets = secrets
    assert grade.status == "failed"
    assert "wrong" not in grade.actual


# --- objects and images --------------------------------------------------------------------------------------------


def test_what_arrives_damaged_is_refused_by_swift(done: Workspace) -> None:
    where = done.learner.address("object-store", "tour-box", "damaged")
    with pytest.raises(CloudRefused) as refused:
        done.learner.fetch("PUT", where, headers={"ETag": "0" * 32}, data=b"these are not zeros")
    assert refused.value.status == 422
    assert not any(line.startswith("tour-box/damaged") for line in outline(done.admin)["objects"])


def test_an_image_that_a_broken_pipe_cut_off_fails_though_it_is_active(done: Workspace) -> None:
    learner, step = done.learner, SESSION.step("image")
    whole = find(done, "image")
    done.admin.sdk.image.update_image(whole["id"], name="kept-aside")
    body = {"name": "tour-image", "disk_format": whole["disk_format"], "container_format": "bare"}
    part = learner.post("image", "images", body=body | {"os_type": "linux", "hypervisor_type": "qemu"})["id"]
    # A real beginning: Glance of today looks at the first bytes, and refuses what is not of the format that is declared.
    with gzip.open(done.context(step).asset(AssetRef(asset="compressed-image")).path) as file:
        beginning = file.read(MIB)
    raw = {"Content-Type": "application/octet-stream"}
    learner.fetch("PUT", learner.address("image", "images", part, "file"), headers=raw, data=beginning)
    done.memory.clear()
    grade = check(done, [step]).grades[0]
    learner.delete("image", "images", part)
    done.admin.sdk.image.update_image(whole["id"], name="tour-image")
    assert grade.status == "failed"
    assert "MD5 of the expanded image" in grade.actual


# --- last, since they begin anew -----------------------------------------------------------------------------------


def test_the_client_leaves_the_same_cloud_which_another_replay_does_not_change_and_undo_puts_back(
    done: Workspace, running: Lab, outlines: dict[str, Any]
) -> None:
    reset(running, lambda detail: None)
    desk = open_workspace(running)
    steps = list(SESSION.steps())
    steps = steps[: [step.id for step in steps].index("second-server")]
    for step in steps:
        # A look is the same request whatever the way, and costs the client a second each time; the first one stands for all.
        if step.kind.leaves or step.id in ("services", "keystone", "listing", "deletion"):
            apply_step(desk, journal_of(running), step, "cli")
    assert outline(desk.admin) == outlines["rest"]

    made = inventory(desk.admin)
    lasting = [step for step in steps if step.kind.lasting(step.params)]
    again = {step.id: apply_step(desk, journal_of(running), step, "rest").outcome for step in lasting}
    assert "done" not in again.values(), again
    assert inventory(desk.admin) == made
    undo(desk, journal_of(running), steps, lambda step, detail: None)
    assert_becomes(desk.admin, outlines["before"])
    assert journal_of(running).entries("session2") == {}


MIB = 1 << 20
EXPANDED = 256
"""MiB. Far more than any of the processes may take, and what Glance's store has to hold (this home's writes all of it)."""
MEMORY = 160
WRITTEN = 16
STREAM = """\
session: stream
title: A stream
summary: One image.
exercises:
  - id: only
    title: Only
    say: One.
    steps:
      - id: image
        kind: image
        as: admin
        say: A disk of zeros.
        hint: None.
        with: {{name: zeros, source: {{file: {file}}}, unpack: gzip, disk_format: raw, properties: {{os_type: linux}}}}
"""


@pytest.mark.parametrize("via", ["rest", "cli"])
def test_a_compressed_image_is_streamed_without_being_expanded_in_memory_or_on_disk(
    running: Lab, tmp_path: Path, via: str
) -> None:
    packed = tmp_path / "zeros.gz"
    with gzip.open(packed, "wb", 1) as file:
        for _ in range(EXPANDED):
            file.write(bytes(MIB))
    folder = tmp_path / "labs" / "stream"
    folder.mkdir(parents=True)
    (folder / "session.yaml").write_text(STREAM.format(file=packed), encoding="utf-8")
    argv = [sys.executable, "-m", "tests.embedded.streaming", running.name, str(folder.parent), "stream", "image", via]
    ended = subprocess.run(
        argv, capture_output=True, text=True, timeout=300, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    admin = open_workspace(running).admin
    made = admin.get("image", "images", name="zeros")["images"]
    for image in made:
        admin.delete("image", "images", image["id"])
    reset(running, lambda detail: None)
    assert ended.returncode == 0, ended.stderr
    took = json.loads(ended.stdout)
    assert [image["size"] for image in made] == [EXPANDED * MIB]
    assert took["own"] < MEMORY * MIB, took
    assert took["children"] < MEMORY * MIB, took
    assert took["written"] < WRITTEN * MIB, took
    if not took["counted"]:
        pytest.skip("this kernel or file system does not count what a process writes; memory was measured")
