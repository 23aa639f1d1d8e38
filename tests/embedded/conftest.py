"""One real cloud for all these tests: a lab of its own, with the software and the template of the user's cache.

LAB_TEST_FRESH=1 installs and initialises everything anew instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest

from stacklab.course.load import load_session
from stacklab.events import StageEnded
from stacklab.homes.embedded import supervision
from stacklab.homes.embedded.home import EmbeddedHome
from stacklab.homes.plan import Plan
from stacklab.lab import Lab
from stacklab.replay.bringup import bring_up as lab_up
from stacklab.stages import run_stages

Up = Callable[[EmbeddedHome], dict[str, StageEnded]]


def quiet(detail: str) -> None:
    """Progress that nobody reads."""


def bring_up(home: EmbeddedHome) -> dict[str, StageEnded]:
    """`lab up`; how each stage ended, by name."""
    ended: dict[str, StageEnded] = {}
    run_stages(
        home.lab,
        home.stages(),
        lambda event: ended.update({event.stage: event} if isinstance(event, StageEnded) else {}),
    )
    return ended


def end(home: EmbeddedHome) -> None:
    """Whatever a test did, nothing of this cloud runs on."""
    home.stop(quiet, patience=0)


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """XDG directories: labs here; what can be shared where the user has it."""
    root = tmp_path_factory.mktemp("xdg")
    kinds = ("STATE", "DATA", "CACHE") if os.environ.get("LAB_TEST_FRESH") else ("STATE",)
    with pytest.MonkeyPatch.context() as patch:
        for kind in kinds:
            patch.setenv(f"XDG_{kind}_HOME", str(root / kind.lower()))
        yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def patience() -> Iterator[None]:
    """Guests are emulated here, beside much else: how soon one answers is not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stacklab.kinds.instance.TRY_SECONDS", 90)
        patch.setattr("stacklab.kinds.instance.BOOT_SECONDS", 1000)
        yield


@pytest.fixture(scope="session")
def cloud_home(directories: Path) -> Iterator[EmbeddedHome]:
    """The cloud, up."""
    home = EmbeddedHome(Lab("tests"))
    try:
        bring_up(home)
        yield home
    finally:
        end(home)


@pytest.fixture(scope="module")
def running(cloud_home: EmbeddedHome) -> Lab:
    """The same cloud as a learner has it after `lab up session4`."""
    lab_up(cloud_home.lab, load_session("session4"), Plan(home="embedded"), None, lambda event: None)
    return cloud_home.lab


@pytest.fixture
def home(cloud_home: EmbeddedHome) -> EmbeddedHome:
    """The cloud, up, whatever the test before did to its processes."""
    states = supervision.services(cloud_home.layout)
    if any(state.state != "running" for state in states):
        bring_up(cloud_home)
    return cloud_home


@pytest.fixture
def fresh(home: EmbeddedHome) -> Iterator[EmbeddedHome]:
    """The cloud as `lab up` left it, and put back afterwards."""
    home.checkpoints.restore("start", quiet)
    yield home
    if supervision.is_running(home.layout):
        home.checkpoints.restore("start", quiet)


@pytest.fixture
def admin(home: EmbeddedHome) -> Iterator[Any]:
    """A connection as the cloud's admin."""
    yield from connect(home, "lab-admin")


@pytest.fixture
def own_home(directories: Path, request: pytest.FixtureRequest) -> Iterator[EmbeddedHome]:
    """Another lab, of this test alone; not up yet."""
    home = EmbeddedHome(Lab(f"own-{abs(hash(request.node.name)) % 10**6}"))
    try:
        yield home
    finally:
        end(home)
        shutil.rmtree(home.lab.directory, ignore_errors=True)


def connect(home: EmbeddedHome, name: str) -> Iterator[Any]:
    """A connection with an entry of the home's clouds.yaml."""
    config = openstack.config.OpenStackConfig(config_files=[str(home.access().clouds_file)], load_envvars=False)
    connection = openstack.connection.Connection(config=config.get_one(name))
    try:
        yield connection
    finally:
        connection.close()
