"""Session https-endpoints on a real Debian 12 with its own Apache and systemd, and a stand-in for DevStack behind it."""

# ruff: noqa: F811 - a fixture that is imported and then named as an argument

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import standin
from tests.machine.learner import Learner
from tests.machine.system_fixture import debian  # noqa: F401 - a fixture
from tests.machine.test_home_ssh import ON, learner  # noqa: F401 - a fixture

SESSION = "https-endpoints"
NOT_HERE = {"swift"}
"""The stand-in has no object store."""
UNITS = ("keystone", "n-api", "q-ovn-agent", "n-cpu", "placement-api", "c-api", "g-api", "neutron-api", "q-ovn-agent")
FILES = {
    "/etc/keystone/keystone.conf": "[DEFAULT]\npublic_endpoint = http://{address}/identity\n\n[token]\nprovider = fernet\n",
    "/etc/nova/nova.conf": "[DEFAULT]\nmy_ip = {address}\n\n[cinder]\nos_region_name = RegionOne",
    "/etc/neutron/neutron.conf": "[nova]\nauth_type = password\n",
}
LOCAL_SETTINGS = "/opt/stack/horizon/openstack_dashboard/local/local_settings.d"
TREE = rf"""
for directory in /etc/apache2 /etc/stacklab/https /etc/keystone /etc/nova /etc/neutron /etc/cinder /etc/glance \
    /var/lib/apache2 {LOCAL_SETTINGS}; do
    [ ! -e $directory ] || find $directory -printf '%p %y %m %u:%g %l\n' | sort
    [ ! -e $directory ] || find $directory -type f -exec sha256sum {{}} + | sort
done
apache2ctl -M 2>/dev/null | sort
ss -Hltn | awk '{{print $4}}' | sort
cat /opt/stack/standin/endpoints.json 2>/dev/null || :
"""


@pytest.fixture(scope="module")
def stacked(learner: Learner) -> Learner:
    """A lab whose cloud is up, with the files of services that DevStack would have written."""
    address, machine = learner.system.address, learner.machine
    standin.behave(machine, STANDIN_SECONDS="2", STANDIN_UNITS=" ".join(UNITS))
    home = Path(learner.environment["HOME"])
    profile = home / ".config" / "stacklab" / "profiles" / "standin.yaml"
    data = json.loads(profile.read_text())
    data["units"]["devstack"] = list(UNITS)
    profile.write_text(json.dumps(data))
    learner.lab("up", SESSION, "--image", str(learner.image), *ON)
    for path, content in FILES.items():
        machine.put(path, content.format(address=address), mode=0o640, owner="stack")
    machine.run("install", "-d", "-o", "stack", LOCAL_SETTINGS, user="root")
    # The catalogue as the API hands it out, from now on in a file.
    body = json.dumps({"endpoint": {"enabled": True}})
    url = f"http://{address}/identity/v3/endpoints/identity"
    requests.patch(url, data=body, headers={"X-Auth-Token": "standin-token"}, timeout=30).raise_for_status()
    return learner


def tree(learner: Learner) -> list[str]:
    """Everything of the machine that the session may touch."""
    return learner.machine.script(TREE, user="root").lines


def tree_at_rest(learner: Learner, before: list[str]) -> list[str]:
    """The tree, once it is that one, or after a minute: a unit that was just restarted does not listen yet."""
    end = time.monotonic() + 60
    while (now := tree(learner)) != before and time.monotonic() < end:
        time.sleep(1)
    return now


def checked(learner: Learner, expect: int = 0) -> dict[str, tuple[str, str]]:
    """`lab check`: status and what was found, by step."""
    output = learner.lab("check", SESSION, "--json", expect=expect)
    report: Any = json.loads(output[output.index("{") : output.rindex("}") + 1])
    return {step["id"]: (step["status"], step["actual"]) for step in report["steps"]}


def directory(learner: Learner) -> Path:
    """Where the lab keeps what is its own."""
    return Path(learner.environment["HOME"]) / ".local" / "state" / "stacklab" / "intro" / "home"


def test_the_session_is_done_graded_broken_fixed_and_undone_and_leaves_every_byte_as_it_was(stacked: Learner) -> None:
    clouds = directory(stacked) / "clouds.yaml"
    before, logins = tree(stacked), clouds.read_bytes()
    stacked.lab("replay", SESSION)
    grades = checked(stacked)
    assert {step for step, (status, _) in grades.items() if status == "not_applicable"} == NOT_HERE, grades
    assert {status for step, (status, _) in grades.items() if step not in NOT_HERE} == {"passed"}, grades

    address = stacked.system.address
    ca = str(directory(stacked) / "https" / "ca.pem")
    page = requests.get(f"http://{address}/dashboard/auth/login/", verify=ca, timeout=60)
    assert [answer.status_code for answer in page.history] == [301]
    assert page.url == f"https://{address}/dashboard/auth/login/"
    assert 'name="password"' in page.text
    version = requests.get(f"https://{address}:5000/identity/v3", verify=ca, timeout=60).json()
    assert version["version"]["links"][0]["href"].startswith(f"https://{address}:5000/identity/v3")
    assert requests.get(f"http://{address}/identity/v3", timeout=60).status_code == 200, "the internal endpoint goes on"
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://{address}:5000/identity/v3", timeout=60)
    stacked.lab("break", f"{SESSION}/expired-certificate", "--yes")
    broken = checked(stacked, expect=1)
    assert (broken["dates"][0], broken["chain"][0], broken["name"][0]) == ("failed", "passed", "passed")
    stacked.lab("fix", f"{SESSION}/expired-certificate")
    assert {status for step, (status, _) in checked(stacked).items() if step not in NOT_HERE} == {"passed"}
    assert "server list" not in stacked.lab("openstack", "--admin", "image", "list"), "the lab's own login goes on"

    stacked.lab("undo", SESSION)
    assert tree_at_rest(stacked, before) == before
    assert clouds.read_bytes() == logins
    assert list((directory(stacked) / "https").iterdir()) == []


@pytest.mark.parametrize("step", ["before/settings", "fronts/horizon"])
def test_killed_in_the_middle_undo_leaves_every_byte_as_it_was(stacked: Learner, step: str) -> None:
    clouds = directory(stacked) / "clouds.yaml"
    before, logins = tree(stacked), clouds.read_bytes()
    stacked.lab("replay", f"{SESSION}/before/internal")
    if step == "fronts/horizon":
        stacked.lab("replay", f"{SESSION}/before/settings")
        stacked.lab("replay", f"{SESSION}/certificates")
    journal = directory(stacked).parent / "journal.jsonl"
    name, deadline = step.rpartition("/")[2], time.monotonic() + 120
    seen = len(states(journal, name))
    child = stacked.start("replay", f"{SESSION}/{step}")
    while "begin" not in states(journal, name)[seen:]:
        assert child.poll() is None, child.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    stacked.lab("undo", SESSION)
    assert tree_at_rest(stacked, before) == before
    assert clouds.read_bytes() == logins


def states(journal: Path, step: str) -> list[str]:
    """What the journal knows of a step."""
    lines = [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}")]
    return [line["state"] for line in lines if line["session"] == SESSION and line["step"] == step]
