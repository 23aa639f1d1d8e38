"""The cloud that Tempest works on: a lab in a state directory of its own, gone when it is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stacklab import places
from stacklab.cloud.access import CloudAccess
from stacklab.cloud.connection import Connection
from stacklab.console import Console
from stacklab.course.load import load_session
from stacklab.errors import LabBusy
from stacklab.files import lock_holder, locked
from stacklab.homes.plan import Plan
from stacklab.lab import Lab
from stacklab.replay.assets import Assets
from stacklab.replay.bringup import bring_up, destroy

LAB = "tempest"
SESSION = "session4"  # any will do: none of its steps is run
HOME = "embedded"


@dataclass(frozen=True)
class House:
    """A running cloud, and `work`, the directory for Tempest's files."""

    lab: Lab
    access: CloudAccess
    admin: Connection
    assets: Assets
    work: Path
    logs: dict[str, Path]
    evidence: Path

    def keep_evidence(self) -> None:
        """Copy Tempest's files and the services' logs to where they outlive the cloud."""
        shutil.rmtree(self.evidence, ignore_errors=True)
        shutil.copytree(self.work, self.evidence)
        for log in self.logs.values():
            shutil.copy2(log, self.evidence / f"service-{log.name}")


@contextmanager
def house(console: Console, *, keep: bool) -> Iterator[House]:
    """A cloud made for this, or the one that an earlier run kept. Raises LabBusy, and whatever `lab up` raises.

    It lies below the cache directory, so that what a killed run left is found, and removed, by the next.
    """
    root = places.cache_home() / "tempest"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(root / "lock", wait=False) as mine:
        if not mine:
            raise LabBusy(f"process {lock_holder(root / 'lock')} is running Tempest already", advice="wait for it")
        before = os.environ.get("XDG_STATE_HOME")
        os.environ["XDG_STATE_HOME"] = str(root / "state")
        try:
            yield from _furnished(root, console, keep)
        finally:
            if before is None:
                del os.environ["XDG_STATE_HOME"]
            else:
                os.environ["XDG_STATE_HOME"] = before


def _furnished(root: Path, console: Console, keep: bool) -> Iterator[House]:
    lab, work = Lab(LAB), root / "work"
    if lab.exists() and not (root / "kept").exists():
        _remove(lab, root, console)  # left by a run that was killed
    (root / "kept").unlink(missing_ok=True)
    for old in (work, root / "failed"):
        shutil.rmtree(old, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        home = bring_up(lab, load_session(SESSION), Plan(home=HOME), None, console.emit)
        access = home.access()
        admin = Connection(access.clouds_file, access.admin)
        logs = {name: Path(log.where) for name, log in home.logs(None).items()}
        yield House(lab, access, admin, Assets(lab), work, logs, root / "failed")
    finally:
        if keep:
            (root / "kept").touch()
            console.print(f"the cloud stays: XDG_STATE_HOME={root / 'state'} lab --lab {LAB} status")
        else:
            _remove(lab, root, console)


def _remove(lab: Lab, root: Path, console: Console) -> None:
    with console.working("removing the cloud", 5) as progress:
        if lab.directory.exists():
            for _ in destroy(lab, progress):
                pass
        for name in ("state", "work"):
            shutil.rmtree(root / name, ignore_errors=True)
