"""What belongs to a checkpoint beside the cloud: the journal and the progress, saved with it and put back with it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from stacklab.files import disk_error, read_json, write_atomic, write_json
from stacklab.lab import Lab

ABOUT = "about.json"


class Records:
    """The records of one lab's checkpoints, a directory each, below `saved`; `about.json` is written last."""

    def __init__(self, lab: Lab) -> None:
        self._root = lab.directory / "saved"
        self._files = (lab.journal_file, lab.directory / "progress.json")

    def names(self) -> list[str]:
        """Checkpoints whose records are whole, the oldest first."""
        found = {path.parent.name: read_json(path) for path in self._root.glob(f"*/{ABOUT}")}
        return sorted(found, key=lambda name: float(found[name].get("at", 0)))

    def about(self, name: str) -> dict[str, Any]:
        """What was said of a checkpoint when it was saved; empty if nothing is known of it."""
        return dict(read_json(self._root / name / ABOUT) or {})

    def keep(self, name: str, **about: object) -> None:
        """Save journal and progress as they are now, in place of what was saved under this name. Raises NotEnoughSpace."""
        self.drop(name)
        target = self._root / name
        try:
            target.mkdir(parents=True, mode=0o700)
            for file in self._files:
                if file.exists():
                    shutil.copyfile(file, target / file.name)
        except OSError as error:
            raise disk_error(error, target) from error
        write_json(target / ABOUT, {**about, "at": time.time()})

    def put_back(self, name: str) -> None:
        """Journal and progress as they were at a checkpoint; as in a new lab for one that nothing is known of.

        A file each: whoever is killed in between calls it again.
        """
        whole = (self._root / name / ABOUT).exists()
        for file in self._files:
            saved = self._root / name / file.name
            if whole and saved.exists():
                write_atomic(file, saved.read_bytes())
            else:
                file.unlink(missing_ok=True)

    def drop(self, name: str) -> None:
        """Forget the records of a checkpoint."""
        target = self._root / name
        (target / ABOUT).unlink(missing_ok=True)
        _remove(target)


def _remove(directory: Path) -> None:
    if directory.is_dir():
        shutil.rmtree(directory)
