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


def test_a_node_on_a_processor_without_virtualization_is_not_believed() -> None:
    found = decide(PLAIN, node=True, ours=True)
    assert (found.driver, found.really) == ("qemu", True)
    assert "neither vmx nor svm" in found.why
    assert "no kernel starts with the /dev/kvm that is there" in found.why
    assert "10 to 20 times as long" in found.why  # what it costs


def test_no_node_and_no_virtualization() -> None:
    assert "there is no /dev/kvm" in decide(PLAIN, node=False, ours=False).why


@pytest.mark.parametrize(("cpuinfo", "module"), [(INTEL, "kvm_intel"), (AMD, "kvm_amd")])
def test_virtualization_without_a_node_names_the_module_to_load(cpuinfo: str, module: str) -> None:
    found = decide(cpuinfo, node=False, ours=False)
    assert found.driver == "qemu"
    assert f"load {module}" in found.why


def test_a_node_that_only_libvirt_may_open_is_used_but_not_called_proved() -> None:
    found = decide(INTEL, node=True, ours=False)
    assert (found.driver, found.really) == ("kvm", False)
    assert "not ours to try" in found.why


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
