"""One real VM for all these tests: real Vagrant, libvirt and QEMU, a box built here, everything of it removed at the end.

`vm` is up, whatever the tests before did; `clean_vm` is that, and is put back to its first state after the test. The one
first `lab up` is killed on its way (see `Journey`).
"""

from __future__ import annotations

import importlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stacklab import places
from stacklab.deploy.profile.load import load_profile
from stacklab.deploy.profile.model import Profile, Size
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import CommandFailed, MachineUnreachable
from stacklab.events import StageEnded, StageMoved
from stacklab.homes.libvirt.hypervisor import DEFAULT_URI
from stacklab.homes.libvirt.vm import Vm
from stacklab.homes.plan import Plan
from stacklab.lab import Lab
from stacklab.machines.base import Machine
from stacklab.stages import run_stages
from stacklab.waiting import NotYet, until
from tests.measure import measured
from tests.vm import box as boxes
from tests.vm import daemons as host

LAB = "vmtests"
CLEAN = "clean"
MEMORY = 1536  # MiB


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first waits for the box and the VM."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(3600))


def restart(machine: Machine, seconds: float) -> None:
    """Restart the machine, in order, and wait until it answers as another boot."""
    boot = ("cat", "/proc/sys/kernel/random/boot_id")
    before = machine.run(*boot).out
    # Through a timer of systemd's: the command ends before the connection does.
    machine.run("systemd-run", "--on-active=1", "systemctl", "reboot", user="root")

    def restarted() -> bool | NotYet:
        try:
            return machine.run(*boot, seconds=30).out != before or NotYet("it has not gone down")
        except (MachineUnreachable, CommandFailed) as error:
            machine.close()
            return NotYet(error.message)

    until(restarted, "another boot", seconds=seconds, every=3)


def quiet(detail: str) -> None:
    """Progress that nobody reads."""


@pytest.fixture(scope="session")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """libvirt answers."""
    why_not = host.why_not()
    if why_not:
        pytest.skip(why_not)
    with host.daemons(tmp_path_factory.mktemp("daemons")):
        yield


@pytest.fixture(scope="session")
def box(daemons: None) -> Path:
    """The box."""
    why_not = boxes.why_not()
    if why_not:
        pytest.skip(why_not)
    with measured("the box (built, or from the cache)"):
        return boxes.box(places.cache_home())


@pytest.fixture(scope="session")
def pool(daemons: None) -> Iterator[str]:
    """A storage pool of the tests' own, where QEMU's own user may go."""
    libvirt = importlib.import_module("libvirt")
    directory = Path(tempfile.mkdtemp(prefix="lab-pool-", dir="/var/tmp"))
    directory.chmod(0o711)
    connection = libvirt.open(DEFAULT_URI)
    name = directory.name
    found = connection.storagePoolDefineXML(
        f"<pool type='dir'><name>{name}</name><target><path>{directory}</path></target></pool>"
    )
    found.create()
    try:
        yield name
    finally:
        found.destroy()
        found.undefine()
        connection.close()
        shutil.rmtree(directory)


@dataclass
class Journey:
    """How the VM was made: `lab` killed while its Vagrant worked on (that one's process number), then `lab up` again."""

    vagrant: int
    ended: dict[str, StageEnded]
    second: list[str]


def profile() -> Profile:
    """A profile with a size that suits the tests' box."""
    size = Size(cpus=2, memory=MEMORY, least_memory=512, disk=6)
    return load_profile("debian12-2026.1").model_copy(update={"size": size})


def vm_of(box: str, pool: str) -> Vm:
    """The tests' VM; see bring_up.py, which is another process's `lab`."""
    return Vm(Lab(LAB), profile(), Settings(libvirt_pool=pool), Plan(box=box))


def bring_up(vm: Vm) -> tuple[dict[str, StageEnded], list[str]]:
    """`lab up`, as far as the VM goes: how each stage ended, and what was said."""
    ended: dict[str, StageEnded] = {}
    said: list[str] = []

    def emit(event: object) -> None:
        if isinstance(event, StageEnded):
            ended[event.stage] = event
        elif isinstance(event, StageMoved):
            said.append(event.detail)

    with vm.lab.writing(new=True):
        run_stages(vm.lab, vm.stages(), emit)
    return ended, said


def cut_short(box: Path, pool: str, at: str) -> None:
    """Start `lab up` in a process of its own and kill it (-9) as soon as it says `at`."""
    command = [sys.executable, "-m", "tests.vm.bring_up", str(box), pool]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said: list[str] = []
    assert process.stdout
    with process:
        for line in process.stdout:
            said.append(json.loads(line))
            if at in said[-1]:
                process.kill()
                break
        else:
            pytest.fail(f"it ended before it said '{at}': {said}")
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="session")
def made(box: Path, pool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vm, Journey]]:
    """The VM, made once, and how that went."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("VAGRANT_HOME", str(tmp_path_factory.mktemp("vagrant")))
        vm = vm_of(str(box), pool)
        try:
            with measured("up to SSH, with the box's adding, lab killed in the middle"):
                cut_short(box, pool, "Starting domain")
                vagrant = int(json.loads((vm.directory / "vagrant.json").read_text())["pid"])
                journey = Journey(vagrant, *bring_up(vm))
            with measured("checkpoint"):
                vm.checkpoints.save(CLEAN, quiet)
            yield vm, journey
        finally:
            with measured("destroy"):
                for _ in vm.destroy(quiet):
                    pass
            vm.hypervisor.close()


@pytest.fixture
def vm(made: tuple[Vm, Journey]) -> Vm:
    """The VM, up."""
    vm, _ = made
    if vm.state() != "running":
        bring_up(vm)
    return vm


def put_back(vm: Vm) -> None:
    """The VM as it was when it had just been made, with no other checkpoint than that."""
    with measured("back to a checkpoint, to SSH and the right time"):
        vm.checkpoints.restore(CLEAN, quiet)
    for name in vm.checkpoints.names():
        if name != CLEAN:
            vm.checkpoints.drop(name, quiet)


@pytest.fixture
def clean_vm(vm: Vm) -> Iterator[Vm]:
    """The VM, up, and as it was when it had just been made; put back afterwards."""
    yield vm
    put_back(vm)
