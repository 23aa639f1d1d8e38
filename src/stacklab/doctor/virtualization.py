"""Whether VMs run on the processor itself, found out by the home's own means: a guest that really ran, never a device node."""

from __future__ import annotations

import os
import re
import shutil

from stacklab.conditions.condition import Finding
from stacklab.doctor import packages
from stacklab.doctor.probe import good, unknown, warning
from stacklab.homes.libvirt import accelerator
from stacklab.homes.libvirt.accelerator import Accelerator, decide, find_accelerator


def here() -> Finding:
    """Of this machine."""
    accelerated = _find()
    if accelerated.driver == "qemu":
        module = re.search(r"\bkvm_(?:intel|amd)\b", accelerated.why)
        return warning(accelerated.why, *([f"sudo modprobe {module[0]}"] if module else []))
    if accelerated.really:
        return good(accelerated.why)
    if "LAB_LIBVIRT_DRIVER" in os.environ:
        return unknown(f"{accelerated.why}; it was not tried", "unset LAB_LIBVIRT_DRIVER")
    if shutil.which(accelerator.QEMU) is None:
        return unknown(f"there is no {accelerator.QEMU} to try it with", *packages.install("guests"))
    return unknown(accelerated.why, "sudo usermod -aG kvm $USER; then log out and in again")


def _find() -> Accelerator:
    # what was found may have been repaired since
    find_accelerator.cache_clear()
    if shutil.which(accelerator.QEMU) is None and not os.environ.get("LAB_LIBVIRT_DRIVER"):
        # What the processor shows decides as far as it can; the rest takes a guest, and there is nothing to run one with.
        return decide(
            accelerator.CPUINFO.read_text(encoding="utf-8", errors="replace"), accelerator.NODE.exists(), False
        )
    return find_accelerator()
