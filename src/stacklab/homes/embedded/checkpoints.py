"""Saved states of a cloud, databases and files; taken and put back while its services run."""

from __future__ import annotations

import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from stacklab.errors import CheckpointMissing, NotEnoughSpace, ServiceFailed, UnknownName
from stacklab.files import disk_error, read_json, write_json
from stacklab.homes.embedded import ending, mirror, supervision
from stacklab.homes.embedded.cloud import Cloud
from stacklab.homes.embedded.layout import DATA, Layout
from stacklab.homes.embedded.services import NAMES
from stacklab.machines import scratch
from stacklab.machines.local import LocalMachine
from stacklab.stages import Progress

# Swift writes these once, under a name that holds the time, and never again.
_OBJECT_SUFFIXES = {".data", ".meta", ".ts", ".durable"}
RESERVE = 64 << 20
"""Bytes that a checkpoint leaves free for the services that run on."""


class Checkpoints:
    """The checkpoints of one cloud, a directory each; `done.json` is written last."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.layout: Layout = cloud.layout
        self._unfinished = self.layout.run / "restoring.json"

    def names(self) -> list[str]:
        if not self.layout.checkpoints.is_dir():
            return []
        return sorted(path.parent.name for path in self.layout.checkpoints.glob("[!.]*/done.json"))

    @property
    def unfinished(self) -> str | None:
        """The checkpoint that an interrupted restore was putting back."""
        told = read_json(self._unfinished)
        return str(told["name"]) if told else None

    # --- saving ----------------------------------------------------------------------------------------------------

    def save(self, name: str, progress: Progress) -> None:
        """Replaces an earlier checkpoint of this name only when the new one is whole."""
        target = self._path(name)
        draft, old = target.with_name(f".{name}.new"), target.with_name(f".{name}.old")
        self._take_up(target, old)
        mirror.remove(draft)
        self._check_space()
        try:
            draft.mkdir(parents=True, mode=0o700)
            with self._guests_frozen():
                progress("saving the databases")
                for database in sorted(self.layout.db.glob("*.db")):
                    copy_database(database, self._directory(draft / "db") / database.name)
                progress("saving images, volumes, instances and objects")
                for part in DATA:
                    mirror.mirror(self.layout.home / part, draft / part, shareable)
                self._save_swift_databases(draft)
            write_json(draft / "done.json", {"at": int(time.time()), "ports": self.cloud.ports})
            if target.exists():
                target.rename(old)
            draft.rename(target)
        except OSError as error:
            raise disk_error(error, target) from error
        except sqlite3.Error as error:
            raise database_error(error, target) from error
        finally:
            mirror.remove(draft)
        mirror.remove(old)

    def _check_space(self) -> None:
        needed = sum(mirror.used(self.layout.home / part) for part in (*DATA, "db"))
        needed -= mirror.used(self.layout.home / "images")  # shared, not copied
        free = shutil.disk_usage(self.layout.home).free
        if needed + RESERVE > free:
            raise NotEnoughSpace(
                f"a checkpoint needs about {needed / 1e6:.0f} MB in {self.layout.home}, and {RESERVE / 1e6:.0f} MB beside it "
                f"for the services; {free / 1e6:.0f} MB are free",
                advice="free some space and run the same command again",
            )

    def _save_swift_databases(self, draft: Path) -> None:
        """Swift's own SQLite files may be written to at this very moment: SQLite has to copy them."""
        for database in (self.layout.home / "swift").rglob("*.db"):
            copy = draft / "swift" / database.relative_to(self.layout.home / "swift")
            if copy.exists():
                copy.unlink()
                copy_database(database, copy)

    @contextmanager
    def _guests_frozen(self) -> Iterator[None]:
        frozen: list[str] = []
        if supervision.is_running(self.layout):
            frozen = supervision.order(self.layout, "freeze", to="nova")["frozen"]
        try:
            yield
        finally:
            if frozen:
                supervision.order(self.layout, "thaw", to="nova", frozen=frozen)

    def drop(self, name: str) -> None:
        """Remove a checkpoint, the mark of a whole one first."""
        target = self._path(name)
        self._take_up(target, target.with_name(f".{name}.old"))
        (target / "done.json").unlink(missing_ok=True)
        mirror.remove(target)

    # --- putting back ----------------------------------------------------------------------------------------------

    def restore(self, name: str, progress: Progress) -> None:
        """Databases and files become what they were; then each service forgets what it remembers of them."""
        source = self._path(name)
        self._take_up(source, source.with_name(f".{name}.old"))
        saved: dict[str, Any] | None = read_json(source / "done.json")
        if saved is None:
            raise CheckpointMissing(
                f"there is no checkpoint '{name}'",
                advice=f"there are: {', '.join(self.names())}" if self.names() else "lab up saves the first one",
            )
        running = supervision.is_running(self.layout)
        busy = self._busy() if running else []
        write_json(self._unfinished, {"name": name})
        self._end_work(running, busy, progress)
        progress("ending what steps left running, emptying their directory")
        scratch.clear(LocalMachine(), str(self.layout.scratch))
        progress("putting back databases and files")
        try:
            self._put_back(source)
        except OSError as error:
            raise disk_error(error, self.layout.home) from error
        except sqlite3.Error as error:
            raise database_error(error, self.layout.db) from error
        if saved["ports"] != self.cloud.ports:
            self.cloud.personalise(self.cloud.passwords())  # the addresses in the catalogue are older than the ports
        if running:
            self._forget(busy, progress)
        self._unfinished.unlink(missing_ok=True)

    def _end_work(self, running: bool, busy: list[str], progress: Progress) -> None:
        """After this nothing writes to what is about to be put back, and no instance runs."""
        for name in busy:
            progress(f"{name} is at work; ending it")
            supervision.end_service(self.layout, name)
        progress("ending instances")
        if running and "nova" not in busy:
            supervision.order(self.layout, "end_guests", to="nova")
        ending.end_leftovers(self.layout, progress)

    def _put_back(self, source: Path) -> None:
        for database in sorted((source / "db").glob("*.db")):
            copy_database(database, self.layout.db / database.name)
        for part in DATA:
            mirror.mirror(source / part, self.layout.home / part, shareable)

    def _busy(self) -> list[str]:
        """Services in the middle of work on things that will be gone: only a restart makes them drop it."""
        busy = []
        # What was accepted a moment ago is a request only: the conductor makes the instance of it.
        nova = {
            "nova_api.db": "build_requests",
            "nova_cell1.db": "instances WHERE deleted = 0 AND (task_state IS NOT NULL OR vm_state = 'building')",
        }
        if any(_any(self.layout.db / name, rows) for name, rows in nova.items()):
            busy.append("nova")
        if _any(self.layout.db / "cinder.db", "volumes WHERE deleted = 0 AND status LIKE '%ing'"):
            busy.append("cinder")
        return busy

    def _forget(self, busy: list[str], progress: Progress) -> None:
        for name in busy:
            progress(f"starting {name} again")
            supervision.order(self.layout, "restart", service=name)
        for name in NAMES:  # keystone first: the others ask it
            if name not in busy:
                progress(f"{name} forgets")
                supervision.order(self.layout, "forget", to=name)
        if busy:
            supervision.wait_until_running(self.layout, progress, time.monotonic() + 90)

    # --- names -----------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", name):
            raise UnknownName(f"'{name}' cannot be a checkpoint's name", advice="use letters, digits, '.', '_' and '-'")
        return self.layout.checkpoints / name

    @staticmethod
    def _take_up(target: Path, old: Path) -> None:
        """A run that was killed between two renames left the old one aside."""
        if old.exists():
            if target.exists():
                mirror.remove(old)
            else:
                old.rename(target)

    @staticmethod
    def _directory(path: Path) -> Path:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path


def shareable(path: Path) -> bool:
    """Written once and never again: Glance's images, Swift's objects."""
    return path.suffix in _OBJECT_SUFFIXES if "swift" in path.parts[-9:] else path.parent.name == "images"


def copy_database(source: Path, target: Path) -> None:
    """SQLite's online backup: `source` may be in use, and so may `target`, whose users then see the new content."""
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=60)) as reader,
        closing(sqlite3.connect(target, timeout=60)) as writer,
    ):
        reader.backup(writer)


def database_error(error: sqlite3.Error, path: Path) -> Exception:
    if "full" in str(error):
        return NotEnoughSpace(f"no space left to write {path}", advice="free some space and run the same command again")
    return ServiceFailed(f"{path}: {error}", advice="run the same command again")


def _any(database: Path, condition: str) -> bool:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        return connection.execute(f"SELECT 1 FROM {condition} LIMIT 1").fetchone() is not None  # noqa: S608 - ours, above
