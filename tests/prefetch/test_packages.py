"""The distribution's packages: apt itself, without root, downloads through the server; then upstream is taken away."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
from email.utils import formatdate
from pathlib import Path

import pytest
import requests

from stacklab import cache
from stacklab.deploy.profile.model import PlacedFile
from stacklab.lab import Lab
from stacklab.prefetch import serving
from stacklab.prefetch.serving import Served
from tests.prefetch.conftest import World
from tests.prefetch.upstream import WebDouble

SUITE = "dists/test"


def make_deb(web: WebDouble, tmp_path: Path, version: str) -> None:
    """A repository with one package, as dpkg's own tools make it."""
    tree = tmp_path / "deb"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: hello-lab\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: test\n"
    )
    pool = web.root / "debian/pool"
    pool.mkdir(parents=True, exist_ok=True)
    target = pool / f"hello-lab_{version}_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(target)], check=True, capture_output=True)
    listed = subprocess.run(
        ["dpkg-scanpackages", "--multiversion", "pool"], cwd=web.root / "debian", check=True, capture_output=True
    ).stdout
    binary = f"debian/{SUITE}/main/binary-amd64"
    packed = gzip.compress(listed)
    web.put(f"{binary}/Packages", listed)
    web.put(f"{binary}/Packages.gz", packed)
    lines = [
        f"Suite: test\nCodename: test\nComponents: main\nArchitectures: amd64\nDate: {formatdate(usegmt=True)}\nSHA256:"
    ]
    for name, content in (("Packages", listed), ("Packages.gz", packed)):
        lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} main/binary-amd64/{name}")
    web.put(f"debian/{SUITE}/Release", ("\n".join(lines) + "\n").encode())


class Apt:
    """apt with directories of its own."""

    def __init__(self, root: Path, source: str) -> None:
        for path in ("state/lists/partial", "cache/archives/partial", "etc", "out"):
            (root / path).mkdir(parents=True)
        (root / "status").touch()
        (root / "etc/sources.list").write_text(f"deb [trusted=yes arch=amd64] {source} test main\n")
        self.root = root
        self.options = [
            "-o", f"Dir::Etc={root / 'etc'}", "-o", f"Dir::State={root / 'state'}", "-o", f"Dir::Cache={root / 'cache'}",
            "-o", f"Dir::State::status={root / 'status'}", "-o", "APT::Architecture=amd64", "-o", "APT::Sandbox::User=",
            "-o", "Acquire::Retries=0", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Languages=none",
            "-o", "Acquire::http::Proxy=false",
        ]  # fmt: skip

    def __call__(self, *arguments: str, also: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
        return subprocess.run(
            ["apt-get", *self.options, *also, *arguments],
            cwd=self.root / "out", check=False, capture_output=True, text=True, timeout=120, env=environment,
        )  # fmt: skip

    def got(self) -> list[str]:
        return sorted(path.name for path in (self.root / "out").iterdir())


@pytest.fixture
def debian(world: World, tmp_path: Path) -> World:
    for program in ("apt-get", "dpkg-deb", "dpkg-scanpackages"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt install apt dpkg dpkg-dev")
    make_deb(world.web, tmp_path, "1.0")
    source = PlacedFile(path="/etc/apt/sources.list", content=f"deb {world.web.url}/debian test main", why="test")
    world.profile = world.profile.model_copy(update={"repositories": [source]})
    return world


@pytest.fixture
def served(debian: World, lab: Lab) -> Served:
    return serving.start(lab, "127.0.0.1", debian.profile, debian.settings)


def test_apt_needs_no_upstream_the_second_time(debian: World, served: Served, tmp_path: Path) -> None:
    source = serving.settings_for(served, debian.profile, debian.settings).at(f"{debian.web.url}/debian")
    assert source.startswith(served.url)
    first = Apt(tmp_path / "first", source)
    assert (done := first("update")).returncode == 0, done.stderr
    assert (done := first("download", "hello-lab")).returncode == 0, done.stderr
    debian.web.take_away()
    second = Apt(tmp_path / "second", source)
    assert (done := second("update")).returncode == 0, done.stderr
    assert (done := second("download", "hello-lab")).returncode == 0, done.stderr
    assert second.got() == ["hello-lab_1.0_all.deb"]
    assert "stale" in served.log.read_text()


def test_apt_may_ask_us_as_its_proxy(debian: World, served: Served, tmp_path: Path) -> None:
    apt = Apt(tmp_path / "apt", f"{debian.web.url}/debian")
    proxy = ("-o", f"Acquire::http::Proxy={served.url}")
    assert (done := apt("update", also=proxy)).returncode == 0, done.stderr
    debian.web.take_away()
    assert (done := apt("update", also=proxy)).returncode == 0, done.stderr
    assert apt("download", "hello-lab", also=proxy).returncode != 0  # it was never fetched


def test_a_new_list_is_seen_and_a_package_is_fetched_once(debian: World, served: Served, tmp_path: Path) -> None:
    source = serving.settings_for(served, debian.profile, debian.settings).at(f"{debian.web.url}/debian")
    apt = Apt(tmp_path / "apt", source)
    for _ in range(2):
        assert apt("update").returncode == 0
        assert apt("download", "hello-lab").returncode == 0
    assert debian.web.paths().count("/debian/pool/hello-lab_1.0_all.deb") == 1
    make_deb(debian.web, tmp_path, "2.0")
    assert (done := apt("update")).returncode == 0, done.stderr
    assert apt("download", "hello-lab").returncode == 0
    assert "hello-lab_2.0_all.deb" in apt.got()


def test_a_damaged_package_is_noticed_and_fetched_again(debian: World, served: Served) -> None:
    url = f"{served.url}packages/http/{debian.web.url.removeprefix('http://')}/debian/pool/hello-lab_1.0_all.deb"
    whole = requests.get(url, timeout=10).content
    assert requests.get(url, timeout=10).content == whole  # it is kept now: the first came while it was fetched
    kept = next((cache.root() / "packages").rglob("hello-lab_1.0_all.deb"))
    kept.write_bytes(b"x" * len(whole))
    assert requests.get(url, timeout=10).content == whole
    assert requests.get(url, timeout=10).content == whole  # after the fetched one has taken its place
    assert "damaged" in served.log.read_text()
    kept.write_bytes(b"y" * len(whole))
    debian.web.take_away()
    answer = requests.get(url, timeout=10)
    assert (answer.status_code, b"yyy" in answer.content) == (504, False)


def test_what_upstream_does_not_have_stays_not_found(debian: World, served: Served) -> None:
    url = f"{served.url}packages/http/{debian.web.url.removeprefix('http://')}/debian/nothing"
    assert requests.get(url, timeout=10).status_code == 404
    debian.web.take_away()
    assert requests.get(url, timeout=10).status_code == 404
    assert requests.get(f"{url}-else", timeout=10).status_code == 504


def test_it_is_no_open_proxy(debian: World, served: Served) -> None:
    for path in ("http/other.example/x", "https/127.0.0.1/x", "http/127.0.0.1:1/x"):
        assert requests.get(f"{served.url}packages/{path}", timeout=10).status_code == 403
    through = {"http": served.url}
    session = requests.Session()
    session.trust_env = False
    assert session.get("http://other.example/x", proxies=through, timeout=10).status_code == 403
