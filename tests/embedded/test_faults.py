"""What can be broken on purpose in an embedded cloud: broken, graded, hinted at, repaired by hand and by lab fix, reset."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest

from stacklab.cli.main import run
from stacklab.cloud.horizon import login_page
from stacklab.conditions import store
from stacklab.course.load import load_session
from stacklab.errors import BrokenOnPurpose, CloudRefused, CloudUnreachable, NotRunning, NotServed, UnknownName
from stacklab.homes.embedded import config, software, supervision
from stacklab.homes.embedded.home import EmbeddedHome
from stacklab.homes.embedded.services import urls
from stacklab.homes.plan import Plan
from stacklab.inifile import value_of, with_value
from stacklab.kinds.context import Workspace
from stacklab.lab import Lab
from stacklab.replay import breaking
from stacklab.replay.apply import apply_step
from stacklab.replay.bringup import bring_up, reset, stop
from stacklab.replay.check import check
from stacklab.replay.current import home_of, journal_of, workspace_at
from tests.embedded.conftest import quiet
from tests.embedded.guests import PATIENCE

SESSION = load_session("session4")
HERE = [case.id for case in SESSION.faults if case.id != "clock"]
GRADED = SESSION.select("troubleshooting")


@pytest.fixture(scope="module")
def lab(running: Lab) -> Iterator[Lab]:
    """The cloud with the learner's project in it."""
    reset(running, quiet)
    desk = opened(running)
    for step in SESSION.select("project"):
        apply_step(desk, journal_of(running), step, "rest")
    yield running
    reset(running, quiet)


def opened(lab: Lab) -> Workspace:
    """The lab's cloud, opened for session 4."""
    return workspace_at(home_of(lab), lab, SESSION, lambda text: None)


def lab_says(lab: Lab, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """`lab` in this process: its exit code, and all that it said."""
    capsys.readouterr()
    status = run(["--lab", lab.name, *words])
    told = capsys.readouterr()
    return status, told.out + told.err


def not_passed(lab: Lab) -> dict[str, str]:
    """The exercise's steps that did not pass though they make sense here, and how they ended."""
    grades = check(opened(lab), GRADED).grades
    return {grade.id: grade.status for grade in grades if grade.status not in ("passed", "not_applicable")}


def conf(lab: Lab, name: str) -> Path:
    """A configuration file of the cloud."""
    return EmbeddedHome(lab).layout.conf / name


def as_made(lab: Lab) -> bool:
    """Whether every configuration file is as `lab up` writes it."""
    cloud = EmbeddedHome(lab).cloud
    wanted = config.files(cloud.layout, software.path(), cloud.ports, cloud.passwords())
    return all(path.read_text() == text for path, text in wanted.items())


# --- the symptoms, as the learner meets them ------------------------------------------------------------------------


def refused(ask: Callable[[], object]) -> str:
    """What is said of a request that must not succeed."""
    with pytest.raises((CloudRefused, CloudUnreachable)) as caught:
        ask()
    return caught.value.message


def launch(lab: Lab) -> dict[str, object]:
    """An instance of an image that Glance only knows by name; removed again."""
    desk = opened(lab)
    admin, learner = desk.admin, desk.learner
    images = admin.sdk.image
    image = images.create_image(
        name="empty", disk_format="raw", container_format="bare", data=b"\0" * 1024, visibility="public"
    )
    flavor = admin.sdk.compute.create_flavor(name="one", vcpus=1, ram=128, disk=1)
    network = learner.sdk.network.create_network(name="one")
    learner.sdk.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.9.0.0/24")
    server = {"name": "one", "imageRef": image.id, "flavorRef": flavor.id, "networks": [{"uuid": network.id}]}
    try:
        made = learner.post("compute", "servers", body={"server": server})["server"]
        deadline = time.monotonic() + PATIENCE
        while (found := admin.get("compute", "servers", made["id"])["server"])["status"] == "BUILD":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        learner.delete("compute", "servers", made["id"])
        while not admin.gone("compute", "servers", made["id"]):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        return dict(found)
    finally:
        learner.sdk.network.delete_network(network.id)
        admin.sdk.compute.delete_flavor(flavor.id)
        images.delete_image(image.id)


def launch_is_refused(lab: Lab, status: int, words: str) -> None:
    """Nova says no at once."""
    with pytest.raises(CloudRefused, match=words) as caught:
        launch(lab)
    assert caught.value.status == status


def dashboard_refuses(lab: Lab) -> None:
    """Nobody listens, and the rest of the cloud is well."""
    assert "no answer" in refused(lambda: login_page(urls(EmbeddedHome(lab).cloud.ports)["horizon"]))


def network_does_not_stay(lab: Lab) -> None:
    """Restarted, it starts, and fails again."""
    home = EmbeddedHome(lab)
    supervision.order(home.layout, "restart", service="neutron")
    deadline = time.monotonic() + PATIENCE
    while not (
        state := next(service for service in supervision.services(home.layout) if service.name == "neutron")
    ).reason:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "unable to open database file" in state.reason
    assert "does not answer" in refused(lambda: opened(lab).admin.get("network", "networks"))


def nothing_launches(lab: Lab) -> None:
    """A launch is answered with 500, while lists, of Nova's too, are answered."""
    admin = opened(lab).admin
    admin.get("compute", "servers")
    admin.get("image", "images")
    launch_is_refused(lab, 500, "GlanceConnectionFailed")


def nothing_uploads(lab: Lab) -> None:
    """413, and images can be listed."""
    opened(lab).admin.get("image", "images")
    with pytest.raises(Exception, match="413"):
        opened(lab).admin.sdk.image.create_image(
            name="large", disk_format="raw", container_format="bare", data=b"\0" * 100_000
        )
    for image in opened(lab).admin.get("image", "images", name="large")["images"]:
        opened(lab).admin.delete("image", "images", image["id"])


def volumes_are_unavailable(lab: Lab) -> None:
    """503, whoever asks."""
    assert "503" in refused(lambda: opened(lab).admin.get("block-storage", "volumes"))


def quota_is_exceeded(lab: Lab) -> None:
    """Nova names the limit."""
    launch_is_refused(lab, 403, "(?i)quota exceeded for ram")


def no_valid_host(lab: Lab) -> None:
    """The request is accepted, and ends in ERROR."""
    server = launch(lab)
    assert server["status"] == "ERROR"
    assert "No valid host" in json.dumps(server["fault"])


SYMPTOMS: dict[str, Callable[[Lab], None]] = {
    "httpd": dashboard_refuses,
    "selinux-q-agt": network_does_not_stay,
    "network": nothing_launches,
    "glance-full": nothing_uploads,
    "wrong-password": volumes_are_unavailable,
    "quota": quota_is_exceeded,
    "nova-compute": no_valid_host,
}


# --- a learner's own repairs, each another way than ours ------------------------------------------------------------


def restart(lab: Lab, service: str) -> None:
    """`lab restart`."""
    assert run(["--lab", lab.name, "restart", service]) == 0


def start_the_dashboard(lab: Lab) -> None:
    """As the trail says."""
    restart(lab, "horizon")


def name_another_path(lab: Lab) -> None:
    """The same file by another name, and a comment."""
    file = conf(lab, "neutron.conf")
    path = EmbeddedHome(lab).layout.db / ".." / "db" / "neutron.db"
    file.write_text(
        "# repaired\n" + with_value(file.read_text(), "database", "connection", f"sqlite:///{path}?plugin=labcloud")
    )
    restart(lab, "neutron")


def leave_it_to_the_catalogue(lab: Lab) -> None:
    """Without an address of its own, Nova takes Glance's from the catalogue."""
    file = conf(lab, "nova.conf")
    file.write_text(re.sub(r"^api_servers.*\n", "", file.read_text(), flags=re.MULTILINE))
    restart(lab, "nova")


def raise_the_limit(lab: Lab) -> None:
    """A limit stays, but there is room below it."""
    file = conf(lab, "glance-api.conf")
    file.write_text(with_value(file.read_text(), "DEFAULT", "user_storage_quota", "5GB"))
    restart(lab, "glance")


def give_keystone_the_other_password(lab: Lab) -> None:
    """The wrong password becomes the right one, wherever it is needed."""
    password = value_of(conf(lab, "cinder.conf").read_text(), "keystone_authtoken", "password")
    admin = opened(lab).admin
    user = admin.get("identity", "users", name="cinder")["users"][0]["id"]
    admin.request("PATCH", "identity", ("users", user), body={"user": {"password": password}})
    file = conf(lab, "nova.conf")
    assert password
    file.write_text(with_value(file.read_text(), "cinder", "password", password))
    restart(lab, "cinder")


def lift_the_limit(lab: Lab) -> None:
    """No limit at all."""
    admin = opened(lab).admin
    project = admin.get("identity", "projects", name="lab-project")["projects"][0]["id"]
    admin.put("compute", "os-quota-sets", project, body={"quota_set": {"ram": -1}})


def declare_alive(lab: Lab) -> None:
    """As the trail says, with the API."""
    admin = opened(lab).admin
    service = admin.get("compute", "os-services", binary="nova-compute", version="2.53")["services"][0]["id"]
    admin.request("PUT", "compute", ("os-services", service), body={"forced_down": False}, version="2.53")


REPAIRS: dict[str, Callable[[Lab], None]] = {
    "httpd": start_the_dashboard,
    "selinux-q-agt": name_another_path,
    "network": leave_it_to_the_catalogue,
    "glance-full": raise_the_limit,
    "wrong-password": give_keystone_the_other_password,
    "quota": lift_the_limit,
    "nova-compute": declare_alive,
}


def test_every_fault_of_this_home_is_tested_and_every_session_names_only_known_ones(lab: Lab) -> None:
    known = home_of(lab).faults()
    assert {case.breaks for case in SESSION.faults} <= set(known)
    assert [name for name in HERE if known[name].why_not()] == []
    assert set(SYMPTOMS) == set(REPAIRS) == set(HERE)


@pytest.mark.parametrize("name", HERE)
def test_a_fault_is_broken_graded_hinted_at_and_repaired_in_any_way(
    lab: Lab, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    case = SESSION.fault(name)
    status, said = lab_says(lab, capsys, "break", f"session4/{name}")
    assert status == 0, said
    assert "lab check session4/troubleshooting" in re.sub(r"lab --lab \S+", "lab", said)
    assert not_passed(lab) == {case.step: "failed"}
    SYMPTOMS[name](lab)
    walk(lab, capsys, name)
    assert breaking.broken_faults(lab)[0].fault == name
    capsys.readouterr()
    REPAIRS[name](lab)
    status, said = lab_says(lab, capsys, "check", "session4/troubleshooting")
    assert status == 0, said
    assert breaking.broken_faults(lab) == []
    assert lab_says(lab, capsys, "break", name, "--json")[0] == 0
    assert not_passed(lab) == {case.step: "failed"}
    assert lab_says(lab, capsys, "fix")[0] == 0
    assert not_passed(lab) == {}
    assert breaking.broken_faults(lab) == []


def walk(lab: Lab, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """The trail, a clue at a time, to its end and no further."""
    whole = [asdict(clue) for clue in breaking.trail(home_of(lab), SESSION.fault(name))]
    for wanted in [*whole, whole[-1]]:
        status, said = lab_says(lab, capsys, "hint", "--json")
        assert status == 0
        assert json.loads(re.sub(r"lab --lab \S+", "lab", said))["clues"] == [wanted]
    status, said = lab_says(lab, capsys, "hint", f"session4/{name}")
    assert "fix solves it" in said
    assert "$CONF" not in said


def test_mending_is_exact_and_so_is_a_reset_after_a_learners_own_repair(lab: Lab) -> None:
    reset(lab, quiet)
    assert as_made(lab)
    for name in ("selinux-q-agt", "glance-full"):
        breaking.inject(lab, SESSION, SESSION.fault(name), quiet)
    assert not as_made(lab)
    breaking.repair(lab, {"selinux-q-agt": "one"}, quiet)
    raise_the_limit(lab)
    reset(lab, quiet)
    assert as_made(lab)
    assert breaking.broken_faults(lab) == []


@pytest.mark.parametrize(("name", "moment"), [("selinux-q-agt", "recorded"), ("glance-full", "written")])
def test_killed_in_the_middle_of_breaking_a_reset_makes_all_well(lab: Lab, name: str, moment: str) -> None:
    home = EmbeddedHome(lab)
    before = conf(lab, "glance-api.conf").read_text()
    child = subprocess.Popen(
        [str(Path(sys.executable).parent / "lab"), "--lab", lab.name, "break", f"session4/{name}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while not (
        breaking.broken_faults(lab) if moment == "recorded" else conf(lab, "glance-api.conf").read_text() != before
    ):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert [fault.state for fault in breaking.broken_faults(lab)] == ["breaking"]
    reset(lab, quiet)
    assert breaking.broken_faults(lab) == []
    assert as_made(lab)
    assert not_passed(lab) == {}
    assert home.status().state == "running"


def test_breaking_again_after_a_kill_starts_from_what_was_well(lab: Lab) -> None:
    case, fault = SESSION.fault("glance-full"), home_of(lab).faults()["glance-full"]
    before = conf(lab, "glance-api.conf").read_text()
    breaking.record(lab, breaking.Broken("session4", case.id, case.breaks, "breaking"))
    fault.inject(quiet)  # …and here `lab break` was killed
    entry = breaking.inject(lab, SESSION, case, quiet)
    assert entry.state == "broken"
    breaking.repair(lab, {case.breaks: case.id}, quiet)
    assert conf(lab, "glance-api.conf").read_text() == before


def test_several_can_be_broken_none_twice_and_lab_up_leaves_them(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("httpd", "selinux-q-agt"):
        breaking.inject(lab, SESSION, SESSION.fault(name), quiet)
    assert not_passed(lab) == {"repair-httpd": "failed", "repair-agent": "failed"}
    status, said = lab_says(lab, capsys, "break", "session4/httpd")
    assert (status, "is broken already" in said) == (BrokenOnPurpose.exit_code, True)
    while "the next clue" in (said := lab_says(lab, capsys, "hint")[1]):
        pass  # the trail of the one that was broken last, to its end
    assert said.rstrip().endswith("that was its last clue, and more is broken: lab --lab tests hint session4/httpd")
    with pytest.raises(BrokenOnPurpose, match="session4/httpd, session4/selinux-q-agt"):
        bring_up(lab, SESSION, Plan(home="embedded"), None, lambda event: None)
    restart(lab, "horizon")  # although another service fails all the time
    assert not_passed(lab) == {"repair-agent": "failed"}
    status, said = lab_says(lab, capsys, "status", "--json")
    assert json.loads(said)["broken_on_purpose"] == ["session4/httpd", "session4/selinux-q-agt"]
    reset(lab, quiet)
    assert not_passed(lab) == {}


def test_what_is_broken_at_random_is_nowhere_named(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.choice", lambda cases: next(case for case in cases if case.id == "nova-compute"))
    told = lab_says(lab, capsys, "break", "--random")[1]
    monkeypatch.undo()
    assert [case for case in SESSION.faults if case.title in told or f"session4/{case.id}" in told] == []
    assert json.loads(lab_says(lab, capsys, "status", "--json")[1])["broken_on_purpose"] == [None]
    assert {fault["on_purpose"] for fault in json.loads(lab_says(lab, capsys, "faults", "--json")[1])["faults"]} == {
        False
    }
    assert "nova-compute" not in lab_says(lab, capsys, "hint")[1].splitlines()[0]
    assert "session4/nova-compute" in lab_says(lab, capsys, "faults", "--tell")[1]
    assert lab_says(lab, capsys, "fix")[0] == 0
    assert not_passed(lab) == {}


def test_starting_a_stopped_cloud_mends_what_was_broken_and_says_so(lab: Lab) -> None:
    for name in ("network", "nova-compute"):
        breaking.inject(lab, SESSION, SESSION.fault(name), quiet)
    stop(lab, quiet)
    with pytest.raises(NotRunning):
        breaking.inject(lab, SESSION, SESSION.fault("httpd"), quiet)
    said: list[str] = []
    bring_up(lab, SESSION, Plan(home="embedded"), None, lambda event: said.append(str(event)))
    assert breaking.broken_faults(lab) == []
    assert any("session4/network" in line and "lab break breaks it again" in line for line in said)
    assert not_passed(lab) == {}


def test_what_cannot_be_broken_is_refused_before_anything_is_recorded(
    lab: Lab, own_home: EmbeddedHome, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab_says(own_home.lab, capsys, "break", "session4/httpd")[0] == 50  # there is no such lab
    assert lab_says(lab, capsys, "break", "session4/clock")[0] == NotServed.exit_code
    status, said = lab_says(lab, capsys, "break", "session4/htpd")
    assert (status, "httpd" in said) == (UnknownName.exit_code, True)
    assert lab_says(lab, capsys, "break")[0] == 2
    assert breaking.broken_faults(lab) == []
    assert not own_home.lab.directory.exists()


def test_a_class_may_look_for_room_at_once_and_what_a_killed_look_left_goes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = opened(lab).admin
    left = admin.post("image", "images", body=store.BODY)["id"]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: home_of(lab).faults()["glance-full"].look(), range(16)))
    assert [(entry.state, entry.evidence) for entry in found if entry.state != "good"] == []
    images = admin.get("image", "images", name=store.NAME)["images"]
    assert [image["id"] for image in images] == [left]  # it may be somebody's who is still at it
    monkeypatch.setattr(store, "ABANDONED", timedelta(-1))
    assert store.upload_refused(admin, 1 << 10) is None
    assert admin.get("image", "images", name=store.NAME)["images"] == []
