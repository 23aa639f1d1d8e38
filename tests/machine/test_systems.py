"""The test machine itself: what other tests take for granted of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.machine.system_fixture import debian, fresh_debian
from tests.systems import System, missing, system

__all__ = ["debian", "fresh_debian"]


def test_it_booted_without_a_failed_unit_and_its_user_may_do_all(debian: System) -> None:
    state = debian.ssh("systemctl is-system-running --wait; systemctl --failed --no-legend; id -un; sudo -n id -un")
    assert state.stdout.split() == ["running", debian.user, "root"]


def test_it_reaches_the_package_registries_of_the_host(debian: System) -> None:
    debian.ssh("apt-get update -qq && apt-get install -qq --download-only hello", user="root", seconds=300)
    debian.ssh("python3 -m venv ~/env && ~/env/bin/pip download -q --no-deps six", seconds=300)


def test_comes_back_from_a_reboot_that_it_was_told_inside(fresh_debian: System) -> None:
    first = fresh_debian.boot_id()
    fresh_debian.ssh("sudo touch /root/stays")
    fresh_debian.reboot()
    assert fresh_debian.boot_id() != first
    fresh_debian.ssh("sudo test -e /root/stays")


def test_two_at_once_are_apart_and_leave_nothing(tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    with system(tmp_path) as first, system(tmp_path) as two:
        assert first.address != two.address
        first.ssh("sudo systemctl stop apache2")
        assert two.ssh("systemctl is-active apache2").stdout.strip() == "active"
        assert two.ssh("test ! -e /etc/only-here && sudo touch /etc/only-here").returncode == 0
        first.ssh("test ! -e /etc/only-here")
    for name, pid in ((first.name, first.pid), (two.name, two.pid)):
        assert not Path(f"/proc/{pid}").exists()
        assert not list(Path("/sys/fs/cgroup").glob(f"*/{name}"))
        assert not list(Path("/sys/class/net").glob(f"*{name}"))
        rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
        assert name not in rules
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
