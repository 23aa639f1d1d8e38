"""The VM's life: made through interruptions, looked at, saved and put back, stopped and started."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from stacklab.deploy.profile.settings import Settings
from stacklab.errors import CheckpointMissing, HomeUnavailable, LabError, NotRunning, VmFailed
from stacklab.homes.libvirt.hypervisor import DEFAULT_URI, Hypervisor
from stacklab.homes.libvirt.vagrant import started
from stacklab.homes.libvirt.vm import Vm
from stacklab.homes.plan import Plan
from stacklab.lab import Lab
from stacklab.machines.clock import OFF_SECONDS, ahead
from stacklab.waiting import looks
from tests.measure import measured
from tests.vm.conftest import CLEAN, Journey, bring_up, profile, quiet
from tests.vm.daemons import NO_BINDING

VIRSH = ["virsh", "--connect", DEFAULT_URI]


def virsh(*words: str) -> str:
    return subprocess.run([*VIRSH, *words], check=True, capture_output=True, text=True).stdout


def boot_id(vm: Vm) -> str:
    return vm.machine().run("cat", "/proc/sys/kernel/random/boot_id").out.strip()


def start_something(vm: Vm, name: str) -> None:
    """A process whose survival shows that memory was kept."""
    vm.machine().run("systemd-run", f"--unit={name}", "sleep", "100000", user="root")


def runs(vm: Vm, name: str) -> bool:
    return vm.machine().run("systemctl", "is-active", name, check=False).out.strip() == "active"


def snapshots(vm: Vm, name: str) -> list[str]:
    names = [snapshot.name for snapshot in vm.hypervisor.snapshots(vm.site.domain)]
    return [each for each in names if f".{name}." in each]


def eventually_on_console(vm: Vm) -> str:
    """What is on the console, once there is a login prompt.

    It is asked for: sshd may be there before the first one, and a VM that was put back to a checkpoint has its own behind it.
    """
    vm.machine().run("systemctl", "restart", "serial-getty@ttyS0", user="root")
    any("login:" in line for lines in looks(vm.console, 300, 1) for line in lines)
    return "\n".join(vm.console())


def put_clock_back(vm: Vm) -> None:
    """By more than a busy host can make of it, so that a clock that is right afterwards was set."""
    vm.machine().run("date", "-s", "-1 hour", user="root")


# --- made ----------------------------------------------------------------------------------------------------------


def test_the_vagrant_of_a_killed_lab_is_ended_and_what_it_left_is_made_anew(made: tuple[Vm, Journey]) -> None:
    _, journey = made
    assert started(journey.vagrant) is None
    assert any("cut short" in line for line in journey.second), journey.second
    assert any(line.startswith("removed the VM") for line in journey.second), journey.second
    assert [stage.outcome for stage in journey.ended.values()] == ["already", "already", "done", "already"]


def test_a_second_up_has_nothing_to_do(vm: Vm) -> None:
    ended, said = bring_up(vm)
    assert {stage.outcome for stage in ended.values()} == {"already"}
    assert said == []


def test_libvirt_and_the_guest_agree_on_what_it_is(vm: Vm) -> None:
    assert vm.state() == "running"
    told = vm.machine().script("nproc; awk '/MemTotal/ {print $2}' /proc/meminfo; lsblk -bdno SIZE /dev/vda").lines
    assert told[0] == "2"
    assert 0.8 * 1536 * 1024 < int(told[1]) <= 1536 * 1024
    assert int(told[2]) == 6 * 10**9 or int(told[2]) == 6 << 30
    described = ET.fromstring(virsh("dumpxml", vm.site.domain))  # noqa: S314 - libvirt's own words
    assert described.get("type") == vm.site.driver
    assert described.find("./devices/graphics") is None


def test_its_addresses_are_the_static_one_and_one_from_dhcp(vm: Vm) -> None:
    there = vm.machine().run("ip", "-4", "-o", "addr", "show", "scope", "global").out
    assert f" {vm.address}/24 " in there
    leased = [word for word in virsh("domifaddr", vm.site.domain).split() if word.endswith("/24")]
    assert any(f" {address} " in there for address in leased)
    assert f"{vm.address}/24" not in leased


def test_the_serial_console_is_in_a_file_that_only_we_can_read(vm: Vm) -> None:
    assert "login:" in eventually_on_console(vm)
    assert vm.console_file.stat().st_mode & 0o777 == 0o600


def test_the_guest_enforces_selinux(vm: Vm) -> None:
    assert vm.machine().run("getenforce", user="root").out.strip() == "Enforcing"
    label = vm.machine().run("cat", "/proc/1/attr/current", user="root").out.strip("\0\n")
    assert ":init_t:" in label
    refused = vm.machine().script("runcon -t httpd_t -- cat /etc/shadow", user="root", check=False)
    assert not refused.ok


def test_vagrants_well_known_key_does_not_let_in(vm: Vm) -> None:
    stranger = vm.vagrant.home / "insecure_private_key"
    argv = [word for word in vm.machine().ssh_argv("true") if word != str(vm.key_file)]
    argv[argv.index("-i") + 1 : argv.index("-i") + 1] = [str(stranger)]
    refused = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr


def test_the_host_key_is_pinned_in_the_labs_own_file(vm: Vm) -> None:
    vm.machine().run("true")
    key = vm.machine().run("cat", "/etc/ssh/ssh_host_ed25519_key.pub").out.split()[1]
    assert [line.split()[0] for line in vm.known_hosts.read_text().splitlines()] == [vm.address]
    assert key in vm.known_hosts.read_text()


# --- checkpoints ---------------------------------------------------------------------------------------------------


def test_a_restore_undoes_damage_and_what_ran_runs_on(clean_vm: Vm) -> None:
    vm = clean_vm
    start_something(vm, "survivor")
    put_clock_back(vm)
    with measured("checkpoint"):
        vm.checkpoints.save("before", quiet)
    booted = boot_id(vm)
    vm.machine().script(
        "rm -rf /etc/hosts /home/vagrant/.bashrc; systemctl stop survivor; date -s '2001-01-01 00:00'", user="root"
    )
    assert not runs(vm, "survivor")
    with measured("back to a checkpoint, to SSH and the right time"):
        vm.checkpoints.restore("before", quiet)
    assert vm.machine().run("ls", "/etc/hosts").ok
    assert runs(vm, "survivor")
    assert boot_id(vm) == booted
    assert abs(ahead(vm.machine())) < OFF_SECONDS
    assert vm.checkpoints.names() == ["before", CLEAN]


def test_a_new_checkpoint_replaces_the_old_one_of_its_name(clean_vm: Vm) -> None:
    vm = clean_vm
    vm.machine().run("touch", "/root/first", user="root")
    vm.checkpoints.save("again", quiet)
    vm.machine().run("touch", "/root/second", user="root")
    vm.checkpoints.save("again", quiet)
    assert len(snapshots(vm, "again")) == 1
    vm.machine().run("rm", "/root/first", "/root/second", user="root")
    vm.checkpoints.restore("again", quiet)
    assert vm.machine().run("ls", "/root/first", "/root/second", user="root").ok


def test_a_checkpoint_that_cannot_be_taken_leaves_the_old_one(clean_vm: Vm, tmp_path: Path) -> None:
    vm = clean_vm
    vm.checkpoints.save("kept", quiet)
    before = vm.hypervisor.snapshots(vm.site.domain)
    # A disk that holds no snapshots makes QEMU refuse to save any.
    raw = Path("/var/tmp") / f"{vm.site.domain}.raw"  # noqa: S108 - QEMU's own user must reach it
    raw.write_bytes(bytes(1 << 20))
    try:
        virsh("attach-disk", vm.site.domain, str(raw), "vdz", "--subdriver", "raw")
        with pytest.raises(VmFailed, match="saving"):
            vm.checkpoints.save("kept", quiet)
        virsh("detach-disk", vm.site.domain, "vdz")
    finally:
        raw.unlink()
    assert vm.hypervisor.snapshots(vm.site.domain) == before
    assert "kept" in vm.checkpoints.names()
    assert vm.state() == "running"


def test_a_save_cut_short_before_it_was_proved_leaves_the_old_one_and_no_rest(clean_vm: Vm) -> None:
    vm = clean_vm
    vm.checkpoints.save("kept", quiet)
    (old,) = snapshots(vm, "kept")

    class Killed(BaseException):
        """Stands for kill -9: nothing of ours catches it."""

    def at_the_worst_moment(detail: str) -> None:
        if "whole" in detail:
            raise Killed

    with pytest.raises(Killed):
        vm.checkpoints.save("kept", at_the_worst_moment)
    assert len(snapshots(vm, "kept")) == 2
    again = Vm(vm.lab, vm.profile, vm.settings, vm.plan)
    assert "kept" in again.checkpoints.names()
    again.checkpoints.tidy()
    assert snapshots(vm, "kept") == [old]


def test_an_interrupted_restore_is_finished_by_the_next_up(clean_vm: Vm) -> None:
    vm = clean_vm
    vm.machine().run("touch", "/root/damage", user="root")

    with vm.lab.writing(new=True):
        vm.lab.update(restoring=CLEAN)  # as `lab reset` notes, before it touches anything
    ended, _ = bring_up(Vm(vm.lab, vm.profile, vm.settings, vm.plan))
    assert ended["unfinished"].detail == f"finished going back to '{CLEAN}'"
    with vm.lab.writing():
        vm.lab.update(restoring=None)
    assert not vm.machine().run("ls", "/root/damage", user="root", check=False).ok


def test_a_checkpoint_that_is_not_there_is_told_with_those_that_are(vm: Vm) -> None:
    with pytest.raises(CheckpointMissing, match="no checkpoint 'nowhere'") as caught:
        vm.checkpoints.restore("nowhere", quiet)
    assert CLEAN in caught.value.advice


# --- down and up ---------------------------------------------------------------------------------------------------


def test_down_keeps_memory_and_up_goes_on_even_if_somebody_removed_the_network(clean_vm: Vm) -> None:
    vm = clean_vm
    start_something(vm, "sleeper")
    put_clock_back(vm)
    booted = boot_id(vm)
    with measured("down (memory to disk)"):
        said = vm.down(quiet)
    assert "memory is on disk" in said
    assert vm.state() == "saved"
    assert vm.down(quiet) == "it is off already"
    with pytest.raises(NotRunning):
        vm.checkpoints.save("off", quiet)
    for name in vm.site.network_xml():
        virsh("net-destroy", name)
        virsh("net-undefine", name)
    with measured("up again (memory from disk)"):
        ended, _ = bring_up(vm)
    assert ended["vm"].detail.startswith("goes on where it was")
    assert runs(vm, "sleeper")
    assert boot_id(vm) == booted
    assert abs(ahead(vm.machine())) < OFF_SECONDS


def test_a_restore_of_a_vm_that_is_off_starts_it_from_the_checkpoint(clean_vm: Vm) -> None:
    vm = clean_vm
    vm.machine().run("touch", "/root/damage", user="root")
    vm.down(quiet)
    vm.checkpoints.restore(CLEAN, quiet)
    assert vm.state() == "running"
    assert not vm.machine().run("ls", "/root/damage", user="root", check=False).ok


def test_a_paused_vm_goes_on(vm: Vm) -> None:
    virsh("suspend", vm.site.domain)
    assert vm.state() == "paused"
    ended, _ = bring_up(vm)
    assert ended["vm"].detail.startswith("goes on")


# --- what is not there ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not find_spec("libvirt"), reason=NO_BINDING)
@pytest.mark.parametrize(
    ("uri", "why", "advice"),
    [
        ("qemu+unix:///system?socket=/nonexistent/libvirt-sock", "does not answer", "lab doctor --on libvirt"),
        ("qemu+ssh://me@host/system", "another machine's libvirt", "lab up SESSION --on ssh://user@host"),
    ],
)
def test_a_libvirt_that_cannot_be_used_is_told_with_what_helps(
    uri: str, why: str, advice: str, own_directories: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    vm = Vm(Lab("nowhere"), profile(), Settings(libvirt_uri=uri), Plan())
    host = vm.stages()[0]
    assert host.already() is None
    with pytest.raises(HomeUnavailable, match=why) as caught:
        host.run(quiet)
    assert advice in caught.value.advice
    assert capfd.readouterr().err == ""  # libvirt itself prints its errors, if it is let


def test_a_lab_without_a_vm_says_so(daemons: None, own_directories: Path) -> None:
    vm = Vm(Lab("nothing"), profile(), Settings(), Plan())
    assert vm.state() is None
    assert vm.checkpoints.names() == []
    assert vm.down(quiet) == "there is no VM"
    assert list(vm.destroy(quiet)) == []
    with pytest.raises(NotRunning):
        vm.machine()


def test_a_domain_that_is_gone_is_an_error_of_ours(daemons: None) -> None:
    hypervisor = Hypervisor(DEFAULT_URI)
    assert hypervisor.state("lab-no-such-vm") is None
    with pytest.raises(LabError, match="there is no VM lab-no-such-vm"):
        hypervisor.start("lab-no-such-vm")
    hypervisor.close()
