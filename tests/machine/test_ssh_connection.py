"""Connections: who is at the other end, who we are, and what happens when they break."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stacklab.errors import HostKeyChanged, LoginRefused, MachineUnreachable
from stacklab.machines.address import Address
from stacklab.machines.known_hosts import HostKey, KnownHosts
from stacklab.machines.ssh import SshMachine, wait_for_ssh
from stacklab.machines.ssh_connection import no_way
from tests.machine.conftest import running_sshd
from tests.machine.sshd import Proxy, Sshd, free_port, new_key
from tests.machine.test_ssh_commands import HOSTILE, end, eventually, long_time, running


@pytest.fixture
def proxy(sshd: Sshd) -> Iterator[Proxy]:
    """A network in front of `sshd` that can hang."""
    between = Proxy(sshd.port)
    yield between
    between.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, and no agent."""
    path = tmp_path / "home"
    (path / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return path


# --- host keys -----------------------------------------------------------------------------------------------------


def test_the_first_contact_pins_the_host_key_and_says_so(sshd: Sshd, home: Path) -> None:
    said: list[str] = []
    machine = sshd.machine(say=said.append)
    machine.run("true")
    machine.close()
    machine.run("true")
    key = HostKey(*sshd.host_key.with_suffix(".pub").read_text().split()[:2])
    assert len(said) == 1
    assert key.fingerprint in said[0]
    assert KnownHosts(sshd.known_hosts).of(f"[127.0.0.1]:{sshd.port}") == [key]
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
    assert machine.forget_host_key() is True
    assert machine.run("echo", "hello").out == "hello\n"
    machine.forget_host_key()
    assert machine.forget_host_key() is False


def test_forgetting_a_host_key_leaves_those_of_other_machines(tmp_path: Path) -> None:
    words = new_key(tmp_path / "key").with_suffix(".pub").read_text().split()
    key = HostKey(words[0], words[1])
    known = KnownHosts(tmp_path / "known_hosts")
    known.path.write_text("".join(f"{name} {words[0]} {words[1]}\n" for name in ("one", "two", "[one]:2222")))
    assert known.forget("one") is True
    assert known.forget("one") is False
    assert (known.of("one"), known.of("two"), known.of("[one]:2222")) == ([], [key], [key])
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(known.path)], capture_output=True, text=True, check=True
    ).stdout
    assert key.fingerprint in shown


# --- logins --------------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_refused_with_what_was_tried(sshd: Sshd, home: Path, tmp_path: Path) -> None:
    wrong = new_key(tmp_path / "wrong")
    with pytest.raises(LoginRefused, match=re.escape(str(wrong))):
        sshd.machine(key=wrong).run("true")


def test_a_key_file_that_cannot_be_used_is_told_apart(sshd: Sshd, home: Path, tmp_path: Path) -> None:
    locked = passphrase(Path(shutil.copy(sshd.key, tmp_path / "locked")))
    with pytest.raises(LoginRefused, match=r"passphrase.*ssh-add"):
        sshd.machine(key=locked).run("true")
    with pytest.raises(LoginRefused, match="no such file"):
        sshd.machine(key=tmp_path / "absent").run("true")
    (tmp_path / "nonsense").write_text("this is no key")
    with pytest.raises(LoginRefused, match=r"nonsense \(not offered"):
        sshd.machine(key=tmp_path / "nonsense").run("true")


def passphrase(key: Path) -> Path:
    """Give a private key a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(key)], check=True)
    return key


def test_without_any_way_to_log_in_the_error_says_so(sshd: Sshd, home: Path, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("IdentityFile none\n")
    address = Address.parse(f"ssh://127.0.0.1:{sshd.port}", config=tmp_path / "config")
    with pytest.raises(LoginRefused, match="no key and no agent"):
        sshd.machine(address=address, key=None).run("true")


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
    sshd: Sshd,
    home: Path,
    tmp_path: Path,
    agent: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: str,
    in_environment: bool,
) -> None:
    files = {"agent": agent, "other": new_key(tmp_path / "other"), "public": tmp_path / "public.pub"}
    files["public"].write_text(sshd.key.with_suffix(".pub").read_text())
    files["locked"] = passphrase(Path(shutil.copy(sshd.key, tmp_path / "locked")))
    files["right"], files["certificate"] = sshd.key, certified(sshd, files["other"])
    monkeypatch.setenv("LAB_AGENT", str(agent))
    monkeypatch.setenv("LAB_FILES", str(tmp_path))
    if in_environment:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    (tmp_path / "config").write_text(f"Host kurs\n HostName 127.0.0.1\n Port {sshd.port}\n {config.format(**files)}\n")
    machine = sshd.machine(address=Address.parse("kurs", config=tmp_path / "config"), key=None)
    assert machine.run("true").ok
    machine.close()


def test_of_the_agents_keys_only_those_asked_for_are_offered(
    sshd: Sshd, home: Path, tmp_path: Path, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    other, certificate = new_key(tmp_path / "other"), certified(sshd, sshd.key)
    (tmp_path / "config").write_text(f"IdentityFile {other}\nIdentitiesOnly yes\n")
    address = Address.parse(f"ssh://127.0.0.1:{sshd.port}", config=tmp_path / "config")
    with pytest.raises(LoginRefused, match=f"Tried: key {re.escape(str(other))}$"):
        sshd.machine(address=address, key=None).run("true")
    with pytest.raises(LoginRefused, match=f"Tried: key {re.escape(str(other))}$"):
        sshd.machine(key=other).run("true")
    # The certificate is the only thing that lets the agent's key in now.
    sshd.authorized.write_text(sshd.authorized.read_text().split("\n", 1)[1])
    (tmp_path / "config").write_text(f"CertificateFile {certificate}\n")
    address = Address.parse(f"ssh://127.0.0.1:{sshd.port}", config=tmp_path / "config")
    machine = sshd.machine(address=address, key=None)
    assert machine.run("true").ok
    machine.close()


def test_an_agent_that_refuses_to_sign_costs_its_key_only(
    sshd: Sshd, home: Path, tmp_path: Path, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    other = new_key(tmp_path / "other")
    subprocess.run(["ssh-add", "-q", "-c", str(other)], check=True)  # it would have to ask somebody
    with sshd.authorized.open("a") as file:
        file.write(other.with_suffix(".pub").read_text())
    (tmp_path / "config").write_text(f"IdentityFile {other}\n")
    machine = sshd.machine(address=Address.parse(f"ssh://127.0.0.1:{sshd.port}", config=tmp_path / "config"), key=None)
    assert machine.run("true").ok
    machine.close()


def test_a_proxy_command_that_fails_is_told_with_its_reason(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host kurs\n ProxyCommand echo 'no way to %h' >&2; exit 1\n")
    machine = sshd.machine(address=Address.parse("kurs", config=tmp_path / "config"))
    with pytest.raises(MachineUnreachable, match="no way to kurs"):
        machine.run("true")


def test_a_proxy_command_ends_with_the_connection(sshd: Sshd, tmp_path: Path) -> None:
    nap = long_time()
    proxy = PROXY.replace("cat <&3", f"sleep {nap} & cat <&3")
    (tmp_path / "config").write_text(f"Host kurs\n HostName 127.0.0.1\n Port {sshd.port}\n ProxyCommand {proxy}\n")
    machine = sshd.machine(address=Address.parse("kurs", config=tmp_path / "config"))
    assert machine.run("true").ok
    assert running(nap)
    machine.close()
    assert eventually(lambda: not running(nap))


def test_a_host_key_is_pinned_under_its_alias(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(f"Host kurs\n HostName 127.0.0.1\n Port {sshd.port}\n HostKeyAlias teacher\n")
    machine = sshd.machine(address=Address.parse("kurs", config=tmp_path / "config"))
    machine.run("true")
    machine.close()
    assert [line.split()[0] for line in sshd.known_hosts.read_text().splitlines()] == ["teacher"]
    assert machine.run("true").ok
    assert subprocess.run(machine.ssh_argv("true"), check=False, stdin=subprocess.DEVNULL).returncode == 0
    machine.close()


def test_a_login_that_is_refused_is_not_waited_for_unless_the_machine_may_still_boot(
    sshd: Sshd, home: Path, tmp_path: Path
) -> None:
    wrong = new_key(tmp_path / "wrong")
    said: list[str] = []
    with pytest.raises(LoginRefused):
        wait_for_ssh(sshd.machine(key=wrong), 60, said.append)
    assert said == []

    def authorise(text: str) -> None:
        said.append(text)
        sshd.authorized.write_text(wrong.with_suffix(".pub").read_text())

    wait_for_ssh(sshd.machine(key=wrong), 60, authorise, grace=60)
    assert "does not let us in" in said[0]


# --- no way there --------------------------------------------------------------------------------------------------


def test_a_port_that_nobody_listens_on_is_said_to_refuse(tmp_path: Path) -> None:
    machine = SshMachine(Address("127.0.0.1", "root", free_port()), known_hosts=tmp_path / "known_hosts")
    with pytest.raises(MachineUnreachable, match="refuses connections"):
        machine.run("true")
    said: list[str] = []
    with pytest.raises(MachineUnreachable, match=r"no SSH with .* after .*refuses connections"):
        wait_for_ssh(machine, 6, said.append)
    assert "refuses connections" in said[0]


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (TimeoutError("timed out"), "did not answer within 30 s"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "no route to 192.0.2.7"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "no route to 192.0.2.7"),
        (OSError(errno.EACCES, "something new"), "cannot be reached: .*something new"),
    ],
)
def test_why_there_is_no_connection_is_told_with_what_would_help(error: OSError, part: str) -> None:
    refusal = no_way(error, Address("192.0.2.7", "stack"), 30)
    assert re.search(part, refusal.message)
    assert refusal.advice


def test_a_name_that_does_not_resolve_is_said(tmp_path: Path) -> None:
    machine = SshMachine(Address("no-such-host.invalid", "root"), known_hosts=tmp_path / "known_hosts")
    with pytest.raises(MachineUnreachable, match=r"no-such-host\.invalid cannot be resolved"):
        machine.run("true")


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_is_no_ssh_server_is_given_up(tmp_path: Path, greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def greet() -> None:
            kept.append(server.accept()[0])
            kept[0].sendall(greeting)
            if greeting:
                kept[0].close()

        thread = threading.Thread(target=greet)
        thread.start()
        address = Address("127.0.0.1", "root", server.getsockname()[1])
        machine = SshMachine(address, known_hosts=tmp_path / "known_hosts", connect=1)
        with pytest.raises(MachineUnreachable, match="did not answer as an SSH server does"):
            machine.run("true")
        thread.join()
        for sock in kept:
            sock.close()


def test_waiting_ends_when_the_machine_is_there(sshd: Sshd) -> None:
    sshd.stop()
    said: list[str] = []

    def start(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            sshd.start()

    wait_for_ssh(sshd.machine(), 60, start)
    assert len(said) >= 2


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


def test_a_machine_that_allows_one_session_at_a_time_runs_two_commands_all_the_same(tmp_path: Path) -> None:
    nap = long_time()
    with running_sshd(tmp_path, "MaxSessions 1") as server:
        machine = server.machine()
        seen: list[int] = []
        thread = threading.Thread(
            target=lambda: seen.append(machine.run("sh", "-c", f"sleep {nap} || exit 5", check=False).status)
        )
        thread.start()
        assert eventually(lambda: running(nap))
        assert machine.run("echo", "second").out == "second\n"
        end(nap)
        thread.join()
        assert seen == [5]
        machine.close()


def test_sshd_started_again_between_two_calls_goes_unnoticed(sshd: Sshd) -> None:
    machine = sshd.machine()
    machine.run("true")
    sshd.end_sessions()
    sshd.stop()
    sshd.start()
    assert machine.run("echo", "again").out == "again\n"


def test_a_network_that_hangs_under_a_command_is_noticed(sshd: Sshd, proxy: Proxy) -> None:
    nap = long_time()
    machine = sshd.machine(address=Address("127.0.0.1", sshd.user, proxy.port), pulse=1, patience=6, connect=10)
    machine.connect()

    def freeze() -> None:
        assert eventually(lambda: running(nap))
        proxy.freeze()

    thread = threading.Thread(target=freeze)
    thread.start()
    with pytest.raises(MachineUnreachable, match="no sign of life"):
        machine.run("sh", "-c", f"exec sleep {nap}", seconds=60)
    thread.join()
    end(nap)
    with pytest.raises(MachineUnreachable):
        machine.run("true")
    proxy.thaw()
    assert machine.run("echo", "again").out == "again\n"


def test_a_network_that_hangs_between_two_calls_is_noticed_before_a_command_is_sent(sshd: Sshd, proxy: Proxy) -> None:
    machine = sshd.machine(address=Address("127.0.0.1", sshd.user, proxy.port), pulse=1, patience=6)
    machine.run("true")
    proxy.forget()
    assert machine.run("echo", "again").out == "again\n"


def test_a_silent_command_on_a_living_connection_is_left_alone(sshd: Sshd) -> None:
    machine = sshd.machine(pulse=1, patience=6)
    assert machine.run("sh", "-c", "sleep 9; echo done").out == "done\n"


# --- through, and with what ----------------------------------------------------------------------------------------


def test_a_machine_behind_another_is_reached_through_it(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "jump").mkdir()
    with running_sshd(tmp_path / "jump") as jump:
        jump.authorized.write_text(sshd.key.with_suffix(".pub").read_text())
        address = Address("127.0.0.1", sshd.user, sshd.port, jump=Address("127.0.0.1", jump.user, jump.port))
        machine = sshd.machine(address=address)
        assert machine.run("cat", given=b"through").out == "through"
        assert len(jump.sessions()) > 0
        words = ["printf", "%s|", *[word for word in HOSTILE if word]]
        done = subprocess.run(machine.ssh_argv(*words), capture_output=True, check=True, stdin=subprocess.DEVNULL)
        assert done.stdout.decode() == "|".join(words[2:]) + "|"
        machine.close()


def test_an_alias_of_ssh_config_leads_there(sshd: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host lab\n HostName 127.0.0.1\n Port {sshd.port}\n User {sshd.user}\n IdentityFile {sshd.key}\n"
        f"Host behind\n HostName 127.0.0.1\n Port {sshd.port}\n IdentityFile {sshd.key}\n ProxyJump lab\n"
        f"Host far\n HostName 127.0.0.1\n Port {sshd.port}\n IdentityFile {sshd.key}\n ProxyJump lab,behind\n"
    )
    for name in ("lab", "ssh://lab", f"{sshd.user}@behind", "far"):
        machine = SshMachine(Address.parse(name, config=config), known_hosts=tmp_path / "known_hosts")
        assert machine.run("echo", name).out == f"{name}\n"
        machine.close()


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
