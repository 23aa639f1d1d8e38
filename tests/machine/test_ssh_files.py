"""Files on a machine: written whole or not at all, read to the byte."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stacklab.errors import CommandFailed, MachineUnreachable, NotEnoughSpace
from stacklab.machines.address import Address
from stacklab.machines.ssh import SshMachine
from tests.machine.sshd import Proxy, Sshd
from tests.machine.test_ssh_commands import eventually

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="files are written as root: run the tests as root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    path = tmp_path / "small"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.decode().strip()}; run where mount is allowed")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_file_arrives_with_its_mode_and_owner_and_its_directory(machine: SshMachine, tmp_path: Path) -> None:
    path = tmp_path / "new" / "it's a $(name)" / "-file\n"
    data = bytes(range(256)) * 100
    machine.put(str(path), data, mode=0o640, owner="games")
    assert path.read_bytes() == data
    about = path.stat()
    assert (about.st_mode & 0o7777, path.owner(), path.group()) == (0o640, "games", "games" if about.st_gid else "root")
    assert path.parent.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_is_replaced_with_text_and_belongs_to_root(machine: SshMachine, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a much longer text than the new one")
    machine.put(str(path), "ünï\n")
    assert path.read_text() == "ünï\n"
    assert (path.stat().st_mode & 0o7777, path.owner(), path.group()) == (0o644, "root", "root")
    machine.put(str(path), "", owner="root:games")
    assert (path.read_text(), path.group()) == ("", "games")


def test_what_cannot_be_written_leaves_the_old_file(machine: SshMachine, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(CommandFailed, match="lab-nobody-here"):
        machine.put(str(path), "new", owner="lab-nobody-here")
    with pytest.raises(CommandFailed, match="is a directory"):
        machine.put(str(tmp_path), "text")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".lab-")] == []


def test_a_full_disk_leaves_the_old_file_and_nothing_else(machine: SshMachine, small_disk: Path) -> None:
    path = small_disk / "file"
    machine.put(str(path), "old")
    with pytest.raises(NotEnoughSpace, match=str(path)):
        machine.put(str(path), b"x" * 3_000_000)
    assert path.read_text() == "old"
    assert [entry.name for entry in small_disk.iterdir()] == ["file"]


@pytest.mark.parametrize("how", ["put", "replace"])
def test_a_connection_lost_halfway_leaves_the_old_file_and_nothing_else(sshd: Sshd, tmp_path: Path, how: str) -> None:
    proxy = Proxy(sshd.port)
    machine = sshd.machine(address=Address("127.0.0.1", sshd.user, proxy.port))
    machine.connect()
    data, path = os.urandom(8_000_000), tmp_path / "file"
    path.write_text("old")
    write = {"put": machine.put, "replace": machine.replace}[how]
    proxy.cut_after = len(data) // 2
    with pytest.raises(MachineUnreachable, match="lost while"):
        write(str(path), data)
    assert eventually(lambda: list(tmp_path.glob(".lab-*")) == [])
    assert path.read_text() == "old"
    write(str(path), data)
    assert path.read_bytes() == data
    proxy.close()


def test_what_replaces_a_file_keeps_owner_and_mode_and_links(machine: SshMachine, tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    machine.put(str(path), "old and longer", mode=0o4750, owner="games")
    before = path.stat()
    link.symlink_to("file")
    for name, content in ((path, "new"), (link, b"\xff through a link")):
        machine.replace(str(name), content)
        after = path.stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert path.read_bytes() == b"\xff through a link"
    assert link.is_symlink()
    with pytest.raises(CommandFailed, match="there is no file"):
        machine.replace(str(tmp_path / "absent"), "text")
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name != "sshd") == ["file", "link"]


def test_a_file_is_read_to_the_byte(machine: SshMachine, tmp_path: Path) -> None:
    path = tmp_path / "it's $(binary)"
    data = os.urandom(300_000) + b"\n\0\n"
    path.write_bytes(data)
    assert machine.read(str(path)) == data
    assert machine.read(str(path), offset=299_999) == data[299_999:]
    assert machine.read(str(path), offset=7, limit=5) == data[7:12]
    assert machine.read(str(path), limit=0) == b""
    assert machine.read(str(path), offset=len(data)) == b""
    assert machine.read(str(path), offset=10 * len(data), limit=10) == b""


def test_a_file_that_is_not_there_is_none(machine: SshMachine, tmp_path: Path) -> None:
    assert machine.read(str(tmp_path / "absent")) is None
    assert machine.read(str(tmp_path / "absent" / "deeper"), offset=1, limit=1) is None


def test_what_cannot_be_read_is_an_error(machine: SshMachine, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="is a directory"):
        machine.read(str(tmp_path))
    with pytest.raises(CommandFailed, match="cannot be read"):
        machine.read("/proc/self/mem", limit=10)
