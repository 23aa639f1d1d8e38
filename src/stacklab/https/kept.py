"""What of https lies on this machine and belongs to a cloud elsewhere: kept, and put back, with that cloud's checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path


def _saved(home: Path, name: str) -> Path:
    return home / "https-saved" / name


def keep(home: Path, name: str) -> None:
    """Keep it for a checkpoint. `home`: the lab's home directory."""
    target = _saved(home, name)
    drop(home, name)
    if (home / "https").is_dir():
        target.parent.mkdir(exist_ok=True, mode=0o700)
        shutil.copytree(home / "https", target)


def drop(home: Path, name: str) -> None:
    """Forget what was kept with a checkpoint that is dropped."""
    shutil.rmtree(_saved(home, name), ignore_errors=True)


def put_back(home: Path, name: str) -> None:
    """As it was at a checkpoint: nothing, where nothing was kept."""
    if (home / "https").exists():
        shutil.rmtree(home / "https")
    if _saved(home, name).is_dir():
        shutil.copytree(_saved(home, name), home / "https")
