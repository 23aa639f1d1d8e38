"""What the tests against real machines share.

`sshd`: a real sshd of the test's own on a loopback port, running as the current user. `sshd.machine()` gives a
`stacklab.machines.ssh.SshMachine` that logs in there with a key; `sshd.machine(key=…, password=…)` and so on with something
else.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stacklab.machines.ssh import SshMachine
from tests.machine.sshd import Sshd, free_port


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first may have to build a root file system; all reach their machine by ssh."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(3600))
            if shutil.which("ssh") is None:
                item.add_marker(pytest.mark.skip("no ssh here: apt-get install openssh-client"))


def missing_sshd() -> str | None:
    """Why no sshd can be started here, with the command that enables it, or None."""
    if shutil.which("ssh") is None or shutil.which("sshd", path="/usr/local/sbin:/usr/sbin:/usr/bin") is None:
        return "OpenSSH is not all here: apt-get install openssh-server openssh-client"
    return None


@contextmanager
def running_sshd(directory: Path, *options: str) -> Iterator[Sshd]:
    """An sshd with these lines in its sshd_config; skips the test where there is none."""
    if reason := missing_sshd():
        pytest.skip(reason)
    server = Sshd(directory, *options)
    try:
        try:
            server.start()
        except AssertionError:  # somebody else was faster at its port
            server.port = free_port()
            server.configure(*options)
            server.start()
        yield server
    finally:
        server.end_sessions()
        server.stop()


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A running sshd of this test's own; its sessions are ended with it."""
    directory = tmp_path / "sshd"
    directory.mkdir()
    with running_sshd(directory) as server:
        yield server


@pytest.fixture
def machine(sshd: Sshd) -> Iterator[SshMachine]:
    """The current user's account on `sshd`."""
    here = sshd.machine()
    yield here
    here.close()
