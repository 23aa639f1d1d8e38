"""One lab: its directory, what was planned for it, its secrets, and the lock that keeps it to one writer."""

from __future__ import annotations

import os
import re
import secrets
import string
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stacklab import places
from stacklab.errors import LabBusy, LabDamaged, NoLab, UnknownName
from stacklab.files import is_locked, lock_holder, locked, read_json, write_json

DEFAULT = "intro"
"""The name of the one lab that most people have."""


class Lab:
    """The directory of one lab under the XDG state directory.

    `lab.json` holds what was planned and how each stage ended, `secrets.json` (0600) what was generated,
    `journal.jsonl` what the replay did and made; the home keeps its own files below `home/`.
    """

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
            raise UnknownName(f"'{name}' cannot be a lab's name", advice="use up to 31 of a-z, 0-9 and '-'")
        self.name = name
        self.directory = places.state_home() / name
        self.home_directory = self.directory / "home"
        self.journal_file = self.directory / "journal.jsonl"

    def exists(self) -> bool:
        """Whether `lab up` ever began here."""
        return (self.directory / "lab.json").exists()

    def remains(self) -> bool:
        """Whether there is anything to remove: a lab, or what is left of one."""
        return self.exists() or self.home_directory.is_dir()

    def require(self) -> None:
        """Raises NoLab unless `lab up` began here, LabDamaged if only its cloud is left."""
        if not self.exists() and self.remains():
            raise self._headless()
        if not self.exists():
            which = "" if self.name == DEFAULT else f" --lab {self.name}"
            raise NoLab(f"there is no lab '{self.name}' yet", advice=f"lab{which} up session4 makes one")

    def _headless(self) -> LabDamaged:
        return LabDamaged(
            f"{self.directory / 'lab.json'} is gone, but files of the lab's cloud are there",
            advice=f"lab --lab {self.name} destroy removes them and ends what runs; then lab up starts afresh",
        )

    def forget_record(self) -> None:
        """Remove a lab.json that cannot be read, for what is left to be removed."""
        (self.directory / "lab.json").unlink(missing_ok=True)

    @property
    def record(self) -> dict[str, Any]:
        """What lab.json says: session, home, stages. Empty before the first `lab up`. Raises LabDamaged."""
        return read_json(self.directory / "lab.json") or {}

    @property
    def labs(self) -> list[str]:
        """The directory that this lab's session came from, unless that is the course's own; one at most."""
        known = self.record.get("labs")
        return [str(known)] if known else []

    def update(self, **values: object) -> None:
        """Put `values` into lab.json."""
        write_json(self.directory / "lab.json", {**self.record, **values})

    def record_stage(self, name: str, outcome: str, seconds: float) -> None:
        """Remember how a stage ended (and, for `usual_seconds`, how long it took when it succeeded)."""
        stages = self.record.get("stages", {})
        usual = seconds if outcome == "done" else stages.get(name, {}).get("usual")
        stages[name] = {"outcome": outcome, "seconds": round(seconds, 1), "usual": usual, "at": int(time.time())}
        self.update(stages=stages)

    def usual_seconds(self, stage: str) -> float | None:
        """How long this stage took here when it last succeeded."""
        value = self.record.get("stages", {}).get(stage, {}).get("usual")
        return float(value) if value is not None else None

    def secret(self, name: str) -> str:
        """The secret of this name, generated the first time it is asked for."""
        path = self.directory / "secrets.json"
        known: dict[str, str] = read_json(path) or {}
        if not known and "ready" in self.record.get("stages", {}):
            raise LabDamaged(
                f"{path} is gone, and with it the passwords of the lab's cloud",
                advice="lab destroy, then lab up, starts afresh",
            )
        if name not in known:
            # Letters and digits alone: DevStack puts its passwords into arguments (where a leading '-' is an option), into
            # URLs and through sed.
            known[name] = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(24))
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_json(path, known, mode=0o600)
        return known[name]

    def secrets(self) -> list[str]:
        """All secrets of this lab, to be masked wherever text is shown."""
        return list((read_json(self.directory / "secrets.json") or {}).values())

    @contextmanager
    def writing(self, *, new: bool = False) -> Iterator[None]:
        """Be the one writer; `new`: of a lab that may not be there yet. Raises LabBusy, NoLab; readers never wait."""
        if not new:
            self.require()  # else a mistyped name would leave a directory behind
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.directory / "lock"
        with locked(path, wait=False) as mine:
            if not mine:
                raise LabBusy(
                    f"another lab command (process {lock_holder(path)}) is working on lab '{self.name}'",
                    advice="wait for it, or watch it with: lab status",
                )
            yield

    def other_writer(self) -> str | None:
        """The process id of another `lab` that writes to this lab now."""
        path = self.directory / "lock"
        return holder if is_locked(path) and (holder := lock_holder(path)) != str(os.getpid()) else None


def all_labs() -> list[Lab]:
    """Every lab of this user."""
    root = places.state_home()
    if not root.is_dir():
        return []
    return [Lab(entry.name) for entry in sorted(root.iterdir()) if (entry / "lab.json").exists()]
