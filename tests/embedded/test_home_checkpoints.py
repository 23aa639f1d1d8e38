"""The hot reset: cloud and files go back while the services run, and nothing remembers what is gone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import keystoneauth1.exceptions
import openstack
import pytest

from stacklab.course.load import load_session
from stacklab.errors import CheckpointMissing, NotEnoughSpace, UnknownName
from stacklab.homes.embedded import mirror, supervision
from stacklab.homes.embedded.home import EmbeddedHome
from stacklab.homes.plan import Plan
from stacklab.replay.bringup import bring_up as lab_up
from stacklab.replay.moving import go_back
from tests.embedded.conftest import connect, quiet
from tests.embedded.guests import PATIENCE
from tests.measure import measured

# openstacksdk warns about what its own convenience layer does
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


def learner(home: EmbeddedHome, admin: Any) -> Any:
    project = admin.identity.create_project(name="lab-project", domain_id="default")
    user = admin.identity.create_user(name="learner", domain_id="default", password=home.lab.secret("learner"))
    admin.identity.assign_project_role_to_user(project, user, admin.identity.find_role("member"))
    return next(connect(home, "lab-learner"))


def work(home: EmbeddedHome, admin: Any, source: Path) -> Any:
    """What a session leaves behind, in every service; the server."""
    cloud = learner(home, admin)
    image = cloud.image.create_image(name="picture", filename=str(source), disk_format="raw", container_format="bare")
    network = cloud.network.create_network(name="net")
    cloud.network.create_subnet(name="subnet", network_id=network.id, cidr="10.0.0.0/24", ip_version=4)
    volume = cloud.block_storage.create_volume(name="volume", size=1)
    flavor = cloud.compute.find_flavor("m1.nano")
    server = cloud.compute.create_server(
        name="server", flavor_id=flavor.id, image_id=image.id, networks=[{"uuid": network.id}]
    )
    server = cloud.compute.wait_for_server(server, interval=0.3, wait=PATIENCE)
    cloud.block_storage.wait_for_status(volume, "available", interval=0.2, wait=PATIENCE)
    cloud.object_store.create_container("box")
    cloud.object_store.upload_object("box", "thing", data=b"x" * 10000)
    assert cloud.compute.get("/limits").json()["limits"]["absolute"]["totalInstancesUsed"] == 1
    return server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "picture.raw"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


def everything(admin: Any) -> dict[str, list[str]]:
    return {
        "projects": sorted(project.name for project in admin.identity.projects()),
        "users": sorted(user.name for user in admin.identity.users()),
        "images": [image.name for image in admin.image.images()],
        "networks": [network.name for network in admin.network.networks()],
        "volumes": [volume.name for volume in admin.block_storage.volumes(all_projects=True)],
        "servers": [server.name for server in admin.compute.servers(all_projects=True)],
    }


def test_the_same_names_can_be_made_again_and_no_quota_is_used(fresh: EmbeddedHome, admin: Any, source: Path) -> None:
    before = everything(admin)
    for _ in range(2):
        work(fresh, admin, source)
        fresh.checkpoints.restore("start", quiet)
        assert everything(admin) == before
        for part in ("images", "volumes"):
            assert list((fresh.layout.home / part).iterdir()) == []
        assert not list(fresh.layout.instances.glob("*-*"))
        for provider in admin.placement.resource_providers():
            answer = admin.placement.get(f"/resource_providers/{provider.id}/allocations").json()
            assert answer["allocations"] == {}
            usages = admin.placement.get(f"/resource_providers/{provider.id}/usages").json()["usages"]
            assert set(usages.values()) == {0}


def test_services_keep_running_over_a_restore(fresh: EmbeddedHome) -> None:
    before = [(service.name, service.pid) for service in supervision.services(fresh.layout)]
    with measured("the embedded cloud back to its start"):
        fresh.checkpoints.restore("start", quiet)
    assert [(service.name, service.pid) for service in supervision.services(fresh.layout)] == before


def test_a_learners_data_comes_back_as_it_was(fresh: EmbeddedHome, admin: Any, source: Path) -> None:
    image = admin.image.create_image(name="kept", filename=str(source), disk_format="raw", container_format="bare")
    volume = admin.block_storage.create_volume(name="kept", size=1)
    admin.block_storage.wait_for_status(volume, "available", interval=0.2, wait=PATIENCE)
    file = fresh.layout.home / "volumes" / f"volume-{volume.id}"
    with file.open("r+b") as disk:
        disk.seek(300 << 20)
        disk.write(b"important")
    admin.object_store.create_container("kept")
    admin.object_store.upload_object("kept", "thing", data=b"important")

    fresh.checkpoints.save("mine", quiet)
    admin.image.delete_image(image)
    with file.open("r+b") as disk:
        disk.seek(300 << 20)
        disk.write(b"destroyed")
    admin.object_store.delete_object("thing", container="kept")
    admin.object_store.delete_container("kept")
    fresh.checkpoints.restore("mine", quiet)

    assert admin.image.download_image(image).content == source.read_bytes()
    with file.open("rb") as disk:
        disk.seek(300 << 20)
        assert disk.read(9) == b"important"
    assert file.stat().st_size == 1 << 30
    assert file.stat().st_blocks * 512 < 8 << 20, "a sparse file came back inflated"
    assert admin.object_store.download_object("thing", container="kept") == b"important"
    assert fresh.checkpoints.names() == ["mine", "start"]


def test_a_reset_in_the_middle_of_work_leaves_nothing_of_it(fresh: EmbeddedHome, admin: Any, source: Path) -> None:
    image = admin.image.create_image(name="picture", filename=str(source), disk_format="raw", container_format="bare")
    network = admin.network.create_network(name="net")
    admin.network.create_subnet(name="subnet", network_id=network.id, cidr="10.0.0.0/24", ip_version=4)
    flavor = admin.compute.find_flavor("m1.nano")
    for number in range(3):
        admin.compute.create_server(
            name=f"server-{number}", flavor_id=flavor.id, image_id=image.id, networks=[{"uuid": network.id}]
        )
    fresh.checkpoints.restore("start", quiet)
    assert everything(admin)["servers"] == []
    assert supervision.guests(fresh.layout) == []
    assert [port.device_owner for port in admin.network.ports() if "compute" in port.device_owner] == []
    work(fresh, admin, source)


def test_a_reset_sees_a_launch_that_was_accepted_and_has_not_begun(fresh: EmbeddedHome) -> None:
    with closing(sqlite3.connect(fresh.layout.db / "nova_api.db")) as database, database:
        database.execute("INSERT INTO build_requests (project_id) VALUES ('somebody')")
    said: list[str] = []
    fresh.checkpoints.restore("start", said.append)
    assert "nova is at work; ending it" in said


def test_an_instance_that_ran_at_the_checkpoint_runs_again(fresh: EmbeddedHome, admin: Any, source: Path) -> None:
    if not fresh.access().hypervisor.there:
        pytest.skip(fresh.access().hypervisor.why)
    server = work(fresh, admin, source)
    fresh.checkpoints.save("running", quiet)
    admin.compute.delete_server(server)
    admin.compute.wait_for_delete(server, interval=0.2, wait=PATIENCE)
    fresh.checkpoints.restore("running", quiet)
    again = admin.compute.get_server(server.id)
    assert (again.status, again.name) == ("ACTIVE", "server")
    way = fresh.access().ssh_endpoint(server.id)
    assert way is None or way.host == "127.0.0.1"


def test_quick_work_after_a_reset_meets_no_stale_cache(fresh: EmbeddedHome, admin: Any) -> None:
    for _ in range(3):
        cloud = learner(fresh, admin)
        assert cloud.identity.get_project(cloud.current_project_id).name == "lab-project"
        cloud.network.create_network(name="net")
        fresh.checkpoints.restore("start", quiet)
        assert admin.identity.find_project("lab-project") is None
        with pytest.raises((openstack.exceptions.HttpException, keystoneauth1.exceptions.Unauthorized)):
            list(cloud.network.networks())  # the learner's token is for a user who is gone


def test_an_unknown_checkpoint_is_refused(home: EmbeddedHome) -> None:
    with pytest.raises(CheckpointMissing, match="no checkpoint 'never'"):
        home.checkpoints.restore("never", quiet)
    with pytest.raises(UnknownName):
        home.checkpoints.restore("../start", quiet)


def test_a_full_disk_keeps_the_old_checkpoint(fresh: EmbeddedHome, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.checkpoints.save("mine", quiet)
    before = fresh.saved.verify("mine")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mirror, "mirror", full)
        with pytest.raises(NotEnoughSpace):
            fresh.checkpoints.save("mine", quiet)
    assert fresh.saved.verify("mine") == before
    assert not [path for path in fresh.layout.checkpoints.iterdir() if path.name.startswith(".")]


def test_a_reset_that_was_cut_off_is_finished_by_the_next_up(
    fresh: EmbeddedHome, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.network.create_network(name="leftover")

    def cut_off(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mirror, "mirror", cut_off)
        with pytest.raises(KeyboardInterrupt):
            go_back(fresh.lab, fresh, "start", quiet)
    lab_up(fresh.lab, load_session("session4"), Plan(home="embedded"), None, lambda event: None)
    assert fresh.lab.record.restoring is None
    assert [network.name for network in admin.network.networks()] == ["public"]
