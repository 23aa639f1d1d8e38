"""Serving the cache to a lab's machine for the length of a run: a detached process of ours on one address of this host."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stacklab import cache
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import ServiceFailed
from stacklab.files import read_json, write_json
from stacklab.lab import Lab
from stacklab.logs import FileLog
from stacklab.prefetch import filling, mirrors, plan
from stacklab.prefetch.server import CONFIG, LOCK, STATE, Config

START_SECONDS = 20
STOP_SECONDS = 15


@dataclass(frozen=True)
class Served:
    """A server that runs. `url` ends in /; `log` is on this host."""

    url: str
    pid: int
    log: Path


def directory(lab: Lab) -> Path:
    """The server's own directory in the lab's."""
    return lab.directory / "cache-server"


def start(
    lab: Lab,
    bind_address: str,
    profile: Profile,
    settings: Settings,
    *,
    clients: tuple[str, ...] = (),
    offline: bool = False,
) -> Served:
    """Serve on this address of this host, which has to be the one that faces the machine; no other is listened on.

    One that serves the same already is left as it is; the port stays the same over the life of a lab, for the machine
    remembers it. `clients`: addresses or networks that are answered (none: all that can reach the address). `offline`: only
    what is kept is served. Raises ServiceFailed.
    """
    if ipaddress.ip_address(bind_address).is_unspecified:
        raise ServiceFailed(f"the cache is not served on {bind_address}: that is every address of this host")
    place = directory(lab)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = read_json(place / STATE) or {}
    port = int(before.get("port", 0)) if before.get("bind") == bind_address else 0
    config = Config(
        bind_address, port, settings.model_dump(mode="json"), plan.package_sources(profile), sorted(clients), offline
    )
    running = state(lab)
    if running and (read_json(place / CONFIG) or {}) | {"port": port} == asdict(config):
        return running
    stop(lab)
    write_json(place / CONFIG, asdict(config), mode=0o600)
    try:
        return _started(lab, place)
    except ServiceFailed:
        if not port:
            raise
        write_json(place / CONFIG, asdict(config) | {"port": 0}, mode=0o600)  # somebody else has taken it meanwhile
        return _started(lab, place)


def _started(lab: Lab, place: Path) -> Served:
    log = place / "server.log"
    before = read_json(place / STATE)
    (place / STATE).unlink(missing_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "stacklab.prefetch.server", str(place)],
            cwd="/", stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(descriptor)
    deadline = time.monotonic() + START_SECONDS
    while (served := state(lab)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            if process.poll() is None:
                process.kill()
                process.wait()
            if before:
                write_json(place / STATE, before)
            said = " ".join(FileLog(log).last(1))
            raise ServiceFailed(f"the cache is not served: {said or 'its server says nothing'}", advice=f"see {log}")
        time.sleep(0.05)
    process.returncode = 0  # it is on its own now: not ours to wait for
    return served


def state(lab: Lab) -> Served | None:
    """The server that runs, if one does: it does exactly while it holds its lock."""
    place = directory(lab)
    try:
        with (place / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        told = read_json(place / STATE)
    if not told:
        return None  # it is just beginning, or ending
    host = f"[{told['bind']}]" if ":" in told["bind"] else told["bind"]
    return Served(f"http://{host}:{told['port']}/", int(told["pid"]), place / "server.log")


def stop(lab: Lab) -> bool:
    """End the server; whether there was one. Raises ServiceFailed if it does not end."""
    served = state(lab)
    if served is None:
        return False
    for order, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        try:
            os.kill(served.pid, order)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if state(lab) is None:
                return True
            time.sleep(0.05)
    raise ServiceFailed(f"the cache's server (process {served.pid}) does not end", advice=f"see {served.log}")


def settings_for(served: Served, profile: Profile, settings: Settings, services: tuple[str, ...] = ()) -> Settings:
    """The settings of a deployment that uses the cache, to be laid in the place of the user's own.

    git: a directory in which a mirror is kept (https://HOST/openstack/) leads to us, and what we do not have of it we send on
    to where the user's own settings would have it (not if we serve offline: then git says that it is missing). pip: our index
    stands in the place of the host's, and passes on what is not kept. Packages: the addresses of the profile's repositories
    lead to us. Files and the box are fetched by this host, and found in the cache without a server. `pip_index` is plain
    http: the machine's pip needs its host as trusted-host.
    """
    base = served.url.rstrip("/")
    overlay: dict[str, str] = {}
    for repository in filling.wanted_repositories(profile, services):
        if mirrors.commit(mirrors.mirror_path(repository.url), repository.ref) is not None:
            # its directory, not its host: files that are no repositories lie on the same hosts
            at = urlsplit(repository.url.rpartition("/")[0] + "/")
            overlay[at.geturl()] = f"{base}/git/{at.netloc.rpartition('@')[2]}{at.path}"
    for source in plan.package_sources(profile):
        at = urlsplit(source)
        overlay[source] = f"{base}/packages/{at.scheme}/{at.netloc}/"
    own = {begin: to for begin, to in settings.mirrors.items() if not begin.startswith(tuple(overlay))}
    host = urlsplit(served.url).hostname or ""
    return settings.model_copy(
        update={
            "mirrors": own | overlay,
            "pip_index": f"{base}/simple/",
            "no_proxy": [*settings.no_proxy, host] if settings.proxy else settings.no_proxy,
        }
    )


def cache_directory() -> Path:
    """What `lab destroy --purge` removes."""
    return cache.root()
