"""A compute driver for a machine without root: every instance is one QEMU process with a network of its own.

Nova loads `nova.virt.labqemu.LabQemuDriver`; where QEMU is missing that yields a `LabStateDriver`, API state only.
"""

from nova.virt.labqemu.driver import LabQemuDriver
from nova.virt.labqemu.state import LabStateDriver

__all__ = ["LabQemuDriver", "LabStateDriver"]
