"""What goes wrong with processes, ports and disks, and that the cloud gets over it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest
import requests

from stacklab.cloud.access import ServiceState
from stacklab.errors import NotEnoughSpace, NotRunning, UnknownName
from stacklab.homes.embedded import software, supervision, template
from stacklab.homes.embedded.home import EmbeddedHome
from tests.embedded.conftest import bring_up, quiet
from tests.embedded.guests import PATIENCE

# openstacksdk warns about what its own convenience layer does
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


def service(home: EmbeddedHome, name: str) -> ServiceState:
    return next(service for service in supervision.services(home.layout) if service.name == name)


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_service_comes_back_and_the_status_says_why(home: EmbeddedHome) -> None:
    before = service(home, "glance")
    assert before.pid
    os.kill(before.pid, signal.SIGKILL)
    wait_for(lambda: service(home, "glance").restarts > before.restarts)
    wait_for(lambda: service(home, "glance").state == "running")
    after = service(home, "glance")
    assert after.pid != before.pid
    assert "killed by SIGKILL at" in after.reason
    assert any(note.startswith("glance: killed by SIGKILL") for note in home.status().notes)


def test_a_service_that_keeps_dying_is_given_up_and_can_be_restarted(home: EmbeddedHome) -> None:
    deadline = time.monotonic() + PATIENCE
    while (now := service(home, "placement")).state != "failed":
        assert time.monotonic() < deadline
        if now.pid and alive(now.pid):
            supervision.send(now.pid, signal.SIGKILL)
        time.sleep(0.05)
    assert home.status().state == "degraded"
    home.restart("placement", quiet)
    assert service(home, "placement").state == "running"
    assert home.status().state == "running"


def test_a_restart_is_asked_for_by_name(home: EmbeddedHome) -> None:
    before = service(home, "cinder").pid
    home.restart("cinder", quiet)
    assert service(home, "cinder").pid != before
    with pytest.raises(UnknownName, match="no service 'heat'"):
        home.restart("heat", quiet)
    with pytest.raises(UnknownName):
        home.logs("heat")
    assert set(home.logs("nova")) == {"nova"}


def test_a_killed_supervisor_leaves_no_half_of_a_cloud_and_up_brings_it_back(home: EmbeddedHome, admin: Any) -> None:
    network = admin.network.create_network(name="survivor")
    pids = [service.pid for service in supervision.services(home.layout) if service.pid]
    supervisor = supervision.supervisor_pid(home.layout)
    assert supervisor
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in pids))
    assert home.status().state == "stopped"
    with pytest.raises(NotRunning):
        home.access()
    ended = bring_up(home)
    assert ended["services"].outcome == "done"
    assert admin.network.find_network("survivor").id == network.id
    admin.network.delete_network(network)


def test_down_and_up_keep_what_the_learner_made(home: EmbeddedHome, admin: Any) -> None:
    network = admin.network.create_network(name="kept")
    pids = [service.pid for service in supervision.services(home.layout) if service.pid]
    home.down(quiet)
    assert not any(alive(pid) for pid in pids)
    assert home.status().state == "stopped"
    home.down(quiet)  # once more does no harm
    bring_up(home)
    assert admin.network.find_network("kept").id == network.id
    admin.network.delete_network(network)


def test_a_port_that_somebody_took_is_replaced_and_said(home: EmbeddedHome) -> None:
    home.down(quiet)
    taken = home.cloud.ports["keystone"]
    with socket.create_server(("127.0.0.1", taken)):
        ended = bring_up(home)
        assert f"port {taken} of keystone is taken" in ended["cloud"].detail
        assert home.cloud.ports["keystone"] != taken
        assert any(str(taken) in note for note in home.status().notes)
        config = openstack.config.OpenStackConfig(config_files=[str(home.access().clouds_file)], load_envvars=False)
        admin: Any = openstack.connection.Connection(config=config.get_one("lab-admin"))
        urls = {endpoint.url for endpoint in admin.identity.endpoints()}
        assert not [url for url in urls if f":{taken}" in url]
        home.checkpoints.restore("start", quiet)  # saved with the old address
        assert {endpoint.url for endpoint in admin.identity.endpoints()} == urls
        assert [flavor.name for flavor in admin.compute.flavors()]


def test_an_up_that_was_killed_is_taken_up_by_the_next(own_home: EmbeddedHome) -> None:
    code = (
        "import sys\n"
        "from stacklab.lab import Lab\nfrom stacklab.stages import run_stages\n"
        "from stacklab.homes.embedded.home import EmbeddedHome\n"
        "home = EmbeddedHome(Lab(sys.argv[1]))\n"
        "run_stages(home.lab, home.stages(), lambda event: print(event, flush=True))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, own_home.lab.name], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for line in process.stdout:
        if "StageMoved(stage='services'" in line:
            break
    process.kill()
    process.wait()
    process.stdout.close()
    ended = bring_up(own_home)
    assert ended["ready"].outcome == "done"
    assert own_home.status().state == "running"


def test_new_addresses_that_were_cut_off_are_finished_by_the_next_up(
    own_home: EmbeddedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not template.made():
        bring_up(own_home)
        own_home.down(quiet)
    own_home.cloud.make(quiet)

    def cut_off(passwords: dict[str, str]) -> None:
        raise KeyboardInterrupt

    with socket.create_server(("127.0.0.1", own_home.cloud.ports["glance"])):
        monkeypatch.setattr(own_home.cloud, "personalise", cut_off)
        with pytest.raises(KeyboardInterrupt):
            own_home.cloud.make(quiet)
    assert EmbeddedHome(own_home.lab).cloud.why_ready() is None


def test_two_ups_at_once_make_one_template(directories: Path, tmp_path: Path) -> None:
    code = (
        "from stacklab.homes.embedded import template\n"
        "print('SAID', template.make(lambda detail: print(detail, flush=True)), flush=True)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    results = sorted(text.split("SAID ")[1].split(" ")[0] for text in said)
    assert results == ["another", "kept"]
    assert any("is making it; waiting" in text for text in said)
    made = [path.name for path in (tmp_path / "stacklab" / "templates").iterdir() if path.is_dir()]
    assert made == [template.key()]


def test_destroy_leaves_nothing_and_says_what_it_removed(own_home: EmbeddedHome) -> None:
    bring_up(own_home)
    pids = [service.pid for service in supervision.services(own_home.layout) if service.pid]
    told: list[str] = []
    removed = list(own_home.destroy(told.append))
    assert not any(alive(pid) for pid in pids)
    assert not own_home.layout.home.exists()
    assert removed[0] == "the running services and instances"
    assert removed[-1] == str(own_home.layout.home)
    assert any(str(software.environments()) in line and "stays" in line for line in told)
    assert own_home.status().state == "absent"
    assert list(own_home.destroy(quiet)) == []


def test_connections_that_nobody_uses_keep_nobody_out(home: EmbeddedHome, admin: Any) -> None:
    port = home.cloud.ports["keystone"]
    with contextlib.ExitStack() as idle:
        for _ in range(400):  # Horizon leaves a few on every page
            idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        assert requests.get(f"http://127.0.0.1:{port}/v3", timeout=20).ok


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    path = tmp_path / "tiny"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_full_disk_is_told_and_leaves_no_half_made_cloud(
    home: EmbeddedHome, own_home: EmbeddedHome, tiny_disk: Path
) -> None:
    own_home.lab.directory.mkdir(parents=True)
    own_home.layout.home.symlink_to(tiny_disk)
    with pytest.raises(NotEnoughSpace, match="no space left"):
        own_home.cloud.make(quiet)
    assert not own_home.cloud.exists
    assert own_home.status().state == "absent"
    subprocess.run(["mount", "-o", "remount,size=200m", tiny_disk], check=True)
    assert own_home.cloud.make(quiet) == "a new cloud with secrets of its own"
