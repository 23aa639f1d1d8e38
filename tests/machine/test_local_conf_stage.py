"""local.conf on a real machine: whose it is, who can read it, and what becomes of one that is there already."""

# ruff: noqa: F811 - a fixture that is imported and then named as an argument

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.localconf import render as localconf
from stacklab.deploy.profile.load import load_profile, profile_for
from stacklab.deploy.profile.settings import Settings
from stacklab.lab import Lab
from stacklab.machines.address import Address
from stacklab.machines.ssh import SshMachine
from tests.machine.system_fixture import debian  # noqa: F401 - a fixture
from tests.systems import System

WHERE = "/opt/stack/devstack/local.conf"


@pytest.fixture
def deployment(debian: System, own_directories: Path) -> Iterator[Deployment]:
    machine = SshMachine(Address(host=debian.address, user=debian.user), known_hosts=debian.known_hosts, key=debian.key)
    machine.script(
        "id stack >/dev/null 2>&1 || useradd --create-home --home-dir /opt/stack stack\n"
        "rm -rf /opt/stack/devstack && mkdir -p /opt/stack/devstack && chown -R stack /opt/stack\n",
        user="root",
    )
    profile = load_profile("debian12-2026.1")
    yield Deployment(Lab("intro"), profile, machine, debian.address, Settings(), services=("swift",))
    machine.close()


def run(deployment: Deployment) -> tuple[str | None, str]:
    """What the stage says before, and (if there is something to do) after."""
    (stage,) = localconf.stages(deployment)
    before = stage.already()
    return before, stage.run(lambda _: None) if before is None else ""


def test_it_is_the_stack_users_alone_and_written_once(deployment: Deployment) -> None:
    assert run(deployment) == (None, WHERE)
    stat = deployment.machine.run("stat", "-c", "%a %U", WHERE, user="root").out
    assert stat.split() == ["600", "stack"]
    found = (deployment.machine.read(WHERE) or b"").decode()
    assert f"ADMIN_PASSWORD={deployment.lab.secret('admin')}\n" in found
    assert f"HOST_IP={deployment.host_ip}\n" in found
    assert run(deployment) == (f"{WHERE} is as it should be", "")
    deployment.machine.run("chmod", "644", WHERE, user="root")
    assert run(deployment)[0] is None
    assert run(deployment)[0] is not None


def test_what_differed_is_told_by_name_and_never_by_value(deployment: Deployment) -> None:
    run(deployment)
    changed = replace(deployment, lab=Lab("other"), services=("heat",))
    before, after = run(changed)
    assert before is None
    assert after.startswith(f"{WHERE}; the one that was there differed in: ADMIN_PASSWORD, ")
    assert "enable_plugin heat" in after
    assert "SWIFT_HASH" in after
    assert not any(secret in after for lab in ("intro", "other") for secret in Lab(lab).secrets())


def test_a_file_that_somebody_else_wrote_is_kept(deployment: Deployment) -> None:
    theirs = "[[local|localrc]]\nADMIN_PASSWORD=mine\nLOGFILE=/opt/stack/logs/stack.sh.log\n"
    deployment.machine.put(WHERE, theirs, owner="stack")
    _, after = run(deployment)
    kept = "/opt/stack/devstack/local.conf.before-lab"
    assert f"the one that was there is now {kept}" in after
    assert "LOGFILE" not in after
    assert deployment.machine.read(kept) == theirs.encode()
    assert deployment.machine.run("stat", "-c", "%a %U", kept, user="root").out.split() == ["600", "stack"]


def test_a_container_is_known_for_one(deployment: Deployment) -> None:
    profile = profile_for(deployment.machine, deployment.profile, deployment.settings)
    assert "container" in profile.fragments
