"""A profile whose internet is the test's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stacklab.cache import cache_root
from stacklab.deploy.profile.load import load_profile
from stacklab.deploy.profile.model import Box, DevStack, PlacedFile, Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.lab import Lab
from stacklab.machines.ssh import SshMachine
from stacklab.prefetch import serving
from stacklab.prefetch.plan import facts
from tests.machine.conftest import running_sshd
from tests.prefetch.upstream import IndexOnWeb, Repositories, WebDouble, wheel

BRANCH = "stable/2026.1"
STACKRC = """\
TARGET_BRANCH=stable/2026.1
GIT_BASE=${GIT_BASE:-https://opendev.org}
REQUIREMENTS_REPO=${REQUIREMENTS_REPO:-${GIT_BASE}/openstack/requirements.git}
REQUIREMENTS_BRANCH=${REQUIREMENTS_BRANCH:-$TARGET_BRANCH}
KEYSTONE_REPO=${KEYSTONE_REPO:-${GIT_BASE}/openstack/keystone.git}
KEYSTONE_BRANCH=${KEYSTONE_BRANCH:-$TARGET_BRANCH}
NOVNC_REPO=${NOVNC_REPO:-https://github.com/novnc/novnc.git}
NOVNC_BRANCH=${NOVNC_BRANCH:-v1.3.0}
GITREPO["pbr"]=${PBR_REPO:-${GIT_BASE}/openstack/pbr.git}
"""


@dataclass
class World:
    """What is out there, and the profile and settings that lead to it."""

    web: WebDouble
    repositories: Repositories
    index: IndexOnWeb
    profile: Profile
    settings: Settings

    def take_away(self) -> None:
        self.web.take_away()
        self.repositories.take_away()


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, own_directories: Path) -> None:
    """Neither proxies nor a pip that is configured."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "PIP_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebDouble]:
    (tmp_path / "web").mkdir()
    double = WebDouble(tmp_path / "web")
    yield double
    double.take_away()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repositories, to be copied: making them takes some sixty commands."""
    if shutil.which("git") is None:
        pytest.skip("git is missing: apt install git")
    repositories = Repositories(tmp_path_factory.mktemp("repositories"))
    repositories.commit("openstack/devstack", BRANCH, {"stackrc": STACKRC})
    repositories.commit("openstack/keystone", "master", {"README": "not wanted"})
    needs = "alpha>=1 # why\nold;python_version<'3'\n"
    repositories.commit("openstack/keystone", BRANCH, {"requirements.txt": needs}, "29.0.0")
    repositories.commit(
        "openstack/requirements", BRANCH, {"upper-constraints.txt": "alpha===1.5\nbeta===2.0\nsetuptools===99.0\n"}
    )
    repositories.commit("novnc/noVNC", "master", {"vnc.html": "hello"}, "v1.3.0")
    repositories.commit("novnc/noVNC", "master", {"vnc.html": "newer"})
    return repositories.root


@pytest.fixture
def world(tmp_path: Path, web: WebDouble, made_once: Path) -> World:
    shutil.copytree(made_once, tmp_path / "git")
    repositories = Repositories(tmp_path / "git")
    index = IndexOnWeb(web)
    known = facts()["python"]
    for text in [*known["every"], *known["3"], *known["newest"]]:
        name = text.partition("[")[0].partition(">")[0]
        if not (web.root / "simple" / name.lower()).exists():
            index.offer(wheel(name, "99.0"))
    index.offer(wheel("alpha", "1.5", ("beta", "gamma[more]; python_version >= '3'", "never; sys_platform == 'win32'")))
    index.offer(wheel("alpha", "1.6"))
    index.offer(wheel("setuptools", "100.0"))
    index.offer(wheel("beta", "2.0"))
    index.offer(wheel("gamma", "3.1", ("delta; extra == 'more'",), "more"))
    index.offer(wheel("delta", "4.0"))
    web.put("cirros.img", b"an image")
    web.put("lab.box", b"a box" * 200_000)
    profile = load_profile("debian12-2026.1").model_copy(
        update={
            "devstack": DevStack(repo="https://git.example/openstack/devstack", ref=BRANCH),
            "values": {
                "git_base": "https://git.example",
                "branches": {},
                "novnc_repo": "https://git.example/novnc/noVNC.git",
            },
            "files": [PlacedFile(path="files/cirros.img", url=f"{web.url}/cirros.img", why="test")],
            "box": Box(name="lab/box", url=f"{web.url}/lab.box"),
            "repositories": [],
        }
    )
    settings = Settings(mirrors={"https://git.example/": f"{repositories.root.as_uri()}/"}, pip_index=index.url)
    return World(web, repositories, index, profile, settings)


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab("prefetch")
    made.directory.mkdir(parents=True)
    cache_root().mkdir(parents=True, exist_ok=True)
    yield made
    serving.stop(made)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[SshMachine]:
    """Behind a real sshd, which is this machine's."""
    (tmp_path / "sshd").mkdir()
    with running_sshd(tmp_path / "sshd") as sshd:
        there = sshd.machine()
        there.connect()
        yield there
        there.close()
