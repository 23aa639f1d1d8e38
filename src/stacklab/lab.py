"""One lab: its directory, what was planned for it, its secrets, and the lock that keeps it to one writer."""

from __future__ import annotations

import os
import re
import secrets
import string
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from stacklab import places
from stacklab.errors import LabBusy, LabDamaged, NoLab, UnknownName
from stacklab.files import (
    is_locked,
    lock_holder,
    locked,
    precious_exists,
    read_precious,
    remove_precious,
    repair_precious,
    write_precious,
)

DEFAULT = "intro"
"""The name of the one lab that most people have."""

PRECIOUS = ("lab.json", "secrets.json", "progress.json", "broken.json", "home/made.json", "home/vm.json")
"""Files of a lab that nothing could make again, beside its journal: each is there twice, and its writer sees to it."""


class _Record(BaseModel):
    """A part of lab.json. What another version of lab has noted and this one does not know is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class StageRecord(_Record):
    """How a stage of `lab up` ended last, and how long it took when it last succeeded (`usual`)."""

    outcome: str
    seconds: float = 0.0
    usual: float | None = None
    at: int = 0


class ImageRecord(_Record):
    """The image for instances: what the user asked for (`wanted`), what was found, and whom it lets in."""

    path: str
    disk_format: str
    wanted: str | None = None
    login_user: str | None = None
    source: str = ""


class MachineRecord(_Record):
    """What was found out about the machine of the home `ssh`."""

    profile: str
    host_ip: str
    distribution: str


class LabRecord(_Record):
    """lab.json. `plan`: the options of `lab up`. `labs`: where the session came from, unless that is the course's own;
    `services`: the optional ones that it needs.

    `restoring`: the checkpoint that an unfinished reset or goto goes back to. `start_of`, `stacked_for`: the sessions that a
    VM's checkpoints belong to. `identity`: what this lab's machine is marked with.
    """

    home: str | None = None
    plan: dict[str, Any] = {}
    session: str | None = None
    labs: str | None = None
    services: tuple[str, ...] = ()
    stages: dict[str, StageRecord] = {}
    image: ImageRecord | None = None
    restoring: str | None = None
    machine: MachineRecord | None = None
    identity: str | None = None
    service_project: str | None = None
    start_of: str | None = None
    stacked_for: str | None = None


class Lab:
    """The directory of one lab under the XDG state directory.

    `lab.json` holds what was planned and how each stage ended, `secrets.json` (0600) what was generated,
    `journal.jsonl` what the replay did and made; the home keeps its own files below `home/`.
    """

    _held: ClassVar[set[str]] = set()
    """Names of the labs that this process is the writer of."""

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
            raise UnknownName(f"'{name}' cannot be a lab's name", advice="use up to 31 of a-z, 0-9 and '-'")
        self.name = name
        self.directory = places.state_home() / name
        self.home_directory = self.directory / "home"
        self.journal_file = self.directory / "journal.jsonl"
        self._record_file = self.directory / "lab.json"
        self._secrets_file = self.directory / "secrets.json"
        self._lock = self.directory / "lock"

    def exists(self) -> bool:
        """Whether `lab up` ever began here."""
        return precious_exists(self._record_file)

    def remains(self) -> bool:
        """Whether there is anything to remove: a lab, or what is left of one."""
        return self.exists() or self.home_directory.is_dir()

    def require(self) -> None:
        """Raises NoLab unless `lab up` began here, LabDamaged if only its cloud is left."""
        if not self.exists() and self.remains():
            raise self._headless(f"{self._record_file} and its copy are gone")
        if not self.exists():
            raise NoLab(f"there is no lab '{self.name}' yet", advice="lab up session4 makes one")

    def _headless(self, why: str) -> LabDamaged:
        return LabDamaged(
            f"{why}, but files of the lab's cloud are there",
            advice=f"copy what you need from {self.home_directory}, for nothing knows any more what that cloud was made as; "
            f"then lab destroy removes it and ends what runs, and lab up starts afresh",
        )

    def forget_record(self) -> None:
        """Remove a lab.json that cannot be read, for what is left to be removed."""
        remove_precious(self._record_file)

    # --- what is noted of it ---------------------------------------------------------------------------------------

    @property
    def record(self) -> LabRecord:
        """What lab.json says. Empty before the first `lab up`. Raises LabDamaged."""
        try:
            return LabRecord.model_validate(read_precious(self._record_file) or {})
        except LabDamaged as error:
            raise self._headless(error.message) from error
        except ValidationError as error:
            raise self._headless(f"{self._record_file} cannot be understood: {error.errors()[0]['msg']}") from error

    @property
    def labs(self) -> list[str]:
        """The directory that this lab's session came from, unless that is the course's own; one at most."""
        return [self.record.labs] if self.record.labs else []

    def update(self, **values: object) -> None:
        """Put `values` into lab.json. Raises LabBusy."""
        if unknown := values.keys() - LabRecord.model_fields.keys():
            raise TypeError(f"lab.json has no {', '.join(unknown)}")
        with self._as_writer():
            record = LabRecord.model_validate({**self.record.model_dump(), **values})
            write_precious(self._record_file, record.model_dump(mode="json", exclude_defaults=True))

    def record_stage(self, name: str, outcome: str, seconds: float) -> None:
        """Remember how a stage ended (and, for `usual_seconds`, how long it took when it succeeded)."""
        usual = seconds if outcome == "done" else self.usual_seconds(name)
        stage = StageRecord(outcome=outcome, seconds=round(seconds, 1), usual=usual, at=int(time.time()))
        self.update(stages={**self.record.stages, name: stage})

    def usual_seconds(self, stage: str) -> float | None:
        """How long this stage took here when it last succeeded."""
        known = self.record.stages.get(stage)
        return known.usual if known else None

    # --- its secrets -----------------------------------------------------------------------------------------------

    def secret(self, name: str) -> str:
        """The secret of this name, generated the first time it is asked for. Raises LabBusy, LabDamaged."""
        if (known := self._secrets().get(name)) is not None:
            return known
        with self._as_writer():
            secrets_ = self._secrets()  # another writer may have been first
            if not secrets_ and "ready" in self.record.stages:
                raise LabDamaged(
                    f"{self._secrets_file} is gone, and so is its copy: with them the passwords of the lab's cloud",
                    advice="lab destroy, then lab up, starts afresh: what was made in the cloud is lost then",
                )
            if name not in secrets_:
                # Letters and digits alone: DevStack puts its passwords into arguments (where a leading '-' is an option),
                # into URLs and through sed.
                secrets_[name] = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(24))
                write_precious(self._secrets_file, secrets_)
            return secrets_[name]

    def _secrets(self) -> dict[str, str]:
        return dict(read_precious(self._secrets_file) or {})

    def secrets(self) -> list[str]:
        """All secrets of this lab, to be masked wherever text is shown."""
        return list(self._secrets().values())

    # --- one writer ------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self, *, new: bool = False) -> Iterator[None]:
        """Be the one writer; `new`: of a lab that may not be there yet. Raises LabBusy, NoLab; readers never wait."""
        if not new:
            self.require()  # else a mistyped name would leave a directory behind
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self._lock, wait=False) as mine:
            if not mine:
                raise LabBusy(
                    f"another lab command (process {lock_holder(self._lock)}) is working on lab '{self.name}'",
                    advice="wait for it, or watch it with: lab status",
                )
            self._held.add(self.name)
            try:
                for name in PRECIOUS:
                    repair_precious(self.directory / name)
                yield
            finally:
                self._held.discard(self.name)

    @contextmanager
    def _as_writer(self) -> Iterator[None]:
        """For one change: as part of what this process is writing anyway, or by itself."""
        if self.name in self._held:
            yield
        else:
            with self.writing(new=True):
                yield

    def other_writer(self) -> str | None:
        """The process id of another `lab` that writes to this lab now."""
        holder = lock_holder(self._lock) if is_locked(self._lock) else None
        return holder if holder != str(os.getpid()) else None


def all_labs() -> list[Lab]:
    """Every lab of this user."""
    root = places.state_home()
    if not root.is_dir():
        return []
    return [Lab(entry.name) for entry in sorted(root.iterdir()) if precious_exists(entry / "lab.json")]
