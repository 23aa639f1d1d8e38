"""The [lab] section of nova.conf."""

import os
import platform
import shutil
from pathlib import Path

import nova.conf
from oslo_config import cfg

CONF = nova.conf.CONF

OPTIONS = [
    cfg.StrOpt("qemu", default="", help="The emulator; empty: qemu-system-<this machine> from PATH, if it is there."),
    cfg.StrOpt("qemu_img", default="", help="qemu-img; empty: from PATH. Nova's own code also looks for it in PATH."),
    cfg.StrOpt("accel", default="auto", choices=["auto", "kvm", "tcg"], help="How guests run: KVM, or emulated."),
    cfg.StrOpt("network", default="user", choices=["user", "ovn"], help="What guests are plugged into."),
    cfg.StrOpt("loopback", default="127.0.0.1", help="The address that leads to the guests' SSH ports."),
    cfg.IntOpt(
        "soft_reboot_timeout", default=60, help="Seconds for a guest to shut down before a soft reboot is a hard one."
    ),
    cfg.IntOpt("console_bytes", default=102400, help="How much of a console log the API answers with, from its end."),
    cfg.IntOpt("emulator_cache_mb", default=64, help="Memory for translated code of each emulated guest."),
]
CONF.register_opts(OPTIONS, group="lab")


def qemu_binary():
    """The emulator's path, or None where there is none for this kind of machine."""
    if platform.machine() != "x86_64":
        return None  # the guests' machine below is a PC
    return shutil.which(CONF.lab.qemu or "qemu-system-x86_64")


def qemu_img():
    """The path of qemu-img, or None."""
    return shutil.which(CONF.lab.qemu_img or "qemu-img")


def let_nova_find_qemu_img():
    """Nova's image code calls `qemu-img` by name: its directory has to be in PATH."""
    program = qemu_img()
    if program and shutil.which("qemu-img") is None:
        os.environ["PATH"] += os.pathsep + str(Path(program).parent)


def instance_directory(uuid):
    return Path(CONF.instances_path).absolute() / uuid
