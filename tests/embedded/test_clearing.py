"""A reset without checkpoints, as the home ssh does it, tried on the embedded cloud: the learner's things go, and nothing else.

What cannot be had here is a DevStack at the other end of SSH; whatever the reset does, it does through OpenStack's APIs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stacklab.course.load import load_session
from stacklab.errors import UndoIncomplete
from stacklab.kinds.context import Workspace
from stacklab.lab import Lab
from stacklab.replay.apply import do_steps
from stacklab.replay.bringup import reset
from stacklab.replay.clear import CLEANER, PURPOSE, clear, what_goes
from stacklab.replay.current import home_of, journal_of, workspace_at
from tests.embedded.conftest import quiet
from tests.embedded.guests import PATIENCE
from tests.embedded.inventory import inventory
from tests.embedded.test_session4 import assert_becomes

# openstacksdk warns about what its own convenience layer does
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

SESSION = load_session("session4")


@pytest.fixture
def desk(running: Lab) -> Iterator[Workspace]:
    """A cloud at the start, with things in it that are none of the learner's."""
    reset(running, quiet)
    desk = workspace_at(home_of(running), running, SESSION, quiet)
    strangers_things(desk)
    yield desk
    reset(running, quiet)


def strangers_things(desk: Workspace) -> None:
    """In the project admin, and in one of somebody else's."""
    sdk: Any = desk.admin.sdk
    project = sdk.identity.create_project(name="stranger", domain_id="default")
    for owner in (None, project.id):
        more = {"project_id": owner} if owner else {}
        network = sdk.network.create_network(name="lab-net", **more)
        sdk.network.create_subnet(name="lab-subnet", network_id=network.id, cidr="10.7.0.0/24", ip_version=4, **more)
        sdk.network.create_router(name="attached-to-nothing", **more)
        sdk.network.create_security_group(name="lab-ssh", **more)
    sdk.block_storage.create_volume(name="lab-volume", size=1)
    sdk.image.create_image("lab-image", data=b"x", disk_format="raw", container_format="bare", wait=True)
    sdk.object_store.create_container("box")
    sdk.object_store.upload_object("box", "thing", data=b"kept")


def replay_to(lab: Lab, desk: Workspace, step: str) -> None:
    """Session 4 up to this step."""
    steps = list(SESSION.steps())
    wanted = steps[: [step.id for step in steps].index(step) + 1]
    do_steps(lab, desk, wanted, "rest", lambda shown: None)


def learners_things(desk: Workspace) -> None:
    """Made by hand, in every service, and such that one is in the other's way."""
    sdk: Any = desk.learner.sdk
    session_net = sdk.network.find_network("lab-net", ignore_missing=False)
    sdk.network.create_port(network_id=session_net.id, name="in-the-way")
    network = sdk.network.create_network(name="mine")
    subnet = sdk.network.create_subnet(name="mine", network_id=network.id, cidr="10.6.0.0/24", ip_version=4)
    router = sdk.network.create_router(name="mine")
    sdk.network.add_interface_to_router(router, subnet_id=subnet.id)
    sdk.network.create_router(name="alone")
    sdk.network.create_security_group(name="mine")
    public = sdk.network.find_network("public", ignore_missing=False)
    sdk.network.create_ip(floating_network_id=public.id)
    sdk.compute.create_keypair(name="mine")
    image = sdk.image.create_image("mine", data=b"x" * 4096, disk_format="raw", container_format="bare", wait=True)
    volume = sdk.block_storage.create_volume(name="mine", size=1)
    sdk.block_storage.wait_for_status(volume, "available", interval=0.3, wait=PATIENCE)
    flavor = sdk.compute.find_flavor("m1.nano", ignore_missing=False)
    server = sdk.compute.create_server(
        name="mine", flavor_id=flavor.id, image_id=image.id, networks=[{"uuid": network.id}]
    )
    server = sdk.compute.wait_for_server(server, interval=0.5, wait=PATIENCE)
    sdk.compute.create_volume_attachment(server, volume_id=volume.id)
    sdk.block_storage.wait_for_status(volume, "in-use", interval=0.3, wait=PATIENCE)
    sdk.object_store.create_container("mine")
    sdk.object_store.upload_object("mine", "thing", data=b"gone")


def go(lab: Lab, progress: Any = quiet) -> None:
    """The reset of a home without checkpoints."""
    with lab.writing():
        clear(lab, home_of(lab), progress)


def cleaners(desk: Workspace) -> list[Any]:
    """Users that the reset has made."""
    users: list[Any] = desk.admin.get("identity", "users", name=CLEANER)["users"]
    return users


def test_the_learner_s_things_go_and_nothing_else(running: Lab, desk: Workspace) -> None:
    before = inventory(desk.admin)
    replay_to(running, desk, "security-group")
    learners_things(desk)
    # Whoever is an administrator anywhere sees other projects' routers in lists, and must not make us remove them.
    identity: Any = desk.admin.sdk.identity
    identity.assign_project_role_to_user(desk.learner.project_id, desk.learner.user_id, identity.find_role("admin"))
    going = "\n".join(what_goes(running, home_of(running)))
    mine = (
        "server mine",
        "volume mine",
        "image mine",
        "network mine",
        "router alone",
        "key pair mine",
        "session4/router",
    )
    assert [thing for thing in mine if thing not in going] == []
    assert "attached-to-nothing" not in going
    assert "stranger" not in going

    go(running)
    assert_becomes(desk.admin, before)
    assert journal_of(running).sessions() == []
    assert desk.admin.sdk.object_store.download_object("thing", container="box") == b"kept"
    assert cleaners(desk) == []
    assert what_goes(running, home_of(running)) == []


def test_a_project_that_the_learner_made_stays_emptied(running: Lab, desk: Workspace) -> None:
    sdk: Any = desk.admin.sdk
    project = sdk.identity.create_project(name="lab-project", domain_id="default")
    network = sdk.network.create_network(name="by-hand", project_id=project.id)
    go(running)
    assert sdk.identity.find_project("lab-project") is not None
    assert desk.admin.gone("network", "networks", network.id)


def test_interrupted_half_way_the_same_goes_on(running: Lab, desk: Workspace) -> None:
    before = inventory(desk.admin)
    replay_to(running, desk, "security-group")
    desk.learner.sdk.network.create_network(name="mine")

    def cut_off(detail: str) -> None:
        if detail.startswith("removing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(running, cut_off)
    # What kill -9 leaves besides: somebody with a password that nobody knows.
    user = {"name": CLEANER, "domain_id": "default", "description": PURPOSE}
    desk.admin.post("identity", "users", body={"user": user})
    go(running)
    assert_becomes(desk.admin, before)
    assert cleaners(desk) == []


def test_what_cannot_go_is_named_and_the_next_time_it_goes(
    running: Lab, desk: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stacklab.replay.clear.PAUSE", 0.1)
    before = inventory(desk.admin)
    replay_to(running, desk, "member")
    sdk: Any = desk.learner.sdk
    image = sdk.image.create_image(
        "locked", data=b"x", disk_format="raw", container_format="bare", wait=True, is_protected=True
    )
    with pytest.raises(UndoIncomplete, match="image locked"):
        go(running)
    assert journal_of(running).sessions() == ["session4"], "the learner and the project stay until all else is gone"
    sdk.image.update_image(image, is_protected=False)
    go(running)
    assert_becomes(desk.admin, before)
