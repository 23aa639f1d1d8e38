"""Guest preparation on a real Debian 12 machine, stage by stage: done, seen to be done, and refused where it must be."""

# ruff: noqa: F811 - a fixture that is imported and then named as an argument

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.prepare import preparation, source
from stacklab.deploy.prepare.internet import run_through_proxy
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import CommandFailed, DownloadFailed, NotEnoughSpace, ProfileInvalid, UnsupportedMachine
from stacklab.stages import Stage
from tests import standin
from tests.machine.deploying import fresh_deployment
from tests.machine.system_fixture import debian  # noqa: F401 - a fixture
from tests.systems import System


@pytest.fixture
def deployment(debian: System, own_directories: Path, tmp_path: Path) -> Iterator[Deployment]:
    deployment = fresh_deployment(debian, tmp_path)
    yield deployment
    deployment.machine.close()


def stage(deployment: Deployment, name: str) -> Stage:
    return next(stage for stage in preparation.stages(deployment) if stage.name == name)


def done(deployment: Deployment, name: str) -> str:
    """Run a stage that is not done yet, and see that it is then."""
    chosen = stage(deployment, name)
    assert chosen.already() is None
    outcome = chosen.run(lambda _: None)
    assert chosen.already() is not None
    return outcome


def with_profile(deployment: Deployment, **changes: object) -> Deployment:
    return replace(deployment, profile=standin.profile(**changes))


def test_machine_of_another_distribution_is_refused(deployment: Deployment) -> None:
    with pytest.raises(UnsupportedMachine, match=r"is debian 12, and the profile standin is for centos 7"):
        stage(with_profile(deployment, distribution="centos 7"), "machine").run(lambda _: None)
    assert stage(deployment, "machine").already() is None  # no marker of ours on a machine that does not fit


def test_too_little_memory_or_disk_is_refused(deployment: Deployment) -> None:
    greedy = with_profile(deployment, size={"memory": 1 << 30, "least_memory": 1 << 30})
    with pytest.raises(UnsupportedMachine, match="MiB of memory; the profile standin needs 1073741824"):
        stage(greedy, "machine").run(lambda _: None)
    roomy = with_profile(deployment, size={"memory": 512, "least_memory": 512, "least_disk": 1 << 20})
    with pytest.raises(NotEnoughSpace, match="GiB free on the file system of /opt"):
        stage(roomy, "machine").run(lambda _: None)


def test_missing_package_is_installed_an_unwanted_one_removed_and_the_upgrade_comes_once(
    deployment: Deployment,
) -> None:
    packages = {"install": ["git", "tree"], "remove": ["nano"], "upgrade": True}
    changed = with_profile(deployment, packages=packages)
    done(changed, "packages")
    machine = deployment.machine
    assert machine.run("tree", "--version", check=False).ok
    assert not machine.run("sh", "-c", "command -v nano", check=False).ok
    machine.run("apt-get", "-y", "-q", "remove", "tree", user="root", seconds=300)
    assert stage(changed, "packages").already() is None
    outcome: list[str] = []
    stage(changed, "packages").run(outcome.append)
    assert not [line for line in outcome if "upgrading" in line]


def test_package_that_does_not_exist_is_named_with_the_cause(deployment: Deployment) -> None:
    changed = with_profile(deployment, packages={"install": ["git", "no-such-package-anywhere"]})
    with pytest.raises(
        CommandFailed, match=r"Unable to locate package no-such-package-anywhere.*none of the machine's repos"
    ) as raised:
        stage(changed, "packages").run(lambda _: None)
    assert "apt-cache policy" in raised.value.advice


def test_repository_files_are_put_with_their_mirrors(deployment: Deployment) -> None:
    path = "/etc/apt/sources.list.d/lab-test.list"
    content = "# deb http://deb.example/debian bookworm main\n"
    changed = replace(
        with_profile(deployment, repositories=[{"path": path, "content": content, "why": "a test"}]),
        settings=Settings(mirrors={"http://deb.example/": "http://mirror.example/"}),
    )
    done(changed, "repositories")
    assert deployment.machine.read(path) == b"# deb http://mirror.example/debian bookworm main\n"
    deployment.machine.run("rm", path, user="root")
    assert stage(changed, "repositories").already() is None


def test_own_certificates_are_trusted_by_the_machine(deployment: Deployment, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=lab test authority", "-days", "2",
         "-keyout", str(tmp_path / "key.pem"), "-out", str(authority)], check=True, capture_output=True,
    )  # fmt: skip
    changed = replace(deployment, settings=Settings(ca_file=authority))
    done(changed, "trust")
    deployment.machine.put("/root/lab-ca.pem", authority.read_text())
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    verified = deployment.machine.run("openssl", "verify", "-CAfile", bundle, "/root/lab-ca.pem", user="root")
    assert verified.out.strip() == "/root/lab-ca.pem: OK"
    stage(changed, "pip").run(lambda _: None)
    assert f"cert = {bundle}".encode() in (deployment.machine.read("/etc/pip.conf") or b"")

    authority.write_text("no certificate\n")
    with pytest.raises(ProfileInvalid, match="holds no certificate"):
        stage(changed, "trust").run(lambda _: None)
    deployment.machine.run("rm", "/usr/local/share/ca-certificates/stacklab.crt", user="root")
    deployment.machine.run("update-ca-certificates", user="root")


def test_pip_on_the_machine_obeys_the_constraints(deployment: Deployment) -> None:
    changed = replace(
        with_profile(deployment, pip_constraints=["no-such-thing===2.0.20"]),
        settings=Settings(pip_index="http://index.invalid/simple"),
    )
    done(changed, "pip")
    machine = deployment.machine
    machine.run("python3", "-m", "venv", "/srv/venv", user="root", seconds=300)
    settings = machine.run("/srv/venv/bin/pip", "config", "list").lines
    assert "global.index-url='http://index.invalid/simple'" in settings
    assert "global.constraint='/etc/stacklab/constraints.txt'" in settings
    assert machine.read("/etc/stacklab/constraints.txt") == b"no-such-thing===2.0.20\n"


def test_programs_that_lab_runs_get_the_proxy_and_spare_the_machine_itself(deployment: Deployment) -> None:
    changed = replace(deployment, settings=Settings(proxy="http://me:it's@proxy.example:3128"))
    outcome = done(changed, "proxy")
    assert "it's" not in outcome
    stage(changed, "user").run(lambda _: None)
    for user in ("root", "stack"):
        shown = run_through_proxy(deployment.machine, "env", user=user, seconds=60).lines
        assert "https_proxy=http://me:it's@proxy.example:3128" in shown
        assert any(line.startswith("no_proxy=") and deployment.host_ip in line for line in shown)
        assert f"HOME={'/root' if user == 'root' else '/opt/stack'}" in shown


def test_passwords_of_proxy_and_mirrors_are_in_no_argument_no_log_and_no_file_that_others_read(
    deployment: Deployment,
) -> None:
    mirror = "https://me:zq7pass@127.0.0.1:9"
    repository = {"path": "/etc/apt/sources.list.d/own.list", "content": "# https://a.example/x\n", "why": "a test"}
    changed = replace(
        with_profile(
            deployment,
            repositories=[repository],
            devstack={"repo": "https://a.example/devstack", "ref": "main"},
            packages={"install": ["no-such-package-anywhere"]},
        ),
        settings=Settings(
            proxy="http://me:zq7pass@127.0.0.1:9",
            mirrors={"https://a.example": mirror},
            pip_index="https://me:zq7pass@index.invalid/simple",
        ),
    )
    for name in ("proxy", "repositories", "accounts", "pip"):
        stage(changed, "user").run(lambda _: None)
        done(changed, name)
    for run in (stage(changed, "packages").run, source.stages(changed)[0].run):
        with pytest.raises((CommandFailed, DownloadFailed)) as caught:
            run(lambda _: None)
        assert "zq7pass" not in f"{caught.value.message} {caught.value.advice}"
    machine = deployment.machine
    # sudo writes every command into the journal, with its arguments.
    assert "COMMAND=" in machine.run("journalctl", "-q", "--no-pager", "-t", "sudo", user="root").out
    assert "zq7pass" not in machine.run("journalctl", "-q", "--no-pager", user="root").out
    holding = machine.script("grep -rls zq7pass /etc /opt /root /var/log /var/lib/stacklab || true", user="root").lines
    assert {"/etc/stacklab/environment", "/root/.netrc", "/opt/stack/.netrc"} <= set(holding)
    for path in holding:
        if not path.startswith("/var/log/journal"):
            assert machine.run("stat", "-c", "%a", path, user="root").out == "600\n", path
    machine.run("rm", "-f", "/root/.netrc", repository["path"], "/etc/pip.conf", user="root")


def test_locale_that_is_missing_is_made(deployment: Deployment) -> None:
    machine = deployment.machine
    machine.script(
        "localedef --list-archive | xargs -r localedef --delete-from-archive; rm -rf /usr/lib/locale/en_*", user="root"
    )
    done(deployment, "locale")
    assert "en_US.utf8" in machine.run("locale", "-a").lines


def test_the_clock_is_right(deployment: Deployment) -> None:
    # The machine's clock is this host's, so that it cannot be off, and setting it is not tried here.
    assert str(stage(deployment, "clock").already()).startswith("right to 0.")


def test_user_stack_is_made_and_one_with_another_home_is_refused(deployment: Deployment) -> None:
    machine = deployment.machine
    machine.script(
        "pkill -KILL -u stack || true; userdel stack 2>/dev/null || true; rm -rf /opt/stack /etc/sudoers.d/40-stacklab",
        user="root",
    )
    assert done(deployment, "user") == "home /opt/stack, sudo without a password"
    machine.run("visudo", "-c", user="root")

    machine.run("usermod", "-d", "/home/stack", "stack", user="root")
    with pytest.raises(UnsupportedMachine, match="whose home is /home/stack"):
        stage(deployment, "user").run(lambda _: None)
    machine.run("usermod", "-d", "/opt/stack", "stack", user="root")


def test_stages_that_nobody_asked_for_are_left_out(deployment: Deployment) -> None:
    names = [stage.name for stage in preparation.stages(deployment)]
    assert names == ["machine", "proxy", "packages", "clock", "locale", "user", "pip"]
    assert isinstance(deployment.profile, Profile)
