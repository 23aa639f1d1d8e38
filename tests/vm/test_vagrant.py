"""The real Vagrant: boxes with versions and checksums, its errors as one line of ours, and its end when we are interrupted."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stacklab.deploy.profile.model import Box
from stacklab.errors import MissingProgram, VmFailed
from stacklab.homes.libvirt.vagrant import Vagrant
from stacklab.lab import Lab
from tests.vm.conftest import quiet
from tests.vm.test_zz_removal import left


@pytest.fixture
def vagrant(own_directories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vagrant:
    if not shutil.which("vagrant"):
        pytest.skip("no Vagrant here: apt-get install -y vagrant vagrant-libvirt")
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "vagrant"))
    return Vagrant(Lab("boxes"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A box with nothing in it."""
    path = tmp_path / "tiny.box"
    with tarfile.open(path, "w") as archive:
        for name, text in (("metadata.json", '{"provider": "libvirt"}'), ("Vagrantfile", "")):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A download that never comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/some.box"


def test_a_box_gets_the_version_that_it_should_have(vagrant: Vagrant, tiny: Path) -> None:
    assert vagrant.box("a/box", "7.1") is None
    box = Box(name="a/box", version="7.1", url=tiny.as_uri(), sha256=hashlib.sha256(tiny.read_bytes()).hexdigest())
    vagrant.add_box(box, quiet)
    found = vagrant.box("a/box", "7.1")
    assert found is not None
    assert (found / "metadata.json").exists()
    assert vagrant.stored_version(box) == vagrant.stored_version(box.model_copy(update={"version": None})) == "7.1"
    assert vagrant.stored_version(box.model_copy(update={"version": "7.2"})) is None


def test_a_box_that_is_not_what_it_should_be_is_refused_in_one_line(vagrant: Vagrant, tiny: Path) -> None:
    with pytest.raises(VmFailed, match="checksum") as caught:
        vagrant.add_box(Box(name="a/box", version="7.1", url=tiny.as_uri(), sha256="ab" * 32), quiet)
    assert "\n" not in caught.value.message
    assert str(vagrant.log) in caught.value.advice
    assert "checksum" in vagrant.log.read_text()
    assert vagrant.box("a/box", "7.1") is None


def test_ctrl_c_ends_vagrant_and_what_it_started(vagrant: Vagrant, silent_server: str) -> None:
    pressed: list[float] = []

    def press(detail: str) -> None:
        if "Downloading" in detail:
            pressed.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vagrant.add_box(Box(name="a/box", version="1", url=silent_server), press)
    assert time.monotonic() - pressed[0] < 120
    assert not (vagrant.directory / "vagrant.json").exists()
    assert left(silent_server) == []
    assert left("box add a/box") == []


def test_without_vagrant_the_command_that_installs_it_is_told(
    vagrant: Vagrant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for attempt in (vagrant.check, lambda: vagrant.up(quiet, lambda: None)):
        with pytest.raises(MissingProgram) as caught:
            attempt()
        assert caught.value.advice == "sudo apt-get install -y vagrant vagrant-libvirt"


def test_its_versions_are_told_also_before_there_is_a_lab(vagrant: Vagrant) -> None:
    assert re.fullmatch(r"Vagrant \d+\.\d+\.\d+, vagrant-libvirt \d+\.\d+\.\d+", vagrant.check())
    assert not vagrant.directory.exists()


def test_a_vagrant_that_does_not_answer_is_given_up(vagrant: Vagrant) -> None:
    with pytest.raises(VmFailed, match="vagrant plugin did not answer within 0 s"):
        vagrant.check(seconds=0.05)
