"""Connections: who is at the other end, who we are, and what happens when they break."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stacklab.errors import HostKeyChanged, LoginRefused, MachineUnreachable
from stacklab.machines.address import Address
from stacklab.machines.ssh import SshMachine, wait_for_ssh
from tests.machine.conftest import running_sshd
from tests.machine.sshd import Proxy, Sshd, fingerprint, free_port, new_key
from tests.machine.test_ssh_commands import HOSTILE, end, eventually, long_time, running

Configured = Callable[..., SshMachine]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, and no agent."""
    path = tmp_path / "home"
    (path / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return path


@pytest.fixture
def configured(sshd: Sshd, tmp_path: Path) -> Iterator[Configured]:
    """Makes the machine that the alias `kurs` means, with these lines of ssh_config for it."""
    made: list[SshMachine] = []

    def machine(lines: str = "", key: Path | None = None, **options: object) -> SshMachine:
        (tmp_path / "config").write_text(f"Host kurs\n HostName 127.0.0.1\n Port {sshd.port}\n {lines}\n")
        made.append(sshd.machine(address=Address.parse("kurs", config=tmp_path / "config"), key=key, **options))
        return made[-1]

    yield machine
    for each in made:
        each.close()


# --- host keys -----------------------------------------------------------------------------------------------------


def test_the_first_contact_pins_the_host_key_and_says_so(sshd: Sshd, home: Path) -> None:
    lines: list[str] = []
    machine = sshd.machine(say=lines.append)
    machine.run("true")
    machine.close()
    machine.run("true")
    kind, text = sshd.host_key.with_suffix(".pub").read_text().split()[:2]
    shown = fingerprint(sshd.host_key)
    assert [shown in line for line in lines] == [True]
    assert machine.pinned() == [f"{kind} {shown}"]
    assert sshd.known_hosts.read_text() == f"[127.0.0.1]:{sshd.port} {kind} {text}\n"
    assert sshd.known_hosts.stat().st_mode & 0o777 == 0o600
    assert list((home / ".ssh").iterdir()) == []


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_another_host_key_is_refused_until_the_old_one_is_forgotten(sshd: Sshd, kind: str) -> None:
    machine = sshd.machine()
    machine.run("true")
    machine.close()
    sshd.stop()
    sshd.host_key.unlink()
    new_key(sshd.host_key, kind)
    sshd.start()
    with pytest.raises(HostKeyChanged, match=f"another host key.*{kind}") as refused:
        machine.run("true")
    assert "ssh-keygen -R" in refused.value.advice
    with pytest.raises(HostKeyChanged):
        wait_for_ssh(machine, 30, lambda _: None)
    with sshd.known_hosts.open("a") as file:
        file.write("another ssh-ed25519 AAAA\n")
    machine.forget_host_key()
    assert machine.run("echo", "hello").out == "hello\n"
    assert "another ssh-ed25519 AAAA" in sshd.known_hosts.read_text()


def test_a_host_key_is_pinned_under_its_alias(sshd: Sshd, configured: Configured) -> None:
    machine = configured("HostKeyAlias teacher", sshd.key)
    machine.run("true")
    machine.close()
    assert [line.split()[0] for line in sshd.known_hosts.read_text().splitlines()] == ["teacher"]
    assert machine.run("true").ok
    assert subprocess.run(machine.ssh_argv("true"), check=False, stdin=subprocess.DEVNULL).returncode == 0


# --- logins --------------------------------------------------------------------------------------------------------


def test_a_login_that_is_refused_is_told_with_what_was_tried(
    sshd: Sshd, home: Path, tmp_path: Path, configured: Configured
) -> None:
    (tmp_path / "nonsense").write_text("this is no key")
    wrong, locked = new_key(tmp_path / "wrong"), passphrase(Path(shutil.copy(sshd.key, tmp_path / "locked")))
    for key, why in (
        (wrong, re.escape(str(wrong))),
        (locked, r"passphrase.*ssh-add"),
        (tmp_path / "absent", "no such file"),
        (tmp_path / "nonsense", r"nonsense \(not offered"),
    ):
        with pytest.raises(LoginRefused, match=why):
            wait_for_ssh(sshd.machine(key=key), 60, lambda _: None)  # not waited for
    with pytest.raises(LoginRefused, match="no key and no agent"):
        configured("IdentityFile none").run("true")


def passphrase(key: Path) -> Path:
    """Give a private key a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(key)], check=True)
    return key


@pytest.fixture
def agent(sshd: Sshd) -> Iterator[Path]:
    """The socket of an agent that holds the right key."""
    where = Path(f"/tmp/lab-agent-{os.getpid()}")  # noqa: S108  # a socket's path may have 108 bytes, pytest's directories are longer
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(where)], stdout=subprocess.DEVNULL)
    try:
        assert eventually(where.exists)
        subprocess.run(["ssh-add", "-q", str(sshd.key)], check=True, env={**os.environ, "SSH_AUTH_SOCK": str(where)})
        yield where
    finally:
        process.terminate()
        process.wait()
        where.unlink(missing_ok=True)


def certified(sshd: Sshd, key: Path) -> Path:
    """A certificate for a key, by an authority that the machine trusts."""
    authority = new_key(sshd.directory / "authority")
    argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "lab test", "-n", sshd.user, str(key.with_suffix(".pub"))]
    subprocess.run(argv, check=True)
    with sshd.authorized.open("a") as file:
        file.write(f"cert-authority {authority.with_suffix('.pub').read_text()}")
    return key.with_name(f"{key.name}-cert.pub").rename(key.with_name("certificate"))


PROXY = "bash -c 'exec 3<>/dev/tcp/%h/%p; cat <&3 & exec cat >&3'"


@pytest.mark.parametrize(
    ("config", "in_environment"),
    [
        pytest.param("", True, id="nothing but the agent"),
        pytest.param("IdentityAgent {agent}", False, id="an agent that the configuration names"),
        pytest.param("IdentityFile {locked}", True, id="a key with a passphrase that the agent holds"),
        pytest.param("IdentityFile {other}", True, id="another key for all hosts"),
        pytest.param("IdentityFile {public}\n IdentitiesOnly yes", True, id="the public half of what the agent holds"),
        pytest.param("IdentityAgent $LAB_AGENT", False, id="an agent that a variable names"),
        pytest.param("IdentityFile ${{LAB_FILES}}/locked", True, id="a key that a variable names"),
        pytest.param("IdentityFile {other}\n IdentityFile {right}", False, id="the second of two keys"),
        pytest.param("IdentityFile {other}\n CertificateFile {certificate}", False, id="a certificate"),
        pytest.param("CertificateFile {certificate}", True, id="a certificate for no key of the agent"),
        pytest.param(f"ProxyCommand {PROXY}", True, id="a ProxyCommand"),
    ],
)
def test_whoever_gets_in_with_ssh_gets_in(
    sshd: Sshd, home: Path, tmp_path: Path, agent: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch,
    config: str, in_environment: bool,
) -> None:  # fmt: skip
    files = {"agent": agent, "other": new_key(tmp_path / "other"), "public": tmp_path / "public.pub"}
    files["public"].write_text(sshd.key.with_suffix(".pub").read_text())
    files["locked"] = passphrase(Path(shutil.copy(sshd.key, tmp_path / "locked")))
    files["right"], files["certificate"] = sshd.key, certified(sshd, files["other"])
    monkeypatch.setenv("LAB_AGENT", str(agent))
    monkeypatch.setenv("LAB_FILES", str(tmp_path))
    if in_environment:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    assert configured(config.format(**files)).run("true").ok


def test_of_the_agents_keys_only_those_asked_for_are_offered(
    sshd: Sshd, home: Path, tmp_path: Path, agent: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    other, certificate = new_key(tmp_path / "other"), certified(sshd, sshd.key)
    for machine in (configured(f"IdentityFile {other}\n IdentitiesOnly yes"), sshd.machine(key=other)):
        with pytest.raises(LoginRefused, match=f"Tried: key {re.escape(str(other))}$"):
            machine.run("true")
    # The certificate is the only thing that lets the agent's key in now.
    sshd.authorized.write_text(sshd.authorized.read_text().split("\n", 1)[1])
    assert configured(f"CertificateFile {certificate}").run("true").ok


def test_an_agent_that_refuses_to_sign_costs_its_key_only(
    sshd: Sshd, home: Path, tmp_path: Path, agent: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    other = new_key(tmp_path / "other")
    subprocess.run(["ssh-add", "-q", "-c", str(other)], check=True)  # it would have to ask somebody
    with sshd.authorized.open("a") as file:
        file.write(other.with_suffix(".pub").read_text())
    assert configured(f"IdentityFile {other}").run("true").ok


def test_a_proxy_command_tells_why_it_fails_and_ends_with_the_connection(sshd: Sshd, configured: Configured) -> None:
    with pytest.raises(MachineUnreachable, match=r"no way to 127\.0\.0\.1"):
        configured("ProxyCommand echo 'no way to %h' >&2; exit 1").run("true")
    nap = long_time()
    machine = configured(f"ProxyCommand {PROXY.replace('cat <&3', f'sleep {nap} & cat <&3')}", sshd.key)
    assert machine.run("true").ok
    assert running(nap)
    machine.close()
    assert eventually(lambda: not running(nap))


# --- no way there --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "why"),
    [("127.0.0.1", "cannot be reached: Connection refused"), ("no-such-host.invalid", "cannot be reached")],
)
def test_a_machine_that_is_not_there_is_waited_for_and_told(tmp_path: Path, host: str, why: str) -> None:
    machine = SshMachine(Address(host, "root", free_port()), known_hosts=tmp_path / "known_hosts")
    with pytest.raises(MachineUnreachable, match=why):
        machine.run("true")
    lines: list[str] = []
    with pytest.raises(MachineUnreachable, match=f"SSH with .* did not come within 2 s: .*{why}"):
        wait_for_ssh(machine, 2, lines.append)
    assert why in lines[0]


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_is_no_ssh_server_is_given_up(tmp_path: Path, greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []

        def greet() -> None:
            accepted.append(server.accept()[0])
            accepted[0].sendall(greeting)
            if greeting:
                accepted[0].close()

        thread = threading.Thread(target=greet)
        thread.start()
        address = Address("127.0.0.1", "root", server.getsockname()[1])
        machine = SshMachine(address, known_hosts=tmp_path / "known_hosts", connect=1)
        with pytest.raises(MachineUnreachable, match="did not answer as an SSH server does"):
            machine.run("true")
        thread.join()
        accepted[0].close()


def test_waiting_ends_when_the_machine_is_there(sshd: Sshd) -> None:
    sshd.stop()
    lines: list[str] = []

    def start(line: str) -> None:
        lines.append(line)
        if len(lines) == 1:
            sshd.start()

    wait_for_ssh(sshd.machine(), 60, start)
    assert lines


# --- lost on the way -----------------------------------------------------------------------------------------------


def test_a_connection_killed_under_a_command_is_an_error_and_the_next_call_connects_again(sshd: Sshd) -> None:
    nap = long_time()
    machine = sshd.machine()
    machine.connect()

    def cut() -> None:
        assert eventually(lambda: running(nap))
        sshd.end_sessions()

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(MachineUnreachable, match="was lost while it ran sh -c"):
        machine.run("sh", "-c", f"exec sleep {nap}", seconds=30)
    thread.join()
    assert machine.run("echo", "again").out == "again\n"


def test_sshd_started_again_between_two_calls_goes_unnoticed(sshd: Sshd) -> None:
    machine = sshd.machine()
    machine.run("true")
    sshd.end_sessions()
    sshd.stop()
    sshd.start()
    assert machine.run("echo", "again").out == "again\n"


def test_a_network_that_hangs_under_a_command_is_noticed_and_one_that_is_silent_is_left_alone(sshd: Sshd) -> None:
    nap, proxy = long_time(), Proxy(sshd.port)
    machine = sshd.machine(address=Address("127.0.0.1", sshd.user, proxy.port), pulse=1, patience=6, connect=10)
    assert machine.run("sh", "-c", "sleep 9; echo done").out == "done\n"

    def freeze() -> None:
        assert eventually(lambda: running(nap))
        proxy.freeze()

    thread = threading.Thread(target=freeze)
    thread.start()
    with pytest.raises(MachineUnreachable, match="no sign of life"):
        machine.run("sh", "-c", f"exec sleep {nap}", seconds=60)
    thread.join()
    end(nap)
    proxy.thaw()
    assert machine.run("echo", "again").out == "again\n"
    proxy.close()


# --- through, and with what ----------------------------------------------------------------------------------------


def test_a_machine_behind_others_is_reached_through_them(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "jump").mkdir()
    with running_sshd(tmp_path / "jump") as jump:
        jump.authorized.write_text(sshd.key.with_suffix(".pub").read_text())
        config = tmp_path / "config"
        config.write_text(
            f"Host lab\n Port {jump.port}\nHost behind\n Port {sshd.port}\n ProxyJump lab\nHost far\n ProxyJump lab,behind\n"
            f" Port {sshd.port}\nHost *\n HostName 127.0.0.1\n User {sshd.user}\n IdentityFile {sshd.key}\n"
        )
        for name in ("lab", "ssh://lab", f"{sshd.user}@behind", "far"):
            machine = SshMachine(Address.parse(name, config=config), known_hosts=tmp_path / "known_hosts")
            assert machine.run("cat", given=name).out == name
            assert name.endswith("lab") or jump.sessions()
            words = ["printf", "%s|", *[word for word in HOSTILE if word]]
            done = subprocess.run(machine.ssh_argv(*words), capture_output=True, check=True, stdin=subprocess.DEVNULL)
            assert done.stdout.decode() == "|".join(words[2:]) + "|"
            machine.close()
        names = sorted({line.split()[0] for line in (tmp_path / "known_hosts").read_text().splitlines()})
        assert names == sorted(f"[127.0.0.1]:{server.port}" for server in (jump, sshd))


def test_ipv6_addresses_are_served(sshd: Sshd, tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 on the loopback interface ({error}): sysctl -w net.ipv6.conf.lo.disable_ipv6=0")
    (tmp_path / "six").mkdir()
    with running_sshd(tmp_path / "six", "ListenAddress ::1") as server:
        machine = server.machine(address=Address.parse(f"ssh://{server.user}@[::1]:{server.port}"))
        assert machine.run("true").ok
        done = subprocess.run(machine.ssh_argv("echo", "hi"), capture_output=True, check=True, stdin=subprocess.DEVNULL)
        assert done.stdout == b"hi\n"
        machine.close()


def test_the_users_language_stays_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distributions' ssh_config sends it on."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    (tmp_path / "config").write_text("SendEnv LANG LC_*\n")
    with running_sshd(tmp_path, "AcceptEnv LANG LC_*") as server:
        address = Address.parse(f"ssh://127.0.0.1:{server.port}", config=tmp_path / "config")
        machine = server.machine(address=address)
        assert machine.run("sh", "-c", "env | grep LC_ || echo none").out == "none\n"
        machine.close()
