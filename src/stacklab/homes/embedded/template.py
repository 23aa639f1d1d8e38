"""The first initialisation of a cloud, done once and kept: schemas and the content that every new cloud has.

A template lies under the XDG cache directory, named by everything that made it. It holds no secret that a cloud keeps:
`inside/labcloud/personalise.py` gives every copy its own.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

from stacklab import places
from stacklab.errors import NotEnoughSpace, StageFailed
from stacklab.files import locked
from stacklab.homes.embedded import config, mirror, software
from stacklab.homes.embedded.layout import Layout
from stacklab.homes.embedded.services import PORT_NAMES, USERS
from stacklab.stages import Progress

JOBS = ("nova", "keystone", "neutron", "cinder", "glance", "placement")  # the longest first
DEADLINE = 900  # seconds; it takes about ten, and a few minutes on a slow and busy machine


def key() -> str:
    """Requirements, configuration, and our code that ran while it was made."""
    digest = hashlib.sha256(software.key().encode())
    inside = config.INSIDE / "labcloud"
    sources = [
        *config.TEMPLATES.glob("*.j2"),
        *(inside / "setup").glob("*.py"),
        inside / "sqlite.py",
        inside / "network.py",
    ]
    for source in sorted(sources):
        digest.update(f"{source.name}\n".encode() + source.read_bytes())
    return f"{software.RELEASE}-{digest.hexdigest()[:12]}"


def templates() -> Path:
    return places.cache_home() / "templates"


def path() -> Path:
    return templates() / key()


def made() -> bool:
    return path().is_dir()


def make(progress: Progress) -> str:
    """Make the template, or wait for another `lab` that is making it."""
    if not software.build_once(path(), lambda draft: _make(draft, progress), progress):
        return "another lab made it"
    software.prune_templates(templates(), keep=key())
    return f"kept in {path()}"


def _make(draft: Path, progress: Progress) -> None:
    work = draft.with_name(f"{draft.name}.work")
    mirror.remove(work)
    try:
        layout = Layout(work)
        ports = {name: 1024 + number for number, name in enumerate(PORT_NAMES)}  # nothing listens while this is made
        throwaway = {
            name: secrets.token_urlsafe(18) for name in ("admin", "learner", "swift_hash", "dashboard", *USERS)
        }
        config.write_configuration(layout, software.path(), ports, throwaway, checked=False)
        _run_jobs(layout, progress)
        _keep_databases(layout.db, draft)
    except sqlite3.OperationalError as error:
        raise StageFailed(f"the template's databases could not be closed: {error}") from error
    finally:
        mirror.remove(work)


def copy_to(target: Path, progress: Progress) -> None:
    """Copy the databases, under the lock: another version of lab may be removing what it does not need."""
    while True:
        make(progress)
        with locked(templates() / f"{key()}.lock", wait=True):
            if made():
                for file in path().glob("*.db"):
                    shutil.copyfile(file, target / file.name)
                return


def _run_jobs(layout: Layout, progress: Progress) -> None:
    python = software.path() / "bin" / "python"
    environment = config.process_environment(layout, software.path())
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for job in JOBS:
            with (layout.logs / f"{job}.log").open("wb") as log:
                running[job] = subprocess.Popen(
                    [python, "-m", f"labcloud.setup.{job}"], env=environment, cwd=layout.home,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                )  # fmt: skip
        _wait_for(running, layout, progress)
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def _wait_for(running: dict[str, subprocess.Popen[bytes]], layout: Layout, progress: Progress) -> None:
    deadline = time.monotonic() + DEADLINE
    while running:
        for job, process in list(running.items()):
            if process.poll() is None:
                continue
            del running[job]
            if process.returncode:
                raise _job_failed(job, process.returncode, layout.logs / f"{job}.log")
            progress(f"{job} is initialised" + (f"; waiting for {', '.join(sorted(running))}" if running else ""))
        if time.monotonic() > deadline:
            raise StageFailed(f"the first initialisation of {', '.join(running)} did not end within {DEADLINE} s")
        time.sleep(0.1)


def _job_failed(job: str, status: int, log: Path) -> Exception:
    text = log.read_text(errors="replace").strip()
    if "database or disk is full" in text or "No space left on device" in text:
        return NotEnoughSpace(f"the disk filled up while {job} was being initialised; nothing half-made was kept",
                              advice="free some space and run the same command again")  # fmt: skip
    kept = templates() / f"failed-{job}.log"
    shutil.copyfile(log, kept)
    return StageFailed(
        f"the first initialisation of {job} ended with status {status}: {text.splitlines()[-1:]}", advice=f"see {kept}"
    )


def _keep_databases(source: Path, target: Path) -> None:
    """One whole file a database, without its write-ahead log, and without the passwords of this run."""
    with closing(sqlite3.connect(source / "keystone.db")) as connection, connection:
        connection.execute("UPDATE password SET password_hash = NULL")
    target.mkdir(mode=0o700)
    for file in sorted(source.glob("*.db")):
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        shutil.copyfile(file, target / file.name)
