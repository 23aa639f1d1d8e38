"""Serving the cache to a lab's machine for the length of a run: a detached process of ours, and its SSH connection there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stacklab.cache import cache_root
from stacklab.errors import ServiceFailed
from stacklab.files import is_locked, read_derivable, write_json
from stacklab.lab import Lab
from stacklab.logs import FileLog
from stacklab.prefetch import mirrors
from stacklab.prefetch.plan import Repository
from stacklab.prefetch.server import CONFIG, LOCK, STATE
from stacklab.waiting import looks

START_SECONDS = 20
STOP_SECONDS = 15
PORTS = range(20000, 32000)
"""Below those that a kernel gives to whoever asks for any."""


@dataclass(frozen=True)
class Served:
    """A server that runs. `url` ends in / and holds on the machine; `log` is on this host."""

    url: str
    pid: int
    log: Path


def directory(lab: Lab) -> Path:
    """The server's own directory in the lab's."""
    return lab.directory / "cache-server"


def start(lab: Lab, ssh: list[str]) -> Served:
    """Serve to the machine that the command `ssh` logs in to. One that serves already is left as it is.

    The port stays the same over the life of a lab, for the machine remembers it. Raises ServiceFailed.
    """
    if running := state(lab):
        return running
    place = directory(lab)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    port = int(read_derivable(place / CONFIG).get("port", 0)) or random.choice(PORTS)  # noqa: S311 - no secret
    write_json(place / CONFIG, {"port": port, "ssh": ssh}, mode=0o600)
    (place / STATE).unlink(missing_ok=True)
    log = place / "server.log"
    with log.open("ab") as output:  # in a directory that is ours alone
        process = subprocess.Popen(
            [sys.executable, "-m", "stacklab.prefetch.server", str(place)],
            cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    for begun in looks((place / STATE).exists, START_SECONDS, 0.05):
        if begun and (served := state(lab)):
            process.returncode = 0  # it is on its own now: not ours to wait for
            return served
        if process.poll() is not None:
            break
    process.kill()
    process.wait()
    raise ServiceFailed(
        f"the cache is not served: {' '.join(FileLog(log).last(1)) or 'its server says nothing'}", advice=f"see {log}"
    )


def state(lab: Lab) -> Served | None:
    """The server that runs, if one does: it does exactly while it holds its lock."""
    place = directory(lab)
    running = read_derivable(place / STATE) if is_locked(place / LOCK) else {}
    if not running:
        return None  # or it is just beginning
    return Served(f"http://127.0.0.1:{running['port']}/", int(running["pid"]), place / "server.log")


def stop(lab: Lab, *, another_port: bool = False) -> bool:
    """End the server; whether there was one. Raises ServiceFailed if it does not end."""
    served = state(lab)
    if served is None:
        return False
    for order in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(served.pid, order)
        if any(state(lab) is None for _ in looks(lambda: None, STOP_SECONDS, 0.05)):
            if another_port:
                (directory(lab) / CONFIG).unlink(missing_ok=True)
            return True
    raise ServiceFailed(f"the cache's server (process {served.pid}) does not end", advice=f"see {served.log}")


def git_config(url: str, repositories: Iterable[tuple[Repository, str]]) -> str:
    """Configuration with which git asks the server for what has a mirror, and everybody else for the rest.

    `repositories`: each with the address that the machine asks for. git puts something else in the place of the longest
    beginning that fits, so NAME, NAME.git and NAME-more have to be told apart.
    """
    lines = ["# Written by lab for as long as the cloud is being made: what was prefetched comes from there."]

    def instead(of: str, there: str) -> None:
        lines.extend([f'[url "{there}"]', f'\tinsteadOf = "{of}"'])

    for repository, asked in repositories:
        path = mirrors.mirror_path(repository.url)
        if mirrors.commit(path, repository.ref) is None:
            continue
        mirror, bare = f"{url}{path.relative_to(cache_root())}", asked.removesuffix(".git")
        instead(f"{bare}.git", mirror)
        if bare == asked:
            instead(bare, mirror)
            instead(f"{bare}-", f"{bare}-")
    return "\n".join(lines) + "\n"
