"""Accounts on a machine: sudo, and shells that talk. Needs root here, for the accounts are real."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stacklab.errors import CommandFailed, LoginRefused, SudoRefused
from stacklab.machines.address import Address
from stacklab.machines.ssh import SshMachine
from tests.machine.conftest import running_sshd
from tests.machine.sshd import Sshd
from tests.machine.test_ssh_commands import HOSTILE, PRINT, eventually, gone, long_time

KEYS = "AuthorizedKeysFile .ssh/authorized_keys"  # sshd reads it as the account, which may not look into pytest's directories

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="accounts are made for these tests: run them as root")


@dataclass(frozen=True)
class Account:
    """A temporary account and the sshd that lets it in by its key."""

    name: str
    home: Path
    sshd: Sshd

    def machine(self, sshd: Sshd | None = None, **options: object) -> SshMachine:
        server = sshd or self.sshd
        return server.machine(
            **{"address": Address("127.0.0.1", self.name, server.port), "key": self.sshd.key, **options}
        )


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An ordinary account; neither it nor anything of its is left."""
    name = f"labtest{os.getpid()}"
    home = Path("/home") / name
    with running_sshd(tmp_path_factory.mktemp("sshd"), KEYS) as sshd:
        subprocess.run(["useradd", "--create-home", "--home-dir", str(home), "--shell", "/bin/bash", name], check=True)
        try:
            (home / ".ssh").mkdir()
            shutil.copy(sshd.key.with_suffix(".pub"), home / ".ssh" / "authorized_keys")
            yield Account(name, home, sshd)
        finally:
            sshd.end_sessions()
            subprocess.run(["userdel", "--force", "--remove", name], check=True, capture_output=True)


@pytest.fixture
def sudoer(account: Account) -> Iterator[Account]:
    """The account while it may do anything without a password."""
    need_sudo()
    rule = Path("/etc/sudoers.d") / account.name
    rule.write_text(f"{account.name} ALL=(ALL) NOPASSWD: ALL\n")
    rule.chmod(0o440)
    try:
        yield account
    finally:
        rule.unlink()


def need_sudo() -> None:
    if shutil.which("sudo") is None:
        pytest.skip("sudo is missing: apt-get install sudo")


def test_a_shell_that_runs_nothing_is_told_from_a_command_that_fails(account: Account) -> None:
    subprocess.run(["usermod", "--shell", "/usr/sbin/nologin", account.name], check=True)
    try:
        with pytest.raises(LoginRefused, match="shell runs no commands"):
            account.machine().run("true")
    finally:
        subprocess.run(["usermod", "--shell", "/bin/bash", account.name], check=True)


def test_what_a_login_shell_prints_is_not_the_commands_output(account: Account, tmp_path: Path) -> None:
    bashrc = account.home / ".bashrc"
    before = bashrc.read_text() if bashrc.exists() else ""
    # Without the line that keeps other tests' shells from reading it.
    with running_sshd(tmp_path, KEYS, "SetEnv NOTHING=1") as server:
        bashrc.write_text("echo noise\necho more noise >&2\n")
        try:
            machine = account.machine(server)
            done = machine.run("sh", "-c", "echo out; echo err >&2")
            assert (done.out, done.err) == ("out\n", "err\n")
            machine.close()
        finally:
            bashrc.write_text(before)


def test_an_account_without_sudo_rights_is_refused_with_what_would_help(account: Account) -> None:
    need_sudo()
    machine = account.machine()
    with pytest.raises(SudoRefused, match=f"{account.name}.*cannot run commands as root") as refused:
        machine.run("true", user="root")
    assert "NOPASSWD" in refused.value.advice
    with pytest.raises(SudoRefused):
        machine.put("/etc/lab-test", "text")
    with pytest.raises(SudoRefused):
        machine.read("/etc/shadow")
    assert not Path("/etc/lab-test").exists()
    assert machine.run("id", "-un", user=account.name).ok, "oneself needs no sudo"
    machine.close()


def test_with_sudo_rights_everything_is_as_with_root(sudoer: Account, tmp_path: Path) -> None:
    machine = sudoer.machine()
    assert machine.run(*PRINT, *HOSTILE, user="root").out == "\0".join(HOSTILE)
    shown = machine.script('id -un; echo "$HOME $LOGNAME"; pwd', user="root").lines
    assert shown == ["root", "/root root", "/root"]
    assert machine.run("id", "-un", user="games").lines == ["games"]
    assert machine.run("sh", "-c", 'echo "$A"', user="root", environment={"A": "b c"}).lines == ["b c"]
    assert machine.run("cat", user="root", given=b"x" * 1_000_000).out == "x" * 1_000_000
    assert machine.run("sh", "-c", "kill -9 $$", user="root", check=False).status == 137
    path = tmp_path / "file"
    machine.put(str(path), "secret", mode=0o600, owner=sudoer.name)
    assert (path.read_text(), path.owner(), path.group()) == ("secret", sudoer.name, sudoer.name)
    assert machine.read(str(path)) == b"secret"
    machine.close()


def test_a_command_of_roots_is_ended_in_time_through_sudo(sudoer: Account) -> None:
    nap = long_time()
    machine = sudoer.machine()
    with pytest.raises(CommandFailed, match="did not end"):
        machine.run("sh", "-c", f"(trap '' TERM; exec sleep {nap}) & sleep {nap}", user="root", seconds=0.5)
    assert eventually(lambda: gone(nap))
    machine.close()


def test_a_command_that_fails_under_sudo_is_no_refusal(sudoer: Account) -> None:
    machine = sudoer.machine()
    done = machine.run("sh", "-c", "echo sudo: a password is required >&2; exit 1", user="root", check=False)
    assert (done.status, done.err) == (1, "sudo: a password is required\n")
    with pytest.raises(SudoRefused, match="unknown user"):
        machine.run("true", user="lab-nobody-here")
    machine.close()
