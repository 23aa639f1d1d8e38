"""A machine restarted, and waited for."""

from __future__ import annotations

import time
from contextlib import suppress

from stacklab.console import seconds as spoken
from stacklab.errors import CommandFailed, MachineUnreachable
from stacklab.machines.base import Machine
from stacklab.stages import Progress

REBOOT_SECONDS = 600


def restart(machine: Machine, progress: Progress, seconds: float = REBOOT_SECONDS) -> None:
    """Restart the machine and wait until it answers again, as another boot. Raises MachineUnreachable."""
    boot = "/proc/sys/kernel/random/boot_id"
    before = machine.run("cat", boot).out
    with suppress(MachineUnreachable):
        # Through a timer of systemd's: the command ends before the connection does.
        machine.run("systemd-run", "--on-active=1", "systemctl", "reboot", user="root")
    began = time.monotonic()
    while True:
        time.sleep(3)
        waited = time.monotonic() - began
        try:
            if machine.run("cat", boot, seconds=30).out != before:
                return
            trouble = "it has not gone down"
        except (MachineUnreachable, CommandFailed) as error:
            machine.close()
            trouble = error.message
        if waited > seconds:
            raise MachineUnreachable(
                f"{machine.name} did not come back within {spoken(seconds)} after a restart: {trouble}",
                advice="look at its console",
            )
        progress(f"restarting, {spoken(waited)}: {trouble}")
