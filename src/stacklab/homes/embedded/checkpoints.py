"""Saved states of a cloud, databases and files: taken while its services run, put back while they run or while nothing does.

A checkpoint says what it holds, with checksums: a damaged one is found out before anything is touched.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from stacklab.errors import CheckpointBroken, CheckpointMissing, LabDamaged, NotEnoughSpace, ServiceFailed, UnknownName
from stacklab.files import disk_error, precious_exists, read_precious, remove_precious, write_precious
from stacklab.homes.embedded import mirror, supervision
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
_DONE = "done.json"
"""In a checkpoint: when it was saved, with which ports, and the checksum of every file. Written last."""


class Checkpoints:
    """The checkpoints of one cloud, a directory each."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.layout: Layout = cloud.layout

    def names(self) -> list[str]:
        if not self.layout.checkpoints.is_dir():
            return []
        there = (path for path in self.layout.checkpoints.iterdir() if not path.name.startswith("."))
        return sorted(path.name for path in there if precious_exists(path / _DONE))

    # --- saving ----------------------------------------------------------------------------------------------------

    def save(self, name: str, progress: Progress) -> None:
        """Replaces an earlier checkpoint of this name only when the new one is whole."""
        target = self._path(name)
        draft, old = target.with_name(f".{name}.new"), target.with_name(f".{name}.old")
        self._take_up(target, old)
        mirror.remove(draft)
        self._check_space()
        try:
            (draft / "db").mkdir(parents=True, mode=0o700)
            with self._guests_frozen():
                progress("saving the databases")
                for database in sorted(self.layout.db.glob("*.db")):
                    copy_database(database, draft / "db" / database.name)
                progress("saving images, volumes, instances and objects")
                for part in DATA:
                    mirror.mirror(self.layout.home / part, draft / part, shareable)
                self._save_swift_databases(draft)
            done = {"at": int(time.time()), "ports": self.cloud.ports, "sums": dict(checksums(draft))}
            write_precious(draft / _DONE, done)
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
        remove_precious(target / _DONE)
        mirror.remove(target)

    # --- looking ---------------------------------------------------------------------------------------------------

    def verify(self, name: str) -> dict[str, Any]:
        """What the checkpoint says of itself. Touches nothing. Raises CheckpointMissing, CheckpointBroken."""
        source = self._path(name)
        if not source.exists():
            source = source.with_name(f".{name}.old")  # a run was killed between two renames
        try:
            done = read_precious(source / _DONE)
        except LabDamaged as error:
            raise CheckpointBroken(f"the checkpoint '{name}' is damaged: {error.message}") from error
        if done is None:
            raise CheckpointMissing(
                f"there is no checkpoint '{name}'",
                advice=f"there are: {', '.join(self.names())}" if self.names() else "lab up saves the first one",
            )
        now = dict(checksums(source))
        saved = done.get("sums", now)  # format 1 had none
        if wrong := [path for path in sorted(saved) if saved[path] != now.get(path)]:
            raise CheckpointBroken(f"the checkpoint '{name}' is damaged: {', '.join(wrong[:3])} in {source}")
        return dict(done)

    # --- putting back ----------------------------------------------------------------------------------------------

    def restore_running(self, name: str, done: dict[str, Any], progress: Progress) -> None:
        """Databases and files become what they were; then each service forgets what it remembers of them.

        `done`: what `verify` gave. Raises ServiceFailed where something is so damaged that it cannot be done beside services.
        """
        source = self._found(name)
        try:
            busy = self._busy()
            self._end_work(busy, progress)
            progress("putting back databases and files")
            for database in sorted((source / "db").glob("*.db")):
                copy_database(database, self.layout.db / database.name, still=True)
            for part in DATA:
                mirror.mirror(source / part, self.layout.home / part, shareable)
        except OSError as error:
            raise disk_error(error, self.layout.home) from error
        except sqlite3.Error as error:
            raise database_error(error, self.layout.db) from error
        if done["ports"] != self.cloud.ports:
            self.cloud.personalise(self.cloud.passwords())  # the addresses in the catalogue are older than the ports
        self._forget(busy, progress)

    def restore_stopped(self, name: str, progress: Progress) -> None:
        """The same while no service runs: whole files take the place of others, which nobody reads."""
        source = self._found(name)
        self._clear_scratch(progress)
        progress("putting back databases and files, whole")
        try:
            for part in ("db", *DATA):
                mirror.remove(self.layout.home / part)
                mirror.mirror(source / part, self.layout.home / part, shareable)
        except OSError as error:
            raise disk_error(error, self.layout.home) from error
        self.layout.make()
        self.cloud.personalise(self.cloud.passwords())

    def _found(self, name: str) -> Path:
        source = self._path(name)
        self._take_up(source, source.with_name(f".{name}.old"))
        return source

    def _end_work(self, busy: list[str], progress: Progress) -> None:
        """After this nothing writes to what is about to be put back, and no instance runs."""
        for name in busy:
            progress(f"{name} is at work; ending it")
            supervision.end_service(self.layout, name)
        progress("ending instances")
        if "nova" not in busy:
            supervision.order(self.layout, "end_guests", to="nova")
        supervision.end_guests(self.layout, progress)
        self._clear_scratch(progress)

    def _clear_scratch(self, progress: Progress) -> None:
        progress("ending what steps left running, emptying their directory")
        scratch.clear(LocalMachine(), str(self.layout.scratch))

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


def shareable(path: Path) -> bool:
    """Written once and never again: Glance's images, Swift's objects."""
    return path.suffix in _OBJECT_SUFFIXES if "swift" in path.parts[-9:] else path.parent.name == "images"


def checksums(tree: Path) -> Iterator[tuple[str, str]]:
    """Each file of a checkpoint, and a checksum of its content in which holes count nothing."""
    for directory, _, names in os.walk(tree):
        for name in names:
            path = Path(directory) / name
            if not name.startswith(_DONE) and path.is_file() and not path.is_symlink():
                yield str(path.relative_to(tree)), _checksum(path)


def _checksum(path: Path) -> str:
    """Of the size and of every block that is not all zeros, with its place: a disk of 1 GB may hold a few MB."""
    digest, zeros = hashlib.sha256(str(path.stat().st_size).encode()), bytes(mirror.BLOCK)
    with path.open("rb") as file:
        for position in mirror.blocks(file.fileno()):
            block = os.pread(file.fileno(), mirror.BLOCK, position)
            if block != zeros[: len(block)]:
                digest.update(position.to_bytes(8, "big") + block)
    return digest.hexdigest()


def copy_database(source: Path, target: Path, *, still: bool = False) -> None:
    """SQLite's online backup: `source` may be in use, and so may `target`, whose users then see the new content.

    `still`: nobody uses `source`, and nothing shall be written beside it.
    """
    how = "mode=ro&immutable=1" if still else "mode=ro"
    with (
        closing(sqlite3.connect(f"file:{source}?{how}", uri=True, timeout=60)) as reader,
        closing(sqlite3.connect(target, timeout=60)) as writer,
    ):
        reader.backup(writer)


def database_error(error: sqlite3.Error, path: Path) -> Exception:
    if "full" in str(error):
        return NotEnoughSpace(f"no space left to write {path}", advice="free some space and run the same command again")
    return ServiceFailed(f"{path}: {error}", advice="lab reset puts every database back, whole")


def _any(database: Path, condition: str) -> bool:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        return connection.execute(f"SELECT 1 FROM {condition} LIMIT 1").fetchone() is not None  # noqa: S608 - ours, above
