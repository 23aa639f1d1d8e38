"""Whether virtual machines can use the processor's virtualization, found out by running one.

A /dev/kvm node proves nothing: inside another virtual machine it may be there, open, answer, and even run a few instructions
of 16 bits, and yet no kernel gets to its first line (seen with kvm_pvm, on a processor that shows neither vmx nor svm). So
QEMU is asked to run, with KVM and the host's processor, a guest that does what a kernel does first: it turns paging on and
runs code of 64 bits.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NODE = Path("/dev/kvm")
CPUINFO = Path("/proc/cpuinfo")
QEMU = "qemu-system-x86_64"
SECONDS = 20
COST = "the VM is emulated: it boots in minutes, and everything in it takes 10 to 20 times as long"
_GUEST = bytes.fromhex(
    "fa 31c0 8ed8"  # cli; ds = 0
    "66c70600100320 0000 66c70600200330 0000 66c706003083000000"  # page tables at 0x1000, 0x2000, 0x3000: the first 2 MiB
    "66b800100000 0f22d8"  # cr3: those tables
    "66b820000000 0f22e0"  # cr4: PAE
    "66b9800000c0 0f32 660d00010000 0f30"  # EFER: long mode
    "2e660f01166a00"  # lgdt, below
    "66b811000080 0f22c0 66ea5a000f000800"  # cr0: protected, paging; jump to the code of 64 bits
    "b9a0860100 ffc9 75fc"  # count down from 100,000
    "b015 e6f4 f4 ebfd"  # out 0xf4, 21: QEMU's isa-debug-exit ends with 2 * 21 + 1; else hlt for ever
    "0f00 70000f00 0000000000000000 00000000009a2000"  # the table of segments: none, and one of 64-bit code
)
# A firmware of 64 KiB: the guest at its start, and a jump to it where a processor begins.
ROM = _GUEST.ljust(0xFFF0, b"\0") + bytes.fromhex("ea000000f0").ljust(16, b"\0")
ROM_SAYS = 43


@dataclass(frozen=True)
class Accelerator:
    """`driver`: what libvirt shall use. `really`: that was found out, not guessed. `why`: evidence, and what it costs."""

    driver: Literal["kvm", "qemu"]
    really: bool
    why: str


@functools.cache
def find_accelerator() -> Accelerator:
    """What this machine's VMs can run with. Takes less than a second; LAB_LIBVIRT_DRIVER=kvm|qemu overrules it."""
    wanted = os.environ.get("LAB_LIBVIRT_DRIVER")
    if wanted == "kvm":
        return Accelerator("kvm", False, "LAB_LIBVIRT_DRIVER says so")
    if wanted == "qemu":
        return Accelerator("qemu", False, f"LAB_LIBVIRT_DRIVER says so; {COST}")
    if platform.machine() != "x86_64":
        return _emulated(f"the course's VM is an x86_64 one, this machine is {platform.machine()}")
    return decide(
        CPUINFO.read_text(encoding="utf-8", errors="replace"), NODE.exists(), os.access(NODE, os.R_OK | os.W_OK)
    )


def decide(cpuinfo: str, node: bool, ours: bool) -> Accelerator:
    """From /proc/cpuinfo's text, whether the node is there, and whether we may open it (libvirt may all the same)."""
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    has = sorted({"vmx", "svm"} & set(flags.group(1).split())) if flags else []
    if not has:
        node_says = f"no kernel starts with the {NODE} that is there" if node else f"there is no {NODE}"
        return _emulated(f"the processor shows neither vmx nor svm, and {node_says}")
    if not node:
        module = "kvm_intel" if has[0] == "vmx" else "kvm_amd"
        return _emulated(
            f"the processor has {has[0]}, but there is no {NODE}: load {module}, or switch virtualization on in the firmware"
        )
    if shutil.which(QEMU) is None:
        return Accelerator("kvm", False, f"the processor has {has[0]}; there is no {QEMU} to try it with")
    if not ours:
        return Accelerator(
            "kvm", False, f"the processor has {has[0]}; {NODE} is not ours to try, libvirt's QEMU may use it"
        )
    why_not = try_guest("kvm", "host")
    if why_not:
        return _emulated(f"the processor has {has[0]}, but a guest does not start with {NODE}: {why_not}")
    return Accelerator("kvm", True, f"the processor has {has[0]}, and a guest ran with {NODE}")


def try_guest(driver: str, processor: str, seconds: float = SECONDS) -> str | None:
    """Start QEMU with a guest that gets as far as 64-bit code; None if it did, else why not."""
    qemu = shutil.which(QEMU)
    if qemu is None:
        return f"there is no {QEMU} to try it with"
    with tempfile.TemporaryDirectory(prefix="lab-kvm-") as directory:
        rom = Path(directory) / "rom"
        rom.write_bytes(ROM)
        command = [
            qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc", "-m", "16",
            "-accel", driver, "-cpu", processor, "-bios", str(rom), "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        ]  # fmt: skip
        try:
            # in the directory that goes: QEMU may dump core
            ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=directory, check=False)
        except subprocess.TimeoutExpired:
            return f"a guest of twenty instructions did not end within {seconds:.0f} s"
    if ended.returncode == ROM_SAYS:
        return None
    complaint = (ended.stderr.strip().splitlines() or [f"QEMU ended with status {ended.returncode}"])[0]
    return complaint.removeprefix(f"{qemu}: ").removeprefix(f"{QEMU}: ")


def _emulated(why: str) -> Accelerator:
    return Accelerator("qemu", True, f"{why}; {COST}")
