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
    content = (deployment.machine.read(WHERE) or b"").decode()
    assert f"ADMIN_PASSWORD={deployment.lab.secret('admin')}\n" in content
    assert f"HOST_IP={deployment.host_ip}\n" in content
    assert run(deployment) == (WHERE, "")
    deployment.machine.run("chmod", "644", WHERE, user="root")
    assert run(deployment) == (None, WHERE)
    assert run(deployment) == (WHERE, "")
    assert run(replace(deployment, services=("heat",))) == (None, WHERE)


def test_a_file_that_somebody_else_wrote_stays_beside_it(deployment: Deployment) -> None:
    theirs = "[[local|localrc]]\nADMIN_PASSWORD=mine\n"
    deployment.machine.put(WHERE, theirs, owner="stack")
    run(deployment)
    saved = "/opt/stack/devstack/local.conf.before-lab"
    assert deployment.machine.read(saved) == theirs.encode()
    assert deployment.machine.run("stat", "-c", "%a %U", saved, user="root").out.split() == ["600", "stack"]
    assert run(deployment) == (WHERE, "")


def test_a_container_is_known_for_one(deployment: Deployment) -> None:
    profile = profile_for(deployment.machine, deployment.profile, deployment.settings)
    assert "container" in profile.fragments
