"""A deployment that uses what was prefetched, from its first stage to its last, on a machine behind a real sshd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stacklab.deploy.deployment import Deployment
from stacklab.homes.prefetched import GIT_CONFIG, Prefetched
from stacklab.lab import Lab
from stacklab.machines.base import Finished
from stacklab.machines.ssh import SshMachine
from stacklab.prefetch import mirrors, plan, serving
from stacklab.stages import Stage
from tests.machine.conftest import running_sshd
from tests.machine.sshd import Sshd
from tests.prefetch.conftest import World


class Contained(SshMachine):
    """Its root is nobody, and its files are in a directory: this machine's own stay as they are."""

    root: Path

    def run(self, *argv: str, **options: Any) -> Finished:
        if argv[0] == "rm":
            (self.root / Path(argv[-1]).name).unlink(missing_ok=True)
            return Finished("rm", 0, "", "")
        return super().run(*argv, **{**options, "user": None})

    def script(self, text: str, *arguments: str, **options: Any) -> Finished:
        return Finished("script", 0, "", "")

    def put(self, path: str, content: str | bytes, **options: Any) -> None:
        (self.root / Path(path).name).write_bytes(content.encode() if isinstance(content, str) else content)

    def read(self, path: str, **options: Any) -> bytes | None:
        file = self.root / Path(path).name
        return file.read_bytes() if file.exists() else None


def contained(sshd: Sshd, directory: Path) -> Contained:
    machine = sshd.machine()
    machine.__class__ = Contained
    assert isinstance(machine, Contained)
    machine.root = directory
    return machine


def quiet(line: str) -> None:
    pass


def run_stage(stage: Stage) -> str:
    return stage.already() or stage.run(quiet)


@pytest.fixture
def sshd_at(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    (tmp_path / "sshd").mkdir()
    return tmp_path


def prefetched(world: World, lab: Lab, machine: Contained) -> Prefetched:
    own = Deployment(lab=lab, profile=world.profile, machine=machine, host_ip="192.0.2.1", settings=world.settings)
    return Prefetched(own, machine)


def test_pip_and_git_ask_the_cache_as_long_as_it_is_served_and_not_after(world: World, lab: Lab, sshd_at: Path) -> None:
    with running_sshd(sshd_at / "sshd") as sshd:
        machine = contained(sshd, sshd_at / "there")
        own = prefetched(world, lab, machine)
        assert own.before().already() == "not needed"  # nothing was prefetched
        mirrors.fetch(plan.devstack_of(world.profile), world.settings, quiet)
        assert "come from here" in run_stage(own.before())
        served = serving.state(lab)
        assert served is not None
        assert own.deployment().settings.pip_first == f"{served.url}python/3.11-2.36/"
        assert run_stage(own.git()) == run_stage(own.git())
        assert (
            f'[url "{served.url}git/git.example/openstack/devstack.git"]' in (machine.read(GIT_CONFIG) or b"").decode()
        )
        end, git, *_ = own.after()
        assert run_stage(end) == "ended"
        assert run_stage(git) == "their own places"
        assert machine.read(GIT_CONFIG) is None
        assert own.deployment() is own.own
        machine.close()


def test_a_machine_that_forwards_nothing_is_deployed_from_the_internet(
    world: World, lab: Lab, sshd_at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stacklab.homes.prefetched.REACH_SECONDS", 3)
    with running_sshd(sshd_at / "sshd", "AllowTcpForwarding no") as sshd:
        machine = contained(sshd, sshd_at / "there")
        own = prefetched(world, lab, machine)
        mirrors.fetch(plan.devstack_of(world.profile), world.settings, quiet)
        outcome = run_stage(own.before())
        assert outcome.startswith("not used: ")
        assert serving.state(lab) is None
        assert run_stage(own.git()) == "their own places"
        machine.close()
