"""The cache as a machine behind a real sshd sees it: with real git and real pip, and with upstream gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from stacklab.cache import cache_root
from stacklab.lab import Lab
from stacklab.machines.ssh import SshMachine
from stacklab.prefetch import fill, plan, serving, wheels
from stacklab.prefetch.serving import Served
from tests.machine.conftest import running_sshd
from tests.prefetch.conftest import BRANCH, World
from tests.prefetch.upstream import GIT, git


def quiet(line: str) -> None:
    pass


@pytest.fixture
def filled(world: World) -> World:
    list(fill.fill(world.profile, (), fill.PARTS, world.settings, quiet))
    return world


@pytest.fixture
def served(lab: Lab, machine: SshMachine) -> Served:
    running = serving.start(lab, machine.ssh_argv())
    eventually(lambda: answers(running))
    return running


def answers(served: Served) -> bool:
    try:
        return requests.get(served.url, timeout=10).status_code == 200
    except requests.ConnectionError:
        return False


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_was_fetched_is_enough_when_upstream_is_gone(filled: World, served: Served, tmp_path: Path) -> None:
    filled.take_away()
    asked = [(repository, repository.url) for repository in fill.repositories(filled.profile, ())]
    (tmp_path / "gitconfig").write_text(serving.git_config(served.url, asked))
    environment = {**os.environ, **GIT, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_SYSTEM": str(tmp_path / "gitconfig")}
    environment.pop("GIT_CONFIG_NOSYSTEM", None)

    def run(*argv: str, cwd: Path = tmp_path) -> str:
        done = subprocess.run(argv, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    for name, ref in (
        ("openstack/keystone.git", BRANCH),
        ("openstack/keystone.git", "29.0.0"),
        ("novnc/noVNC.git", "v1.3.0"),
    ):
        clone = tmp_path / ref.replace("/", "-")
        run("git", "clone", "--quiet", f"https://git.example/{name}", str(clone))
        run("git", "fetch", "--quiet", "origin", ref, cwd=clone)  # as DevStack's git_clone does it (functions-common)
        run("git", "checkout", "--quiet", "FETCH_HEAD", cwd=clone)
    assert git(tmp_path / "29.0.0", "describe") == "29.0.0"  # pbr's version
    assert (tmp_path / "v1.3.0" / "vnc.html").read_text() == "hello"
    assert git(tmp_path / "29.0.0", "config", "remote.origin.url") == "https://git.example/openstack/keystone.git"
    run("git", "clone", "--quiet", "https://git.example/openstack/devstack", str(tmp_path / "devstack"))

    place = wheels.directory(plan.target_of(filled.profile)).relative_to(cache_root())
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--retries", "0")
    indexes = ("--index-url", f"{served.url}{place}/", "--extra-index-url", filled.index.url)
    run(*pip, *indexes, "--target", str(tmp_path / "site"), "alpha==1.5")
    modules = {path.name for path in (tmp_path / "site").iterdir()}
    assert {"alpha_of_test.py", "beta_of_test.py", "gamma_of_test.py", "delta_of_test.py"} <= modules


def test_a_repository_without_a_mirror_and_one_of_a_similar_name_keep_their_addresses(filled: World) -> None:
    repositories = [
        *fill.repositories(filled.profile, ()),
        plan.Repository("x", "https://git.example/openstack/x.git", "y"),
    ]
    config = serving.git_config("http://127.0.0.1:20000/", [(it, it.url) for it in repositories])
    assert "openstack/x" not in config
    assert '[url "https://git.example/openstack/devstack-"]' in config


def test_nothing_listens_but_the_machines_loopback(served: Served, lab: Lab) -> None:
    """Whoever stands between this host and the machine sees and changes nothing, nor do other users of this host."""
    listening = [
        line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]
    ]
    port = int(served.url.rstrip("/").rpartition(":")[2])
    ours = {str(path.readlink()) for path in Path(f"/proc/{served.pid}/fd").iterdir()}
    assert [words[1] for words in listening if words[3] == "0A" and f"socket:[{words[9]}]" in ours] == []
    at_port = [words[1] for words in listening if words[3] == "0A" and words[1].endswith(f":{port:04X}")]
    assert at_port == [f"0100007F:{port:04X}"]  # 127.0.0.1, and no 0.0.0.0
    sockets = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "lab-cache-" in line]
    assert sockets
    assert {Path(path).parent.stat().st_mode & 0o777 for path in sockets} == {0o700}


def test_no_path_leads_out_of_the_cache_and_nothing_can_be_written(served: Served) -> None:
    (cache_root().parent / "secret").write_text("root:x:0:0")
    (cache_root() / "file").write_text("for all")
    before = sorted(cache_root().rglob("*"))
    for path in ("../secret", "%2e%2e/secret", "git/../../secret", "..%2fsecret", "/etc/passwd"):
        request = requests.Request("GET", served.url).prepare()
        request.url = f"{served.url}{path}"
        assert "root:" not in requests.Session().send(request, timeout=10).text, path
    for method in ("POST", "PUT", "DELETE", "PATCH", "CONNECT", "PROPFIND"):
        assert requests.request(method, f"{served.url}file", data=b"x", timeout=10).status_code == 501, method
    assert sorted(cache_root().rglob("*")) == before


def test_starting_again_changes_nothing_and_stopping_ends_it(served: Served, lab: Lab, machine: SshMachine) -> None:
    assert serving.start(lab, machine.ssh_argv()) == served
    assert serving.stop(lab)
    assert serving.state(lab) is None
    assert not serving.stop(lab)
    eventually(lambda: not answers(served))
    again = serving.start(lab, machine.ssh_argv())
    assert (again.url, again.pid == served.pid) == (served.url, False)  # the machine remembers the address


def test_a_killed_server_is_known_to_be_gone_and_so_is_its_port(served: Served, lab: Lab) -> None:
    os.kill(served.pid, signal.SIGKILL)
    eventually(lambda: serving.state(lab) is None)
    eventually(lambda: not answers(served))


def test_it_outlives_the_lab_command_that_started_it_and_ends_with_the_lab(lab: Lab, machine: SshMachine) -> None:
    code = (
        "import json, os, signal, sys; from stacklab.lab import Lab; from stacklab.prefetch import serving;"
        "serving.start(Lab('prefetch'), json.loads(sys.argv[1])); os.killpg(0, signal.SIGKILL)"
    )
    argv = [sys.executable, "-c", code, json.dumps(machine.ssh_argv())]
    done = subprocess.run(argv, start_new_session=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    served = serving.state(lab)
    assert served is not None
    eventually(lambda: answers(served))
    shutil.rmtree(lab.directory)
    eventually(lambda: not answers(served))


def test_a_lost_connection_is_made_again_at_the_same_port(lab: Lab, tmp_path: Path, world: World) -> None:
    (tmp_path / "again").mkdir()
    with running_sshd(tmp_path / "again") as sshd:
        machine = sshd.machine()
        machine.connect()
        served = serving.start(lab, machine.ssh_argv())
        eventually(lambda: answers(served))
        machine.close()
        sshd.end_sessions()
        eventually(lambda: "again in" in served.log.read_text())
        eventually(lambda: answers(served))
