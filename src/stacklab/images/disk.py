"""A bootable PC disk made by an ordinary user: no mount, no loop device.

Layout: MBR, a FAT partition for syslinux with kernel and initramfs, an ext4 partition with the root file system.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

from stacklab.errors import MissingProgram, StageFailed
from stacklab.images.packages import ADVICE

SECTOR = 512
MEGABYTE = 1 << 20
FIRST = MEGABYTE  # where the first partition begins


def find_program(name: str, tools: Path) -> str:
    """A program of the unpacked tools, else of the system (also from where only root's PATH looks)."""
    path = os.pathsep.join([str(tools / "usr/bin"), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    program = shutil.which(name, path=path)
    if program is None:
        raise MissingProgram(f"{name} is needed to build an image", advice=ADVICE)
    return program


class DiskMaker:
    """Makes the raw disk `target` with programs from the unpacked packages under `tools`."""

    def __init__(self, target: Path, tools: Path) -> None:
        self.target = target
        self.tools = tools
        self.environment = {
            **os.environ,
            "LC_ALL": "C",
            "PATH": f"{tools / 'usr/bin'}:{os.environ.get('PATH', '')}",  # syslinux calls the mtools by name
            "MTOOLS_SKIP_CHECK": "1",
        }

    def _run(self, name: str, *arguments: str, given: str | None = None) -> None:
        done = subprocess.run(
            [find_program(name, self.tools), *arguments],
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode != 0:
            complaint = " ".join((done.stderr or done.stdout).split())[-400:]
            raise StageFailed(f"building the tiny image: {name} failed: {complaint}", advice=ADVICE)

    def make(self, boot_files: dict[str, bytes], root: Path, root_megabytes: int) -> None:
        """Write the whole disk: `boot_files` by name onto the FAT partition, the tree `root` onto the other."""
        boot_size = sum(len(content) for content in boot_files.values()) // MEGABYTE + 3
        size = FIRST + (boot_size + root_megabytes) * MEGABYTE
        with self.target.open("wb") as disk:
            disk.truncate(size)
        self._boot_partition(boot_files, boot_size)
        self._root_partition(root, FIRST + boot_size * MEGABYTE, root_megabytes)
        self._partition_table([(0x80, 0x0E, FIRST, boot_size), (0, 0x83, FIRST + boot_size * MEGABYTE, root_megabytes)])

    def _partition_table(self, partitions: list[tuple[int, int, int, int]]) -> None:
        """Boot code and the four entries of an MBR; addresses are linear (0xfeffff: "too large for cylinders")."""
        code = next(self.tools.rglob("mbr/mbr.bin")).read_bytes()
        table = b"".join(
            struct.pack(
                "<B3sB3sII", flag, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start // SECTOR, length * MEGABYTE // SECTOR
            )
            for flag, kind, start, length in partitions
        )
        head = code[:440].ljust(440, b"\0") + b"LAB!\0\0" + table.ljust(64, b"\0") + b"\x55\xaa"
        with self.target.open("r+b") as disk:
            disk.write(head)

    def _boot_partition(self, files: dict[str, bytes], megabytes: int) -> None:
        image = f"{self.target}@@{FIRST}"
        # Heads and sectors as the firmware sees a disk of this kind; -H: sectors before the partition.
        size = ("-T", str(megabytes * MEGABYTE // SECTOR), "-H", str(FIRST // SECTOR))
        self._run("mformat", "-i", image, *size, "-h", "255", "-s", "63", "-N", "0", "::")
        folder = self.target.with_suffix(".boot")
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        self._run("mcopy", "-i", image, *(str(folder / name) for name in files), "::")
        self._run("syslinux", "--offset", str(FIRST), "--install", str(self.target))

    def _root_partition(self, root: Path, start: int, megabytes: int) -> None:
        part = self.target.with_suffix(".root")
        with part.open("wb") as file:
            file.truncate(megabytes * MEGABYTE)
        self._run(
            "mke2fs", "-q", "-t", "ext4", "-b", "1024", "-J", "size=1", "-m", "0", "-N", "2048", "-I", "256",
            "-O", "^metadata_csum,^64bit,^resize_inode", "-E", "root_owner=0:0,lazy_itable_init=0",
            "-L", "lab-root", "-d", str(root), str(part),
        )  # fmt: skip
        # mke2fs copies the owner of the files: whoever builds. In the guest they belong to root, or to the learner.
        changes = []
        for path in root.rglob("*"):
            inside = "/" + str(path.relative_to(root))
            owner = 1000 if inside == "/home/lab" or inside.startswith("/home/lab/") else 0
            changes += [f'sif "{inside}" uid {owner}', f'sif "{inside}" gid {owner}']
        self._run("debugfs", "-w", "-f", "-", str(part), given="\n".join(changes) + "\n")
        with self.target.open("r+b") as disk:
            disk.seek(start)
            disk.write(part.read_bytes())
        part.unlink()
