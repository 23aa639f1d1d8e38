"""Whether guests can use the processor's virtualization, found out once and cheaply."""

import fcntl
import functools
import os
import platform
import re
from pathlib import Path

from nova.virt.labqemu.options import CONF
from oslo_log import log as logging

LOG = logging.getLogger(__name__)
KVM = "/dev/kvm"
KVM_GET_API_VERSION = 0xAE00


@functools.cache
def kvm_works():
    """The node alone proves nothing: in a nested machine it may open and yet boot no guest."""
    if platform.machine() == "x86_64":
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if flags is None or not {"vmx", "svm"} & set(flags.group(1).split()):
            LOG.info("Guests are emulated: this machine's processor offers no virtualization")
            return False
    try:
        node = os.open(KVM, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        LOG.info("Guests are emulated: %s cannot be used: %s", KVM, error.strerror)
        return False
    try:
        return fcntl.ioctl(node, KVM_GET_API_VERSION, 0) == 12
    except OSError as error:
        LOG.info("Guests are emulated: %s does not answer: %s", KVM, error.strerror)
        return False
    finally:
        os.close(node)


def arguments():
    """What tells QEMU how to run. After KVM, emulation is named too: QEMU takes the first that works."""
    emulated = ["-accel", f"tcg,tb-size={CONF.lab.emulator_cache_mb}"]
    wanted = CONF.lab.accel
    if wanted == "kvm":
        return ["-accel", "kvm", "-cpu", "max"]
    if wanted == "tcg" or not kvm_works():
        return [*emulated, "-cpu", "max"]
    return ["-accel", "kvm", *emulated, "-cpu", "max"]
