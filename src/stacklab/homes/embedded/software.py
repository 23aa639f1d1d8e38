"""The cloud's own Python environment: OpenStack from hashed requirements, one a release, shared by all labs.

It lies under the XDG data directory, named by what it was made of; it is built beside that place and renamed into it,
so it is either there and whole, or not there. Every new version leaves its predecessor behind, 1.1 GB each: what no cloud
needs any more is removed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from stacklab import indexes, places
from stacklab.errors import DownloadFailed, LabDamaged, NotEnoughSpace, StageFailed
from stacklab.files import disk_error, lock_holder, locked, precious_exists, read_precious, write_precious
from stacklab.homes.embedded import config, mirror
from stacklab.homes.embedded.layout import Layout
from stacklab.lab import all_labs
from stacklab.removal import runs_from
from stacklab.stages import Progress

RELEASE = "2026.1"
REQUIREMENTS = Path(__file__).parent / "requirements" / f"{RELEASE}.txt"
SPACE = 2_500_000_000  # bytes: 1.2 GB installed, as much again in uv's cache


def key() -> str:
    """What it is made of: requirements, Python, and our settings of Horizon, whose static files it holds."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes())
    digest.update((config.INSIDE / "labcloud" / "dashboard" / "settings.py").read_bytes())
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest.update(f"{version} {sys.implementation.name} {os.uname().machine}".encode())
    return f"{RELEASE}-py{version}-{digest.hexdigest()[:12]}"


def requirements_key() -> str:
    """Which versions of OpenStack these are; databases belong to them."""
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]


def environments() -> Path:
    return places.data_home() / "clouds"


def path() -> Path:
    """Where the environment is, or will be."""
    return environments() / key()


def uv_cache() -> Path:
    """What uv downloads stays here, where `lab destroy --purge` finds it, unless the user has named another place."""
    return places.cache_home() / "uv"


def installed() -> bool:
    return (path() / "bin" / "python").exists()


def install(progress: Progress) -> str:
    """Build the environment, or wait for another `lab` that is building it."""

    def build(draft: Path) -> None:
        check_space(draft.parent)
        _build(draft, progress)

    if built := build_once(path(), build, progress):
        for old in prune_environments(environments(), keep=key()):
            progress(f"removed {old}, which no lab needs any more")
    return f"OpenStack {RELEASE} in {path()}" if built else "another lab installed it"


def build_once(target: Path, build: Callable[[Path], None], progress: Progress) -> bool:
    """Have `target` built beside its place, and rename it into it; False if another `lab` did so while we waited for it."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = target.with_name(f"{target.name}.lock")
    with ExitStack() as held:
        if not held.enter_context(locked(lock, wait=False)):
            progress(f"another lab (process {lock_holder(lock)}) is making it; waiting")
            held.enter_context(locked(lock, wait=True))
        if target.exists():
            return False
        draft = target.with_name(f".{target.name}.building")
        mirror.remove(draft)  # left by an interrupted run; nobody else builds, we hold the lock
        try:
            build(draft)
            draft.rename(target)
        except OSError as error:
            raise disk_error(error, draft) from error
        finally:
            mirror.remove(draft)
    return True


def check_space(directory: Path, needed: int = SPACE) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise NotEnoughSpace(
            f"OpenStack's software needs {needed / 1e9:.1f} GB below {directory}, where {free / 1e9:.1f} GB are free",
            advice="free some space, or set XDG_DATA_HOME to a directory on a larger disk",
        )


def _build(draft: Path, progress: Progress) -> None:
    import uv

    program = uv.find_uv_bin()
    environment = indexes.for_uv({k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")})
    environment.setdefault("UV_CACHE_DIR", str(uv_cache()))
    progress("making the environment")
    run(
        [program, "venv", "--quiet", "--relocatable", "--no-project", "--python", sys.executable, str(draft)],
        environment,
        progress,
    )
    progress("downloading and installing about 260 packages")
    run(
        [program, "pip", "install", "--python", str(draft / "bin" / "python"), "--require-hashes", "--compile-bytecode",
         "--index-strategy", "unsafe-best-match",  # any index will do, as for pip: the hashes say what is right
         "--requirement", str(REQUIREMENTS)],
        environment, progress,
    )  # fmt: skip
    mend_script(draft / "bin" / "pycdlib-genisoimage")
    progress("collecting Horizon's static files")
    ours = {**environment, "PYTHONPATH": str(config.INSIDE), "LABCLOUD_STATIC": str(draft / "horizon-static"),
            "LABCLOUD_HOME": str(draft), "PYTHONWARNINGS": "ignore"}  # fmt: skip
    run([str(draft / "bin" / "python"), "-m", "labcloud.dashboard.collect"], ours, progress)


def mend_script(script: Path) -> None:
    """Nova makes config drives with this, which uv breaks: where an environment can be moved (or has a long path),
    scripts begin with a line of shell that is also a docstring of Python, and `from __future__` must come first.
    """
    needless = "from __future__ import print_function\n"  # Python 3 has it anyway
    script.write_text(script.read_text(encoding="utf-8").replace(needless, "", 1), encoding="utf-8")


def run(command: list[str], environment: dict[str, str], progress: Progress) -> None:
    """Run one part of the installation, passing on what it says. Raises NotEnoughSpace, DownloadFailed, StageFailed."""
    last: deque[str] = deque(maxlen=12)
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            for line in process.stdout or ():
                if line.strip():
                    last.append(line.strip())
                    if line.startswith(("Resolved", "Prepared", "Installed", "Bytecode")):
                        progress(line.strip())
        except BaseException:
            process.kill()
            raise
    if process.returncode == 0:
        return
    output = "\n".join(last)
    if "No space left on device" in output or "os error 28" in output or "Disk quota exceeded" in output:
        raise NotEnoughSpace("the disk filled up while OpenStack was being installed; nothing half-made was kept",
                             advice="free some space and run the same command again")  # fmt: skip
    if Path(command[0]).name == "uv":
        raise DownloadFailed(
            f"OpenStack's packages could not be installed:\n{output}",
            advice="check the network, or UV_DEFAULT_INDEX / PIP_INDEX_URL, and run the same command again",
        )
    raise StageFailed(f"{' '.join(command[-2:])} ended with status {process.returncode}:\n{output}")


# --- what labs share, and who needs which of it ----------------------------------------------------------------------

ROSTER = "labs.json"
"""In the directory of the environments: the homes of the clouds that run from one. Labs may lie in other state directories
than ours (XDG_STATE_HOME), and still share the software."""


def register(environments: Path, home: Path) -> None:
    """A cloud in `home` runs from one of these environments."""
    with locked(environments / f"{ROSTER}.lock", wait=True):
        known = _roster(environments)
        gone = {home for home in known if not precious_exists(Layout(Path(home)).made_file)}
        write_precious(environments / ROSTER, sorted((known - gone) | {str(home)}))


def _roster(environments: Path) -> set[str]:
    return set(read_precious(environments / ROSTER) or [])


def homes(environments: Path) -> set[Path]:
    """Every cloud's home that we know of."""
    known = {Path(home) for home in _roster(environments)}
    known |= {lab.home_directory for lab in all_labs()}
    return {home for home in known if precious_exists(Layout(home).made_file)}


def prune_environments(environments: Path, keep: str) -> list[Path]:
    """Remove the environments that no cloud needs and no process runs from; returns what is gone."""
    needed = {keep}
    for home in homes(environments):
        try:
            needed.add(read_precious(Layout(home).made_file)["environment"])
        except (LabDamaged, KeyError):
            return []  # damaged, or made by an older lab: we cannot know from what
    return _prune(environments, lambda path: path.name in needed or runs_from(path))


def prune_templates(templates: Path, keep: str) -> list[Path]:
    """Remove all templates but one: a cloud that was made from a template is a copy, and does not need it any more."""
    return _prune(templates, lambda path: path.name == keep)


def _prune(root: Path, needed: Callable[[Path], bool]) -> list[Path]:
    gone = []
    for path in sorted(root.glob("[!.]*")):
        if not path.is_dir() or needed(path):
            continue
        with locked(path.with_name(f"{path.name}.lock"), wait=False) as mine:
            if mine:  # else somebody is making it, or copying from it
                _remove(path)
                gone.append(path)
    return gone


def _remove(path: Path) -> None:
    """Under another name first: what bears its own name is whole."""
    doomed = path.with_name(f".{path.name}.removing")
    mirror.remove(doomed)
    path.rename(doomed)
    mirror.remove(doomed)
