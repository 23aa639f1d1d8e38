"""What of https lies on this machine and belongs to a cloud elsewhere: it goes with that cloud's checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path


def keep(home: Path, name: str) -> None:
    """Keep it for a checkpoint. `home`: the lab's home directory."""
    drop(home, name)
    _copy(home / "https", _saved(home, name))


def drop(home: Path, name: str) -> None:
    """Forget what was kept with a checkpoint that is dropped."""
    shutil.rmtree(_saved(home, name), ignore_errors=True)


def put_back(home: Path, name: str) -> None:
    """As it was at a checkpoint: nothing, where nothing was kept."""
    shutil.rmtree(home / "https", ignore_errors=True)
    _copy(_saved(home, name), home / "https")


def _saved(home: Path, name: str) -> Path:
    return home / "https-saved" / name


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        target.parent.mkdir(exist_ok=True, mode=0o700)
        shutil.copytree(source, target)
