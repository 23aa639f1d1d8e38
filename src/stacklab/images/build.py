"""The tiny Linux: a guest with an SSH server, built on the spot from the distribution's packages.

What runs in it is in tiny/, to be read: `init` (initramfs), `root/etc/rc` (start), the rest of `root/` as it lies.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from stacklab.download import sha256_of
from stacklab.errors import MissingProgram, StageFailed, UnsupportedMachine
from stacklab.files import disk_error, write_json
from stacklab.images.catalogue import HERE, ImageCatalogue
from stacklab.images.disk import DiskMaker
from stacklab.images.initramfs import loading_order, make_initramfs
from stacklab.images.packages import ADVICE, Packages, distribution
from stacklab.stages import Progress

TINY = HERE / "tiny"
DIRECTORIES = ("bin", "sbin", "usr/bin", "usr/sbin", "proc", "sys", "dev", "run", "tmp", "root", "mnt", "etc/dropbear",
               "etc/lab", "home/lab/.ssh", "lib64", "var/log")  # fmt: skip


def recipe_key(catalogue: ImageCatalogue) -> str:
    """Names what makes the image, without the network: our scripts and data, the distribution, the architecture."""
    digest = hashlib.sha256()
    for path in [HERE / "images.yaml", *sorted(HERE.glob("*.py")), *sorted(p for p in TINY.rglob("*") if p.is_file())]:
        digest.update(f"{path.relative_to(HERE)}\0".encode() + path.read_bytes())
    digest.update(f"{distribution()} {catalogue.machine}".encode())
    return digest.hexdigest()[:16]


def build_tiny(catalogue: ImageCatalogue, target: Path, progress: Progress) -> None:
    """Build the image at `target` (written whole or not at all), and beside it a record: its disk format, qcow2 or raw.

    Raises UnsupportedMachine, MissingProgram, DownloadFailed, StageFailed or NotEnoughSpace; each advises --image.
    """
    name, _ = distribution()
    if catalogue.machine not in catalogue.tiny.machines:
        raise UnsupportedMachine(f"no image can be built for {catalogue.machine} machines", advice=ADVICE)
    if name not in catalogue.tiny.guest:
        raise MissingProgram(f"an image can be built from Debian's or Ubuntu's packages; this is {name}", advice=ADVICE)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tiny-") as scratch:
            _build(catalogue, Path(scratch), name, target, progress)
    except OSError as error:
        raise disk_error(error, target) from error


def _build(catalogue: ImageCatalogue, work: Path, name: str, target: Path, progress: Progress) -> None:
    recipe = catalogue.tiny
    packages = Packages(work / "apt", progress)
    names = packages.closure(recipe.guest[name], recipe.follow, recipe.skip)
    progress(f"fetching {len(names) + len(recipe.tools)} packages of the distribution")
    used = packages.fetch(names, work / "guest")
    used += packages.fetch(recipe.tools, work / "tools")
    progress("putting the tiny Linux together")
    kernel = _one(work / "guest", "boot/vmlinuz-*")
    # Where /lib is a link to /usr/lib, packages of the time put modules there.
    modules = loading_order(kernel.parents[1], recipe.modules)
    if not modules:
        raise StageFailed(f"no driver found for {kernel.name}", advice=ADVICE)
    busybox = _one(work / "guest", "**/bin/busybox")
    root = work / "root"
    _root_tree(work / "guest", busybox, root)
    boot = {
        "vmlinuz": kernel.read_bytes(),
        "initrd": make_initramfs(busybox.read_bytes(), (TINY / "init").read_bytes(), modules),
        "syslinux.cfg": (TINY / "syslinux.cfg").read_bytes(),
    }
    raw = work / "disk.raw"
    DiskMaker(raw, work / "tools").make(boot, root, recipe.root_megabytes)
    made, disk_format = _packed(raw, work)
    record = {"packages": sorted(used), "disk_format": disk_format, "sha256": sha256_of(made)}
    made.replace(target)
    write_json(target.with_suffix(".json"), record)


def _one(tree: Path, pattern: str) -> Path:
    matching = sorted(path for path in tree.glob(pattern) if path.is_file())
    if not matching:
        raise StageFailed(f"the distribution's packages carry no {pattern}", advice=ADVICE)
    return matching[-1]


def _inside(root: Path, name: str) -> Path:
    """Where the guest's file `name` lies under `root`.

    Whoever builds may be root: a name that is absolute, climbs out, or leads through a link would write to this
    machine's own files instead of the guest's, so it is refused.
    """
    place = root / name
    if place.is_symlink() or not place.resolve().is_relative_to(root.resolve()):
        raise StageFailed(f"building the tiny image: {name} lies outside the image", advice=ADVICE)
    return place


def _root_tree(guest: Path, busybox: Path, root: Path) -> None:
    """The guest's root file system as a tree."""
    for directory in DIRECTORIES:
        (root / directory).mkdir(parents=True, exist_ok=True)
    shutil.copytree(TINY / "root", root, dirs_exist_ok=True)
    for path in root.rglob("*"):
        if path.is_file():
            path.chmod(0o755 if path.read_bytes()[:2] == b"#!" else 0o644)
    for private in ("root", "etc/dropbear", "home/lab/.ssh"):
        (root / private).chmod(0o700)
    (root / "home/lab/.ssh/authorized_keys").touch(0o600)
    for program in ("usr/sbin/dropbear", "usr/bin/dropbearkey"):
        shutil.copy(_one(guest, program), _inside(root, program))
        for name, source in _libraries(guest, program).items():
            shutil.copy(source, _inside(root, f"lib64/{name}"))
    shutil.copy(busybox, _inside(root, "bin/busybox"))
    # su must become root; busybox gives the right up in every other applet.
    (root / "bin/busybox").chmod(0o4755)
    # Links last, and relative: nothing may be copied through one.
    for applet in subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split():
        if applet != "busybox":
            _inside(root, f"bin/{applet}").symlink_to("busybox")
    for applet in ("init", "getty", "poweroff", "reboot"):
        _inside(root, f"sbin/{applet}").symlink_to("../bin/busybox")
    _inside(root, "usr/sbin/acpid").symlink_to("../../bin/busybox")
    (root / "lib").symlink_to("lib64")  # the loader looks into both


def _libraries(guest: Path, program: str) -> dict[str, Path]:
    """The libraries that a program loads by bare file name, asked of the guest's own loader, and that loader."""
    loader = next(path for pattern in ("lib64/ld-*.so*", "usr/lib64/ld-*.so*") for path in sorted(guest.glob(pattern)))
    folders = sorted({str(path.parent) for path in guest.rglob("*.so*") if "gconv" not in path.parts})
    listing = subprocess.run(
        [_follow(loader, guest), "--library-path", ":".join(folders), "--list", guest / program],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    needed = {loader.name: _follow(loader, guest)}
    for line in listing.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        # The loader itself is listed by its absolute path.
        if arrow and rest.startswith("/") and Path(name).name not in needed:
            needed[Path(name).name] = Path(rest.split(" (")[0])
    return needed


def _follow(path: Path, guest: Path) -> Path:
    """The file behind a symbolic link that is absolute inside the guest."""
    while path.is_symlink():
        link = path.readlink()
        path = guest / str(link).lstrip("/") if link.is_absolute() else path.parent / link
    return path


def _packed(raw: Path, work: Path) -> tuple[Path, str]:
    """The disk as compressed qcow2; raw where qemu-img is missing (there is no emulator to boot it on, either)."""
    program = shutil.which("qemu-img")
    if program is None:
        return raw, "raw"
    packed = work / "disk.qcow2"
    subprocess.run(
        [program, "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(packed)],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return packed, "qcow2"
