"""The box of the tests: built once from the distribution's packages, kept in the user's cache under a hash of its recipe."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from stacklab.files import locked

RECIPE = Path(__file__).parent / "recipe"
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "sfdisk": "fdisk",
    "mke2fs": "e2fsprogs",
    "grub-mkimage": "grub-common",
    "qemu-img": "qemu-utils",
    "vagrant": "vagrant",
}
BOOT_IMAGE = Path("/usr/lib/grub/i386-pc/boot.img")
SECONDS = 1800


def why_not() -> str | None:
    """Why the box cannot be built here, and the command that changes it."""
    if os.geteuid() != 0:
        return "the box is built as root (its files belong to root and carry SELinux labels): run the tests as root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)]
    if not BOOT_IMAGE.exists():
        missing.append("grub-pc-bin")
    return f"the box needs more programs: apt-get install -y {' '.join(missing)}" if missing else None


def box(cache: Path) -> Path:
    """The .box file, built if this recipe was not built yet; older ones are removed. Takes one to four minutes."""
    digest = hashlib.sha256()
    for path in sorted(RECIPE.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    folder = cache / "test-boxes"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / f"debian12-selinux-{digest.hexdigest()[:12]}.box"
    with locked(folder / ".lock", wait=True):
        if not wanted.exists():
            for old in folder.glob("*.box*"):
                old.unlink()
            _build(wanted)
    return wanted


def _build(target: Path) -> None:
    work = Path(tempfile.mkdtemp(prefix="lab-box-"))
    work.chmod(0o755)  # packages are unpacked by the user _apt
    log = work / "log"
    try:
        with log.open("wb") as output:
            environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
            command = [str(RECIPE / "make-box"), str(target), str(work)]
            ended = subprocess.run(command, stdout=output, stderr=output, env=environment, timeout=SECONDS, check=False)
        assert ended.returncode == 0, "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    finally:
        shutil.rmtree(work)
