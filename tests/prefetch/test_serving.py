"""The server: where it listens, how long it lives, what it gives out and what not."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from stacklab import cache
from stacklab.deploy.prepare import files as placed
from stacklab.deploy.profile.load import load_profile
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import ServiceFailed
from stacklab.files import read_json
from stacklab.lab import Lab
from stacklab.prefetch import filling, mirrors, serving, simple
from stacklab.prefetch.serving import Served
from tests.prefetch.conftest import BRANCH, World
from tests.prefetch.test_prefetch import clone, pip_install
from tests.prefetch.upstream import wheel


def quiet(line: str) -> None:
    pass


@pytest.fixture
def filled(world: World) -> World:
    list(filling.fill(world.profile, (), filling.PARTS, world.settings, quiet))
    return world


@pytest.fixture
def served(filled: World, lab: Lab) -> Served:
    return serving.start(lab, "127.0.0.1", filled.profile, filled.settings)


def answers(served: Served) -> bool:
    try:
        return requests.get(served.url, timeout=10).status_code == 200
    except requests.ConnectionError:
        return False


def raw(served: Served, request: str) -> str:
    """What a client that is not polite gets: the answer's first line and the rest."""
    host, port = served.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as link:
        link.sendall(f"{request}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := link.recv(65536):
            answer += chunk
    return answer.decode(errors="replace")


HOSTILE = [
    "/files/../../../../../../etc/passwd",
    "/files/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/files/..%2f..%2f..%2fetc/passwd",
    "/files/..%5c..%5cetc/passwd",
    "//etc/passwd",
    "/git/git.example/../../../secret.git/HEAD",
    "/git/git.example/openstack/keystone.git/../../../../secret",
    "/git/git.example/openstack/keystone.git/objects/../config",
    "/git/git.example/openstack/keystone.git/config",
    "/git/git.example/openstack/keystone.git/hooks/pre-push.sample",
    "/simple/alpha/..%2f..%2f..%2fsecret",
    "/simple/../secret",
    "/packages/http/../../../secret",
    "/packages/file/etc/passwd",
    "/files/link/secret",
    "/secret",
    "/files/%00/x",
    "http:/etc/passwd",
    "/",
]


def test_no_path_leads_out_of_the_cache(served: Served) -> None:
    secret = cache.root().parent / "secret"
    secret.write_text("root:x:0:0")
    (cache.root() / "files" / "link").symlink_to(cache.root().parent)
    for path in HOSTILE:
        answer = raw(served, f"GET {path} HTTP/1.1")
        assert "root:" not in answer, path
        assert "[core]" not in answer, path
        assert path == "/" or answer.split()[1] in ("400", "403", "404"), path


def test_nothing_can_be_written(served: Served) -> None:
    before = sorted(cache.root().rglob("*"))
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "PROPFIND"):
        answer = requests.request(method, f"{served.url}files/x/y", data=b"x", timeout=10)
        assert answer.status_code in (405, 501), method
    assert sorted(cache.root().rglob("*")) == before


def test_ranges_are_served(served: Served, filled: World) -> None:
    box = placed.file_path(filled.profile.box.url or "")
    url, whole = f"{served.url}files/{box.parent.name}/{box.name}", box.read_bytes()
    answer = requests.get(url, timeout=10)
    assert (answer.status_code, answer.content) == (200, whole)
    tag = answer.headers["ETag"]
    for asked, expected in {
        "bytes=0-9": whole[:10], "bytes=999990-": whole[-10:], "bytes=-7": whole[-7:], "bytes=5-2000000": whole[5:],
    }.items():  # fmt: skip
        answer = requests.get(url, headers={"Range": asked}, timeout=10)
        assert (answer.status_code, answer.content) == (206, expected)
    assert requests.get(url, headers={"Range": "bytes=1000000-"}, timeout=10).status_code == 416
    changed = requests.get(url, headers={"Range": "bytes=0-9", "If-Range": '"another"'}, timeout=10)
    assert (changed.status_code, changed.content) == (200, whole)
    assert requests.get(url, headers={"If-None-Match": tag}, timeout=10).status_code == 304
    head = requests.head(url, timeout=10)
    assert (head.headers["Content-Length"], head.content) == ("1000000", b"")


def test_a_damaged_file_is_not_served(served: Served, filled: World) -> None:
    box = placed.file_path(filled.profile.box.url or "")
    box.write_bytes(b"x" * box.stat().st_size)
    answer = requests.get(f"{served.url}files/{box.parent.name}/{box.name}", timeout=10)
    assert answer.status_code == 410
    assert "damaged" in answer.text


def test_it_listens_on_its_address_only(served: Served) -> None:
    port = int(served.url.rstrip("/").rpartition(":")[2])
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    mine = [one[1] for one in listening if one[3] == "0A" and one[1].endswith(f":{port:04X}")]
    assert mine == [f"0100007F:{port:04X}"]  # 127.0.0.1, and no 0.0.0.0


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])  # noqa: S104 -- refused is what they are
def test_all_addresses_are_refused(world: World, lab: Lab, address: str) -> None:
    with pytest.raises(ServiceFailed, match="every address"):
        serving.start(lab, address, world.profile, world.settings)


def test_an_address_that_is_not_ours_is_said_to_be_so(world: World, lab: Lab) -> None:
    with pytest.raises(ServiceFailed, match=r"cannot serve on 192\.0\.2\.1"):
        serving.start(lab, "192.0.2.1", world.profile, world.settings)
    assert serving.state(lab) is None


def test_only_the_machine_is_answered(filled: World, lab: Lab) -> None:
    served = serving.start(lab, "127.0.0.1", filled.profile, filled.settings, clients=("192.0.2.7",))
    with pytest.raises(requests.ConnectionError):
        requests.get(served.url, timeout=10)
    served = serving.start(lab, "127.0.0.1", filled.profile, filled.settings, clients=("127.0.0.0/8",))
    assert requests.get(served.url, timeout=10).status_code == 200


def test_starting_again_changes_nothing_and_stopping_ends_it(served: Served, filled: World, lab: Lab) -> None:
    assert serving.start(lab, "127.0.0.1", filled.profile, filled.settings) == served
    assert serving.state(lab) == served
    assert serving.stop(lab)
    assert serving.state(lab) is None
    assert not serving.stop(lab)
    with pytest.raises(requests.ConnectionError):
        requests.get(served.url, timeout=10)
    again = serving.start(lab, "127.0.0.1", filled.profile, filled.settings)
    assert (again.url, again.pid == served.pid) == (served.url, False)  # the machine remembers the address


def test_another_port_is_taken_where_the_old_one_is_gone(served: Served, filled: World, lab: Lab) -> None:
    serving.stop(lab)
    with socket.create_server(("127.0.0.1", int(served.url.rstrip("/").rpartition(":")[2]))):
        again = serving.start(lab, "127.0.0.1", filled.profile, filled.settings)
    assert again.url != served.url
    assert requests.get(again.url, timeout=10).status_code == 200


def test_it_outlives_the_lab_command_that_started_it(filled: World, lab: Lab) -> None:
    """Started by a process that is killed the moment it has; the next command finds it, and ends it."""
    code = (
        "import os, signal; from stacklab.lab import Lab; from stacklab.prefetch import serving;"
        "from stacklab.deploy.profile.load import load_profile; from stacklab.deploy.profile.settings import Settings;"
        "serving.start(Lab('prefetch'), '127.0.0.1', load_profile('debian12-2026.1'), Settings());"
        "os.killpg(0, signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], start_new_session=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    served = serving.state(lab)
    assert served is not None
    assert requests.get(served.url, timeout=10).status_code == 200
    assert serving.stop(lab)


def test_a_killed_server_is_known_to_be_gone(served: Served, filled: World, lab: Lab) -> None:
    os.kill(served.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while serving.state(lab) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert serving.state(lab) is None
    again = serving.start(lab, "127.0.0.1", filled.profile, filled.settings)
    assert again.url == served.url


def test_it_ends_when_the_lab_is_removed(served: Served, lab: Lab) -> None:
    shutil.rmtree(lab.directory)
    deadline = time.monotonic() + 60
    while answers(served) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not answers(served)


def test_a_repository_without_a_mirror_is_fetched_from_where_the_settings_say(
    filled: World, lab: Lab, tmp_path: Path
) -> None:
    """Its mirror is taken away; the user's own mirror of that host is a web server that has it."""
    bare = mirrors.mirror_path("https://git.example/openstack/keystone.git")
    shutil.copytree(bare, filled.web.root / "openstack" / "keystone.git")
    shutil.rmtree(bare)
    elsewhere = filled.settings.model_copy(update={"mirrors": {"https://git.example/": f"{filled.web.url}/"}})
    served = serving.start(lab, "127.0.0.1", filled.profile, elsewhere)
    url = serving.settings_for(served, filled.profile, elsewhere).at("https://git.example/openstack/keystone.git")
    assert url == f"{served.url}git/git.example/openstack/keystone.git"
    done = clone(url, tmp_path / "clone")
    assert done.returncode == 0, done.stderr
    served = serving.start(lab, "127.0.0.1", filled.profile, elsewhere, offline=True)
    done = clone(url, tmp_path / "offline")
    assert done.returncode != 0


def test_what_the_index_has_and_we_do_not_is_fetched_once_and_kept(
    served: Served, filled: World, tmp_path: Path
) -> None:
    path = filled.index.offer(wheel("theta", "7.0", ("beta",)))
    for number in range(2):
        done = pip_install(f"{served.url}simple/", tmp_path / str(number), "theta")
        assert done.returncode == 0, done.stderr
    assert filled.web.paths().count(path) == 1
    assert list(simple.kept("theta")) == ["theta-7.0-py3-none-any.whl"]
    filled.web.take_away()
    assert pip_install(f"{served.url}simple/", tmp_path / "away", "theta").returncode == 0


def test_what_the_index_says_is_checked_on_the_way(served: Served, filled: World, tmp_path: Path) -> None:
    filled.index.offer(wheel("iota", "1.0"), sha256="0" * 64)
    assert pip_install(f"{served.url}simple/", tmp_path / "site", "iota").returncode != 0
    assert simple.kept("iota") == {}


def test_a_name_that_nobody_has_is_not_found(served: Served, tmp_path: Path) -> None:
    assert requests.get(f"{served.url}simple/nothing/", timeout=10).status_code == 404
    done = pip_install(f"{served.url}simple/", tmp_path / "site", "nothing")
    assert "No matching distribution" in done.stderr


def test_the_configuration_is_for_the_owner_only(served: Served, lab: Lab) -> None:
    """An index's address may hold a password: it is in no argument of the process, and in no file that others can read."""
    config = serving.directory(lab) / "server.json"
    assert config.stat().st_mode & 0o777 == 0o600
    assert read_json(config)["settings"]["pip_index"]
    assert b"simple" not in Path(f"/proc/{served.pid}/cmdline").read_bytes()


def test_the_users_own_mirrors_stay_for_what_is_not_kept(filled: World, served: Served) -> None:
    own = Settings(
        mirrors={"https://git.example/": "https://a.example/", "https://files.example/": "https://b.example/"},
        proxy="http://proxy.example:3128",
    )
    settings = serving.settings_for(served, filled.profile, own)
    below = f"{served.url}git/git.example/openstack/"
    assert settings.at("https://git.example/openstack/") == below
    assert settings.at("https://git.example/openstack/x.git") == f"{below}x.git"
    assert settings.at("https://git.example/elsewhere/x.tar.gz") == "https://a.example/elsewhere/x.tar.gz"
    assert settings.at("https://files.example/x") == "https://b.example/x"
    assert settings.no_proxy == ["127.0.0.1"]
    assert settings.pip_index == f"{served.url}simple/"


def test_packages_of_a_profile_lead_to_the_cache(served: Served) -> None:
    settings = serving.settings_for(served, load_profile("centos7-pike"), Settings())
    archive = "archives.fedoraproject.org/pub/archive/epel/7/x86_64"
    assert settings.at(f"https://{archive}") == f"{served.url}packages/https/{archive}"
    assert (
        settings.at("http://vault.centos.org/7.9.2009/os/")
        == f"{served.url}packages/http/vault.centos.org/7.9.2009/os/"
    )


def test_a_large_file_is_passed_on_while_it_is_fetched(served: Served, filled: World) -> None:
    content = os.urandom(3_000_000)
    path = filled.index.offer(("kappa-1.0.tar.gz", content))
    answer = requests.get(f"{served.url}simple/kappa/kappa-1.0.tar.gz", timeout=30)
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(content).digest()
    assert filled.web.paths().count(path) == 1


def test_a_file_that_breaks_off_upstream_breaks_off_here(served: Served, filled: World) -> None:
    path = filled.index.offer(("kappa-1.0.tar.gz", os.urandom(3_000_000)))
    filled.web.cut[path] = 1_000_000
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(f"{served.url}simple/kappa/kappa-1.0.tar.gz", timeout=30)
    assert simple.kept("kappa") == {}
    assert requests.get(f"{served.url}simple/kappa/kappa-1.0.tar.gz", timeout=30).status_code == 200


def test_branches_keep_their_names(served: Served) -> None:
    answer = requests.get(f"{served.url}git/git.example/openstack/keystone/info/refs", timeout=10)
    assert f"refs/heads/{BRANCH}" in answer.text
