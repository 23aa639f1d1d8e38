"""`lab up`: a real cloud, private to its lab, on loopback only, with what every session counts on."""

from __future__ import annotations

import json
import sqlite3
import stat
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stacklab.cli.main import run
from stacklab.homes.embedded import supervision
from stacklab.homes.embedded.home import EmbeddedHome
from stacklab.homes.embedded.services import SERVICES, USERS
from stacklab.lab import Lab
from tests.embedded.conftest import bring_up, quiet
from tests.embedded.guests import PATIENCE

# openstacksdk warns about what its own convenience layer does
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


def pids(home: EmbeddedHome) -> dict[str, int | None]:
    return {service.name: service.pid for service in supervision.services(home.layout)}


def processes(home: EmbeddedHome) -> list[int]:
    supervisor = supervision.supervisor_pid(home.layout)
    assert supervisor
    return [supervisor, *(pid for pid in pids(home).values() if pid)]


def listening(pid: int) -> set[tuple[str, int]]:
    """Local addresses (hexadecimal, as the kernel tells them) and ports of the process's listening TCP sockets."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and columns[9] in inodes:
                address, _, port = columns[1].partition(":")
                addresses.add((address, int(port, 16)))
    return addresses


def test_every_service_is_running(home: EmbeddedHome) -> None:
    status = home.status()
    assert status.state == "running"
    assert {service.name: service.state for service in status.services} == dict.fromkeys(pids(home), "running")
    assert all(service.memory and service.log for service in status.services)


def test_a_second_up_changes_nothing(home: EmbeddedHome) -> None:
    before = pids(home)
    ended = bring_up(home)
    assert pids(home) == before
    assert [name for name, event in ended.items() if event.outcome != "already"] == ["ready"]


def test_nothing_listens_but_the_services_own_ports_on_loopback(home: EmbeddedHome) -> None:
    ports = json.loads((home.layout.run / "cloud.json").read_text())["ports"]
    sockets = {found for pid in processes(home) for found in listening(pid)}
    assert sockets == {("0100007F", ports[service.name]) for service in SERVICES}  # 127.0.0.1


def test_swifts_servers_that_check_no_tokens_are_out_of_reach_of_other_users(home: EmbeddedHome) -> None:
    for kind in ("account", "container", "object"):
        mode = (home.layout.run / f"swift-{kind}.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600


def test_no_secret_is_in_an_argument_list(home: EmbeddedHome) -> None:
    secrets = home.lab.secrets()
    for pid in processes(home):
        arguments = Path(f"/proc/{pid}/cmdline").read_text()
        assert not [secret for secret in secrets if secret in arguments]


def test_files_that_hold_secrets_are_private(home: EmbeddedHome) -> None:
    assert stat.S_IMODE(home.layout.home.stat().st_mode) == 0o700
    secrets = [secret.encode() for secret in home.lab.secrets()]
    for path in (home.layout.conf, home.layout.run):
        for file in path.rglob("*"):
            if file.is_file() and any(secret in file.read_bytes() for secret in secrets):
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    for key in (home.layout.home / "keys").rglob("?"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600, key


def test_no_secret_is_in_a_log(home: EmbeddedHome) -> None:
    for log in home.logs(None).values():
        text = Path(log.where).read_text(errors="replace")
        assert not [secret for secret in home.lab.secrets() if secret in text], log.where


def test_the_cloud_begins_with_what_the_sessions_count_on(admin: Any) -> None:
    flavors = {flavor.name: (flavor.ram, flavor.disk) for flavor in admin.compute.flavors()}
    assert flavors["m1.nano"] == (64, 1)
    assert flavors["m1.tiny"] == (512, 1)
    assert flavors["m1.small"] == (2048, 20)
    public = admin.network.find_network("public")
    assert public.is_router_external
    subnet = admin.network.get_subnet(public.subnet_ids[0])
    assert (subnet.cidr, subnet.gateway_ip, subnet.is_dhcp_enabled) == ("172.24.4.0/24", "172.24.4.1", False)
    service = admin.identity.find_project("service", domain_id="default")
    assert {user.name for user in admin.identity.users()} >= {*USERS, "admin"}
    assert service is not None
    assert {role.name for role in admin.identity.roles()} >= {"admin", "member", "reader", "service"}
    assert {service.type for service in admin.identity.services()} == {
        "identity", "image", "placement", "compute", "network", "block-storage", "object-store",
    }  # fmt: skip


def test_a_volume_type_is_the_default(admin: Any) -> None:
    volume = admin.block_storage.create_volume(name="probe", size=1)
    try:
        assert volume.volume_type == "lab"
        admin.block_storage.wait_for_status(volume, "available", interval=0.2, wait=PATIENCE)
    finally:
        admin.block_storage.delete_volume(volume)


def test_two_labs_share_no_secret(home: EmbeddedHome, own_home: EmbeddedHome) -> None:
    own_home.cloud.make(quiet)
    assert not {*home.lab.secrets()} & {*own_home.lab.secrets()}
    assert set(home.cloud.ports.values()).isdisjoint(own_home.cloud.ports.values())
    for name in ("fernet/0", "fernet/1", "credential/0", "credential/1"):
        mine, other = (each.layout.home / "keys" / name for each in (home, own_home))
        assert mine.read_bytes() != other.read_bytes()
    hashes = [
        {
            row[0]
            for row in sqlite3.connect(each.layout.db / "keystone.db").execute("SELECT password_hash FROM password")
        }
        for each in (home, own_home)
    ]
    assert hashes[0].isdisjoint(hashes[1])


def test_the_clouds_file_has_the_learner_before_the_user_exists(home: EmbeddedHome) -> None:
    access = home.access()
    clouds = json.loads(access.clouds_file.read_text())["clouds"]
    assert clouds[access.learner]["auth"]["password"] == home.lab.secret("learner")
    assert stat.S_IMODE(access.clouds_file.stat().st_mode) == 0o600


@pytest.mark.parametrize(("words", "lets_in"), [([], False), (["--admin"], True)])
def test_a_login_that_does_not_work_yet_is_told_beside_its_password(
    running: Lab, fresh: EmbeddedHome, words: list[str], lets_in: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--lab", running.name, "password", "--json", *words]) == 0
    told = capsys.readouterr()
    login = json.loads(told.out)
    assert login["password"] == fresh.lab.secret("admin" if lets_in else "learner")
    assert ("session4/project" in told.err) is not lets_in
    assert login["password"] not in told.err


def test_the_dashboards_login_page_and_its_static_files_are_served(home: EmbeddedHome) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    dashboard = home.access().dashboard
    assert dashboard
    page = opener.open(f"{dashboard}auth/login/", timeout=30).read().decode()
    files = {file for part in page.split('"/static/')[1:] if "." in (file := part.split('"')[0])}
    assert len(files) > 3
    for file in files:
        with opener.open(f"{dashboard}static/{file}", timeout=30) as answer:
            assert answer.status == 200


def test_static_files_do_not_lead_out_of_their_directory(home: EmbeddedHome) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", home.cloud.ports["horizon"], timeout=30)
    connection.request("GET", "/static/../bin/python")
    assert connection.getresponse().status == 404
