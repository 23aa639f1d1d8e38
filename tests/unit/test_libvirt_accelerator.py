"""Which accelerator a VM gets, and why: from what a machine shows, and by running a guest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stacklab.homes.libvirt import accelerator
from stacklab.homes.libvirt.accelerator import decide, find_accelerator, try_guest

INTEL = "processor\t: 0\nflags\t\t: fpu vme vmx ssse3\n"
AMD = "processor\t: 0\nflags\t\t: fpu vme svm ssse3\n"
PLAIN = "processor\t: 0\nflags\t\t: fpu vme ssse3 hypervisor\n"
needs_qemu = pytest.mark.skipif(
    not shutil.which(accelerator.QEMU), reason="no QEMU here: apt-get install -y qemu-system-x86"
)


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    find_accelerator.cache_clear()
    yield
    find_accelerator.cache_clear()


@needs_qemu
@pytest.mark.parametrize(
    ("cpuinfo", "node", "ours", "driver", "really", "says"),
    [
        (PLAIN, True, True, "qemu", True, "neither vmx nor svm"),
        (PLAIN, True, True, "qemu", True, "no kernel starts with the /dev/kvm that is there"),
        (PLAIN, True, True, "qemu", True, "10 to 20 times as long"),  # what it costs
        (PLAIN, False, False, "qemu", True, "there is no /dev/kvm"),
        (INTEL, False, False, "qemu", True, "load kvm_intel"),
        (AMD, False, False, "qemu", True, "load kvm_amd"),
        (INTEL, True, False, "kvm", False, "not ours to try"),  # but libvirt's, perhaps
    ],
)
def test_what_a_machine_shows_decides(
    cpuinfo: str, node: bool, ours: bool, driver: str, really: bool, says: str
) -> None:
    found = decide(cpuinfo, node, ours)
    assert (found.driver, found.really) == (driver, really)
    assert says in found.why


@needs_qemu
def test_a_guest_really_runs_when_it_is_emulated() -> None:
    assert try_guest("tcg", "max") is None


@needs_qemu
def test_a_machine_that_runs_code_of_16_bits_only_is_no_machine_for_a_kernel() -> None:
    assert try_guest("tcg", "qemu32", seconds=5)


@needs_qemu
def test_an_accelerator_that_does_not_exist_is_told_with_qemus_words() -> None:
    assert "invalid accelerator nonsense" in str(try_guest("nonsense", "max"))


def test_without_qemu_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert try_guest("kvm", "host") == "there is no qemu-system-x86_64 to try it with"


@needs_qemu
@pytest.mark.parametrize("program", ["sleep 60", "exit 0", "kill -ABRT $$", "echo 'failed to set MSR' >&2; exit 1"])
def test_a_qemu_that_hangs_dies_or_says_nothing_is_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    (tmp_path / accelerator.QEMU).write_text(f"#!/bin/sh\nexec 2>&1 >/dev/null\n{program}\n")
    (tmp_path / accelerator.QEMU).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert try_guest("kvm", "host", seconds=0.5)


@pytest.mark.parametrize("driver", ["kvm", "qemu"])
def test_the_user_may_overrule_it(monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
    monkeypatch.setenv("LAB_LIBVIRT_DRIVER", driver)
    found = find_accelerator()
    assert (found.driver, found.really) == (driver, driver == "never")
    assert "LAB_LIBVIRT_DRIVER" in found.why
