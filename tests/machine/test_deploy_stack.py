"""Preparing a real Debian 12 machine, and a stack.sh on it that outlives whoever watches it.

The machine is real (systemd, sshd, apt); DevStack is the stand-in of tests/standin.
"""

# ruff: noqa: F811 - a fixture that is imported and then named as an argument

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.localconf import render as localconf
from stacklab.deploy.prepare import preparation, source
from stacklab.deploy.prepare.ownership import looks_used
from stacklab.deploy.profile.settings import Settings
from stacklab.deploy.stack import following, stacking
from stacklab.deploy.stack.following import LogCopy, follow, starred
from stacklab.errors import LabBusy, MachineInUse, NotServed, StackFailed
from stacklab.events import Event, StageEnded
from stacklab.files import write_json
from stacklab.lab import Lab
from stacklab.stages import Stage, run_stages
from tests import standin
from tests.machine.deploying import behave, connection, fresh_deployment, held, until
from tests.machine.system_fixture import debian  # noqa: F401 - a fixture
from tests.systems import System

HOSTILE = "a'b\"c $(touch /tmp/hacked) `id` \\ #;&|<>*?"
"""A password that a careless shell would act on. (DevStack itself could not use it; the stand-in can.)"""


@pytest.fixture
def deployment(debian: System, own_directories: Path, tmp_path: Path) -> Iterator[Deployment]:
    deployment = fresh_deployment(debian, tmp_path)
    yield deployment
    deployment.machine.close()


def up(deployment: Deployment) -> dict[str, StageEnded]:
    """What `lab up` runs, of this part; how each stage ended."""
    events: list[Event] = []
    run_stages(deployment.lab, all_stages(deployment), events.append)
    return {event.stage: event for event in events if isinstance(event, StageEnded)}


def all_stages(deployment: Deployment) -> list[Stage]:
    stages = [*preparation.stages(deployment), *source.stages(deployment), *localconf.stages(deployment)]
    return [*stages, *stacking.stages(deployment)]


def prepare(deployment: Deployment) -> None:
    """All but the stack."""
    run_stages(deployment.lab, all_stages(deployment)[:-1], lambda _: None)


def copied_log(deployment: Deployment) -> str:
    return LogCopy(deployment.lab, "stack", []).text()


def machine_log(deployment: Deployment) -> str:
    """As the lab's copy should be: DevStack ends with a password."""
    return starred(deployment.machine.read("/var/lib/stacklab/stack/log") or b"", deployment.lab.secrets()).decode()


def has_come(deployment: Deployment, phase: str) -> Callable[[], bool]:
    """Whether a follower has seen the phase; what it tells of is less, where one is over soon."""
    return lambda: LogCopy(deployment.lab, "stack", []).log.exists() and phase in copied_log(deployment)


@contextmanager
def elsewhere(work: Callable[[], object]) -> Iterator[list[BaseException]]:
    """`work` in a thread, joined at the end; what it raised is in the list."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield raised
    thread.join(300)
    assert not thread.is_alive()


# --- the whole way, and again ---------------------------------------------------------------------------------------


def test_bare_machine_is_stacked_and_a_second_run_changes_nothing(deployment: Deployment) -> None:
    standin.behave(deployment.machine, STANDIN_SECONDS="6")  # all services
    assert looks_used(deployment.machine, deployment.lab) == []
    first = up(deployment)
    assert first["stack"].outcome == "done"
    assert {first[name].outcome for name in ("machine", "packages", "source", "local-conf")} <= {"done", "already"}

    running = deployment.machine.run("systemctl", "is-active", *(f"devstack@{name}" for name in standin.UNITS)).lines
    assert running == ["active"] * len(standin.UNITS)
    enabled = deployment.machine.run("systemctl", "is-enabled", "apache2", "memcached", check=False).lines
    assert enabled == ["disabled", "disabled"]
    who = deployment.machine.run(
        "stat", "-c", "%U %a", "/opt/stack", "/opt/stack/devstack/local.conf", user="root"
    ).lines
    assert who == ["stack 755", "stack 600"]
    assert "Django" not in (deployment.machine.read("/opt/stack/devstack/files/debs/general") or b"").decode()
    assert copied_log(deployment) == machine_log(deployment)

    second = up(deployment)
    assert {name: event.outcome for name, event in second.items() if event.outcome != "already"} == {}
    assert looks_used(deployment.machine, deployment.lab) == []


def test_another_lab_sees_that_the_machine_is_taken(deployment: Deployment) -> None:
    prepare(deployment)
    other = Lab("other")
    evidence = looks_used(deployment.machine, other)
    assert any("the lab 'deploy'" in line for line in evidence)
    assert any("DevStack in /opt/stack/devstack" in line for line in evidence)


def test_a_machine_with_a_web_server_and_people_on_it_looks_used(deployment: Deployment) -> None:
    deployment.machine.script(
        "systemctl start apache2; for name in ann bob cid; do id $name >/dev/null 2>&1 || useradd -m -s /bin/bash $name; done",
        user="root",
    )
    try:
        evidence = looks_used(deployment.machine, deployment.lab)
    finally:
        deployment.machine.script(
            "systemctl stop apache2; for name in ann bob cid; do userdel -r $name 2>/dev/null; done; true", user="root"
        )
    assert any("a web server: apache2" in line for line in evidence)
    assert any("accounts of people" in line and "bob" in line for line in evidence)


def test_hostile_passwords_arrive_as_they_are_and_show_nowhere(deployment: Deployment) -> None:
    secrets = {name: f"{name} {HOSTILE}" for name in localconf.SECRETS}
    deployment.lab.secret("admin")
    write_json(deployment.lab.directory / "secrets.json", secrets, mode=0o600)
    said: list[str] = []
    run_stages(deployment.lab, all_stages(deployment), lambda event: said.append(repr(event)))
    held = json.loads(deployment.machine.read("/opt/stack/standin/passwords.json") or b"{}")
    assert held["ADMIN_PASSWORD"] == secrets["admin"]
    assert held["RABBIT_PASSWORD"] == secrets["rabbit"]
    assert deployment.machine.run("test", "-e", "/tmp/hacked", check=False).status == 1  # noqa: S108 - what the password would make
    assert not [line for line in said if "touch /tmp/hacked" in line]
    mode = deployment.machine.run("stat", "-c", "%a", "/var/lib/stacklab/stack/log", user="root").out.strip()
    assert mode == "600"  # DevStack prints the password at its end
    assert LogCopy(deployment.lab, "stack", []).log.stat().st_mode & 0o777 == 0o600
    assert secrets["admin"] not in copied_log(deployment)


# --- leaving and coming back -----------------------------------------------------------------------------------------


def test_connection_dropped_in_the_middle_is_made_again_and_nothing_is_lost(
    deployment: Deployment, debian: System
) -> None:
    prepare(deployment)
    said: list[str] = []
    with elsewhere(lambda: said.append(stacking.stages(deployment)[0].run(said.append))) as raised:
        until(has_come(deployment, "Installing OpenStack project source"), "in the middle")
        for _ in range(3):
            # The process of sshd that holds the session; nothing is closed in order.
            debian.ssh(f"pkill -9 -u {debian.user} sshd", user="root", check=False)
            time.sleep(0.5)
    assert raised == []
    assert said[-1].startswith("stack.sh took")
    assert copied_log(deployment) == machine_log(deployment)


FOLLOWER = """
import sys
from pathlib import Path
from stacklab.deploy.stack import stacking
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.profile.settings import Settings
from stacklab.lab import Lab
from stacklab.machines.address import Address
from stacklab.machines.ssh import SshMachine
from tests import standin
host, user, known_hosts, key = sys.argv[1:]
machine = SshMachine(Address(host=host, user=user), known_hosts=Path(known_hosts), key=Path(key))
deployment = Deployment(lab=Lab("deploy"), profile=standin.profile(), machine=machine, host_ip=host, settings=Settings())
with deployment.lab.writing():
    for stage in stacking.stages(deployment):
        print(stage.already() or stage.run(lambda line: print(line, flush=True)), flush=True)
"""


@contextmanager
def lab_process(system: System, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that does what `lab up` does in its stage `stack`."""
    argv = [sys.executable, "-c", FOLLOWER, system.address, system.user, str(system.known_hosts), str(system.key)]
    with out.open("ab") as file:
        process = subprocess.Popen(
            argv, stdout=file, stderr=file, cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": "."}
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


def test_lab_killed_in_the_middle_goes_on_where_it_was(deployment: Deployment, debian: System, tmp_path: Path) -> None:
    behave(deployment, STANDIN_SECONDS="10")
    prepare(deployment)
    first, second = tmp_path / "first", tmp_path / "second"
    with lab_process(debian, first) as process:
        until(has_come(deployment, "Installing OpenStack project source"), "in the middle")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    before = copied_log(deployment)
    assert "Installing package prerequisites" in before
    with lab_process(debian, second) as process:
        with held(deployment.machine, "lab-stack"):
            assert stacking.state(deployment.machine).state == "running"
            until(lambda: "taking up its log" in second.read_text(), "taken up")
        assert process.wait(300) == 0, second.read_text()
    assert "started on" not in second.read_text()  # one run, not two
    assert copied_log(deployment) == machine_log(deployment)
    assert copied_log(deployment).startswith(before)


def test_ctrl_c_detaches_says_how_to_come_back_and_attach_does(
    deployment: Deployment, debian: System, tmp_path: Path
) -> None:
    behave(deployment, STANDIN_SECONDS="10")
    prepare(deployment)
    out = tmp_path / "out"
    with lab_process(debian, out) as process:
        until(has_come(deployment, "Installing"), "in the middle")
        with held(deployment.machine, "lab-stack"):
            process.send_signal(signal.SIGINT)
            assert process.wait(120) != 0
            assert stacking.state(deployment.machine).state == "running"
    assert "KeyboardInterrupt: stack.sh, where it runs on" in out.read_text()
    assert "lab --lab deploy attach" in out.read_text()
    assert follow(deployment, lambda _: None).startswith("stack.sh took")
    assert copied_log(deployment) == machine_log(deployment)


def test_of_two_that_follow_one_is_refused(deployment: Deployment, debian: System) -> None:
    behave(deployment, STANDIN_SECONDS="10")
    prepare(deployment)
    stacking.start(deployment)
    with (
        elsewhere(lambda: follow(deployment, lambda _: None)) as raised,
        held(deployment.machine, "lab-stack"),
    ):
        until(lambda: LogCopy(deployment.lab, "stack", []).log.exists(), "followed")
        with pytest.raises(LabBusy, match=r"follows stack\.sh already"):
            follow(replace(deployment, machine=connection(debian)), lambda _: None)
    assert raised == []


def test_of_two_that_start_at_the_same_moment_one_is_refused(deployment: Deployment, debian: System) -> None:
    prepare(deployment)
    others = [replace(deployment, machine=connection(debian)) for _ in range(2)]
    with elsewhere(lambda: stacking.start(others[0])) as first, elsewhere(lambda: stacking.start(others[1])) as two:
        pass
    assert sorted(len(raised) for raised in (first, two)) == [0, 1]
    assert isinstance((first or two)[0], MachineInUse)
    assert follow(deployment, lambda _: None).startswith("stack.sh took")


def test_stack_that_somebody_runs_by_hand_is_left_alone(deployment: Deployment) -> None:
    behave(deployment, STANDIN_SECONDS="120")  # longer than it takes to look for it
    prepare(deployment)
    deployment.machine.script("cd /opt/stack/devstack; nohup ./stack.sh >/dev/null 2>&1 & sleep 1", user="stack")
    with pytest.raises(MachineInUse, match="by hand"):
        stacking.start(deployment)
    # At once: bash puts off any other end, for its trap, until the sleep that it waits for is over.
    deployment.machine.run("pkill", "-KILL", "-f", r"^bash \./stack\.sh", user="root")


# --- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "command", "cause", "remedy"),
    [
        ("glance", "g-api did not start (lib/services:", "did not answer within SERVICE_TIMEOUT", "journalctl -u"),
        ("odd", "missing-file-of-the-standin", "not one of the known causes", "read the end of the log"),
    ],
)
def test_failing_stack_names_the_command_and_the_cause_and_the_log_is_kept(
    deployment: Deployment, fault: str, command: str, cause: str, remedy: str
) -> None:
    behave(deployment, STANDIN_SECONDS="2", STANDIN_FAIL=fault)
    with pytest.raises(StackFailed) as raised:
        up(deployment)
    assert command in raised.value.message
    assert cause in raised.value.message
    assert remedy in raised.value.advice
    assert str(LogCopy(deployment.lab, "stack", []).log) in raised.value.advice
    assert "Error on exit" in copied_log(deployment)


def test_after_a_failure_the_same_command_clears_up_and_stacks(deployment: Deployment) -> None:
    behave(deployment, STANDIN_SECONDS="2", STANDIN_FAIL="glance")
    with pytest.raises(StackFailed):
        up(deployment)
    behave(deployment, STANDIN_SECONDS="2")
    said: list[str] = []
    assert stacking.stages(deployment)[0].run(said.append).startswith("stack.sh took")
    assert any("unstack.sh first: stack.sh failed before" in line for line in said)
    assert stacking.state(deployment.machine, "unstack").state == "done"
    assert "g-api did not start" in LogCopy(deployment.lab, "stack", []).log.with_suffix(".previous.log").read_text()


def test_never_stacks_on_an_unstack_that_was_cut_off(deployment: Deployment) -> None:
    behave(deployment, STANDIN_SECONDS="2", STANDIN_FAIL="odd", STANDIN_UNSTACK_FAIL="1")
    with pytest.raises(StackFailed):
        up(deployment)
    with pytest.raises(StackFailed, match=r"unstack\.sh failed .*DevStack cannot stack on what an unfinished"):
        up(deployment)
    with pytest.raises(StackFailed, match=r"an unstack\.sh .* did not end well"):
        stacking.start(deployment)  # whoever asks
    behave(deployment, STANDIN_SECONDS="2")
    assert up(deployment)["stack"].outcome == "done"


def test_silence_is_said_with_the_last_line_and_the_deadline_ends_the_watch_not_the_run(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A phase before any service is started, for which systemd takes its silent time on a busy machine.
    behave(deployment, STANDIN_SECONDS="2", STANDIN_HANG="Installing OpenStack project source")
    prepare(deployment)
    said: list[str] = []
    # The deadline counts from stack.sh's start, and is at least three times what the profile says it takes.
    short = replace(deployment, profile=deployment.profile.model_copy(update={"usual_minutes": 0}))
    monkeypatch.setattr(following, "SILENT", 2)
    monkeypatch.setattr(following, "LEAST_DEADLINE", 20)
    with pytest.raises(
        StackFailed, match=r"is in 'Installing OpenStack .*'; its last line was: .*sleep infinity"
    ) as raised:
        stacking.stages(short)[0].run(said.append)
    assert "it still runs" in raised.value.advice
    silent = [line for line in said if "nothing new for" in line]
    assert silent
    assert "Installing OpenStack project source" in silent[-1]  # a slow machine is silent before it as well
    assert "the last line was:" in silent[-1]
    assert stacking.state(deployment.machine).state == "running"


def test_restart_of_the_machine_in_the_middle_is_told_and_the_next_up_stacks_anew(
    deployment: Deployment, debian: System
) -> None:
    behave(deployment, STANDIN_SECONDS="30")
    prepare(deployment)
    with elsewhere(lambda: stacking.stages(deployment)[0].run(lambda _: None)) as raised:
        until(lambda: "Starting Keystone" in machine_log(deployment), "in the middle")
        debian.reboot()
    assert len(raised) == 1
    assert isinstance(raised[0], StackFailed)
    # It may have looked when systemd had ended the unit already, but not yet our connection.
    assert re.search(r"the machine was restarted while it ran|its unit was ended from outside", str(raised[0]))
    with pytest.raises(StackFailed, match="the machine was restarted while it ran"):
        follow(deployment, lambda _: None)
    assert stacking.state(deployment.machine).state == "vanished"
    behave(deployment, STANDIN_SECONDS="2")
    assert up(deployment)["stack"].outcome == "done"


def test_other_services_are_not_stacked_over_what_the_learner_has(deployment: Deployment) -> None:
    behave(deployment, STANDIN_SECONDS="1")
    up(deployment)
    with pytest.raises(NotServed, match=r"services \(none\), now heat is asked for"):
        stacking.stages(replace(deployment, services=("heat",)))[0].already()


# --- the source ----------------------------------------------------------------------------------------------------------


def test_clone_at_another_ref_moves_if_clean_and_is_refused_if_not(deployment: Deployment) -> None:
    prepare(deployment)
    git = ("git", "-C", "/opt/stack/devstack")
    identity = ("-c", "user.name=x", "-c", "user.email=x@invalid")
    deployment.machine.run(*git, *identity, "commit", "--quiet", "--allow-empty", "-m", "another", user="stack")
    assert source.stages(deployment)[0].already() is None
    source.stages(deployment)[0].run(lambda _: None)
    assert source.stages(deployment)[0].already()

    deployment.machine.run(*git, *identity, "commit", "--quiet", "--allow-empty", "-m", "another", user="stack")
    deployment.machine.script("echo '# mine' >>/opt/stack/devstack/functions", user="stack")
    with pytest.raises(MachineInUse, match="changes of its own: functions"):
        source.stages(deployment)[0].run(lambda _: None)


def test_branch_and_commit_are_refs_too_and_a_missing_one_is_named(deployment: Deployment) -> None:
    prepare(deployment)
    at = deployment.machine.run("git", "-C", "/opt/stack/devstack", "rev-parse", "HEAD", user="stack").out.strip()
    for ref in (standin.BRANCH, at):
        devstack = deployment.profile.devstack.model_copy(update={"ref": ref})
        other = replace(deployment, profile=deployment.profile.model_copy(update={"devstack": devstack}))
        assert source.stages(other)[0].already() == f"commit {at[:10]} in /opt/stack/devstack"


def test_files_are_fetched_here_verified_and_put_there(deployment: Deployment, tmp_path: Path) -> None:
    image = tmp_path / "served" / "image.img"
    image.parent.mkdir()
    image.write_bytes(os.urandom(1 << 20))
    files = [
        {"path": "files/image.img", "url": "https://files.invalid/image.img", "why": "a test"},
        {"path": "/etc/systemd/system/iscsid.service.d/lab.conf", "content": "[Service]\n", "why": "a test"},
    ]
    mirrored = Settings(mirrors={"https://files.invalid/": f"{image.parent.as_uri()}/"})
    with_files = replace(deployment, profile=standin.profile(files=files), settings=mirrored)
    prepare(with_files)
    assert deployment.machine.read("/opt/stack/devstack/files/image.img") == image.read_bytes()
    owners = deployment.machine.run(
        "stat", "-c", "%U", "/opt/stack/devstack/files/image.img", "/etc/systemd/system/iscsid.service.d/lab.conf"
    ).lines
    assert owners == ["stack", "root"]
    assert source.stages(with_files)[1].already() == "all there"
