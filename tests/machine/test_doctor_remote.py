"""`lab doctor --on ssh://…` against a real sshd, and against a real Debian machine with systemd."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from stacklab.cli.main import run
from stacklab.conditions.condition import Finding
from stacklab.deploy.profile.settings import Settings
from stacklab.doctor.examine import Subject, examine
from stacklab.doctor.remote import Remote
from stacklab.homes.plan import Plan
from stacklab.lab import Lab
from stacklab.machines.address import Address
from tests.machine.sshd import Sshd, fingerprint, free_port, new_key
from tests.machine.system_fixture import debian as debian
from tests.systems import System

DOOR = ("reachable", "host-key", "login", "sudo")


@pytest.fixture
def home(own_directories: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with an ssh_config of its own: which key opens `box` on which port is the test's to say."""
    monkeypatch.setenv("HOME", str(own_directories))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (own_directories / ".ssh").mkdir(mode=0o700)
    return own_directories


def configured(home: Path, *, port: int, key: Path, host: str = "127.0.0.1", user: str | None = None) -> str:
    """ssh_config's name for a machine."""
    lines = ["Host box", f"HostName {host}", f"Port {port}", f"IdentityFile {key}", *([f"User {user}"] if user else [])]
    (home / ".ssh" / "config").write_text("\n".join(lines) + "\n")
    return "box"


def looked(address: str, *names: str, profile: str | None = None) -> dict[str, Finding]:
    """The findings of these probes of a machine (all: none named)."""
    remote = Remote(Lab("intro"), Plan(home="ssh", address=address, profile=profile), Settings())
    try:
        return {probe.id: probe.run() for probe in remote.probes() if not names or probe.id in names}
    finally:
        remote.close()


def test_the_door_is_open(home: Path, sshd: Sshd) -> None:
    found = looked(configured(home, port=sshd.port, key=sshd.key), *DOOR)
    assert {name: finding.state for name, finding in found.items() if name != "sudo"} == dict.fromkeys(DOOR[:3], "good")
    assert fingerprint(sshd.host_key) in found["host-key"].evidence
    assert "for the first time" in found["host-key"].evidence
    assert not (home / "state").exists()  # nothing was pinned


def test_the_findings_come_through_examine_in_order(home: Path, sshd: Sshd) -> None:
    plan = Plan(home="ssh", address=configured(home, port=sshd.port, key=sshd.key))
    with Subject(Lab("intro"), plan, Settings()) as subject:
        names = [report.id for report in examine(subject)]
    assert names[:5] == ["python", *DOOR]
    assert names[-1] == "clock"


def test_nobody_listening_is_bad_and_all_behind_it_cannot_be_told(home: Path, tmp_path: Path) -> None:
    found = looked(configured(home, port=free_port(), key=new_key(tmp_path / "key")))
    assert found["reachable"].state == "bad"
    assert {finding.state for name, finding in found.items() if name != "reachable"} == {"unknown"}
    assert found["machine-memory"].evidence == "not looked at: there is no connection"


def test_a_key_that_opens_nothing_is_a_login_that_is_bad(home: Path, sshd: Sshd, tmp_path: Path) -> None:
    found = looked(configured(home, port=sshd.port, key=new_key(tmp_path / "other")))
    assert found["reachable"].state == "good"
    assert found["login"].state == "bad"
    assert found["sudo"].state == "unknown"
    assert found["machine-disk"].evidence == "not looked at: there is no login"


def test_another_host_key_than_the_pinned_one_is_bad(home: Path, sshd: Sshd, tmp_path: Path) -> None:
    address = configured(home, port=sshd.port, key=sshd.key)
    lab = Lab("intro")
    known_hosts = lab.home_directory / "known_hosts"
    known_hosts.parent.mkdir(parents=True, exist_ok=True)
    other = new_key(tmp_path / "other").with_suffix(".pub").read_text()
    known_hosts.write_text(f"{Address.parse(address).known_as} {other}")
    before = known_hosts.read_text()
    found = looked(address)
    assert found["host-key"].state == "bad"
    assert found["login"].state == "unknown"
    assert known_hosts.read_text() == before


def test_the_verb_fails_where_the_machine_is_not_reached(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = configured(home, port=free_port(), key=new_key(tmp_path / "key"))
    assert run(["doctor", "--on", f"ssh:{address}", "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert value["home"] == "ssh"
    assert value["usable"] is False


# --- a machine that DevStack could go on -----------------------------------------------------------------------------


@pytest.fixture
def to_debian(home: Path, debian: System) -> str:
    return configured(home, host=debian.address, port=22, key=debian.key, user=debian.user)


@pytest.fixture
def unsettled(debian: System) -> Iterator[System]:
    """The machine, put back after what a test does to it."""
    yield debian
    debian.ssh("rm -rf /etc/stacklab /etc/nova; rm -f /etc/sudoers.d/zz-none", user="root")


def test_a_fresh_machine_is_what_its_profile_wants(to_debian: str, debian: System) -> None:
    names = ("distribution", "machine-python", "machine-clock", "machine-packages")
    # These are its host's, and others take of them what they want at this moment.
    shared = ("machine-memory", "machine-disk")
    found = looked(to_debian, *DOOR, *names, *shared)
    assert "unknown" not in [found.pop(name).state for name in shared]
    assert {name: finding.evidence for name, finding in found.items() if not finding.fine} == {}
    assert found["login"].evidence == f"as {debian.user}"
    assert "debian 12, which profile debian12-" in found["distribution"].evidence
    assert "3.11" in found["machine-python"].evidence
    assert "agrees with this machine's" in found["machine-clock"].evidence
    assert "sources answer" in found["machine-packages"].evidence


def test_looking_leaves_the_machines_package_lists_alone(to_debian: str, debian: System) -> None:
    listing = "ls -la --time-style=full-iso /var/lib/apt/lists; ls -A /tmp | grep -v ^systemd-private- || :"
    before = debian.ssh(listing, user="root").stdout
    assert looked(to_debian, "machine-packages")["machine-packages"].state == "good"
    assert debian.ssh(listing, user="root").stdout == before


def test_a_machine_with_somebodys_openstack_looks_used(to_debian: str, unsettled: System) -> None:
    unsettled.ssh("mkdir /etc/nova", user="root")
    found = looked(to_debian, "unused")["unused"]
    assert found.state == "bad"
    assert "/etc/nova" in found.evidence
    assert "--on ssh:box --even-if-used" in str(found.remedies[0])
    assert isinstance(found.remedies[0], str)


def test_another_labs_machine_looks_used_to_a_lab_that_does_not_exist_yet(to_debian: str, unsettled: System) -> None:
    unsettled.ssh("mkdir /etc/stacklab; echo '{}' >/etc/stacklab/lab.json", user="root")
    found = looked(to_debian, "unused")["unused"]
    assert found.state == "bad"
    assert "is deployed there" in found.evidence
    assert not Lab("intro").exists()


def test_an_account_without_sudo_is_told_and_nothing_behind_it_is_guessed(to_debian: str, unsettled: System) -> None:
    unsettled.ssh(f"echo '{unsettled.user} ALL=(ALL) !ALL' >/etc/sudoers.d/zz-none", user="root")
    found = looked(to_debian)
    assert found["login"].state == "good"
    assert found["sudo"].state == "bad"
    assert "NOPASSWD" in str(found["sudo"].remedies[0])
    assert found["machine-memory"].state == "unknown"


def test_a_profile_for_another_distribution_does_not_fit(to_debian: str) -> None:
    found = looked(to_debian, "distribution", "machine-disk", profile="rocky9-2026.1")
    assert found["distribution"].state == "bad"
    assert "runs debian 12" in found["distribution"].evidence
    assert found["machine-disk"].state == "unknown"


def test_sources_that_do_not_answer_are_bad(to_debian: str, debian: System) -> None:
    hide = "mkdir /root/kept && cd /etc/apt && mv sources.list* /root/kept/ && mkdir sources.list.d"
    debian.ssh(f"{hide} && echo 'deb http://127.0.0.1:9/debian bookworm main' >sources.list", user="root")
    try:
        found = looked(to_debian, "machine-packages")["machine-packages"]
    finally:
        debian.ssh("cd /etc/apt && rm -rf sources.list* && mv /root/kept/* . && rmdir /root/kept", user="root")
    assert found.state == "bad"
    assert "127.0.0.1" in found.evidence
