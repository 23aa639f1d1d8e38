"""What belongs to a checkpoint beside the cloud: the journal and the progress, saved with it and put back with it."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

from stacklab.errors import LabDamaged
from stacklab.files import (
    copy_of,
    disk_error,
    precious_exists,
    read_precious,
    remove_precious,
    write_atomic,
    write_precious,
)
from stacklab.lab import Lab

ABOUT = "about.json"


class Records:
    """The records of one lab's checkpoints, a directory each, below `saved`; `about.json` is written last."""

    def __init__(self, lab: Lab) -> None:
        self._root = lab.directory / "saved"
        self._files = (lab.journal_file, lab.directory / "progress.json")

    def names(self) -> list[str]:
        """Checkpoints whose records are whole, the oldest first."""
        saved = {path.name: self._saved_at(path) for path in self._root.iterdir()} if self._root.is_dir() else {}
        return sorted((name for name, at in saved.items() if at is not None), key=lambda name: saved[name] or 0)

    def _saved_at(self, directory: Path) -> float | None:
        """None where the records are not whole, and so no records."""
        try:
            about = read_precious(directory / ABOUT)
            sums = about.get("sums", {})  # format 1 had none
            well = all(_checksum(directory / name) == checksum for name, checksum in sums.items())
            return float(about.get("at", 0)) if well else None
        except (LabDamaged, AttributeError, OSError):
            return None

    def keep(self, name: str) -> None:
        """Save journal and progress as they are now, in place of what was saved under this name. Raises NotEnoughSpace."""
        self.drop(name)
        target = self._root / name
        try:
            target.mkdir(parents=True, mode=0o700)
            for file in self._both():
                if file.exists():
                    shutil.copyfile(file, target / file.name)
        except OSError as error:
            raise disk_error(error, target) from error
        sums = {path.name: _checksum(path) for path in target.iterdir()}
        write_precious(target / ABOUT, {"at": time.time(), "sums": sums})

    def put_back(self, name: str) -> None:
        """Journal and progress as they were at a checkpoint; as in a new lab for one whose records are not whole.

        A file each: whoever is killed in between calls it again.
        """
        directory = self._root / name
        saved = self._saved_at(directory) is not None
        for file in self._files:
            remove_precious(file)  # a copy that stayed would count as the end of a shorter journal
        for file in self._both():
            if saved and (directory / file.name).exists():
                write_atomic(file, (directory / file.name).read_bytes(), mode=0o600)

    def _both(self) -> list[Path]:
        """Journal and progress, each with its second copy."""
        return [file for first in self._files for file in (first, copy_of(first))]

    def drop(self, name: str) -> None:
        """Forget the records of a checkpoint."""
        if precious_exists(self._root / name / ABOUT):
            remove_precious(self._root / name / ABOUT)
        if (self._root / name).is_dir():
            shutil.rmtree(self._root / name)


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
