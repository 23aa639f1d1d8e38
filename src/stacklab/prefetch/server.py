"""The process that serves the cache to a machine: `python -m stacklab.prefetch.server DIRECTORY`. See `serving`.

/git/HOST/PATH.git/…  /simple/NAME/FILE  /files/KEY/NAME  /packages/SCHEME/HOST/PATH; GET and HEAD, nothing else. http.server is
enough for one machine on one network: what it sends are files, and the sending is done by the kernel.
"""

from __future__ import annotations

import email.utils
import fcntl
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

import requests

from stacklab import cache
from stacklab.deploy.profile.settings import Settings
from stacklab.download import without_password
from stacklab.errors import LabError
from stacklab.files import write_json
from stacklab.prefetch.index import Index
from stacklab.prefetch.packages import NotPassed, Packages
from stacklab.prefetch.passing import PassingIndex

IDLE_SECONDS = 12 * 3600
"""After so long without a question the run is over, and nobody was left to end us."""

QUIET_SECONDS = 120
"""A connection that says nothing for so long is closed."""

LOCK, CONFIG, STATE = "server.lock", "server.json", "serving.json"

# https://git-scm.com/docs/http-protocol, "dumb": all that a client asks for. Not config, hooks, or what is being written.
_GIT_FILE = re.compile(
    r"HEAD|info/refs|objects/info/(?:packs|alternates|http-alternates)"
    r"|objects/[0-9a-f]{2}/[0-9a-f]{38,62}|objects/pack/pack-[0-9a-f]{40,64}\.(?:pack|idx)"
)
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Config:
    """What a server is told, in server.json (0600: an index's address may hold a password).

    `sources`: see `Packages`. `clients`: addresses or networks that are answered; none means all that can reach `bind`.
    `offline`: nothing is fetched, only what is kept is served. `port` 0: any that is free.
    """

    bind: str
    port: int
    settings: dict[str, Any]
    sources: list[str]
    clients: list[str]
    offline: bool


class Refused(Exception):
    """An answer that is not a file."""

    def __init__(self, status: int, why: str, *, location: str = "") -> None:
        super().__init__(why)
        self.status, self.why, self.location = status, why, location


class Server(ThreadingHTTPServer):
    """Serves one lab's machine."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        address = ipaddress.ip_address(config.bind)
        if address.is_unspecified:
            raise ValueError("the cache is never served on all addresses")
        self.address_family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        self.config, self.say, self.asked = config, say, time.monotonic()
        settings = Settings.model_validate(config.settings)
        self.settings = settings
        self.clients = [ipaddress.ip_network(one, strict=False) for one in config.clients]
        index = Index.of_host(settings)
        self.passing = PassingIndex(index, say, config.offline)
        session = requests.Session()
        session.verify = index.session.verify
        self.packages = Packages(config.sources, settings, session, say, config.offline)
        super().__init__((config.bind, config.port), Handler)

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of our own name, which a machine without a resolver waits for."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whoever is not the lab's machine gets no answer at all."""
        client = ipaddress.ip_address(client_address[0])
        return not self.clients or any(client in one for one in self.clients)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line: a machine that goes away while it is served is no defect."""
        error = sys.exception()
        self.say(f"{client_address[0]}: {type(error).__name__}: {without_password(str(error))}")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "lab", ""
    timeout = QUIET_SECONDS

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        self.server.say(f"{self.client_address[0]} {format % args}")

    def _answer(self) -> None:
        self.server.asked = time.monotonic()
        self._passing = _Passing(self) if self.command == "GET" and "Range" not in self.headers else None
        try:
            self._route()
        except (Refused, NotPassed) as refused:
            self._refuse(refused)
        except LabError as error:
            self._refuse(Refused(502, error.message))

    def _refuse(self, refused: Refused | NotPassed) -> None:
        if self._passing and self._passing.begun:
            self.server.say(f"{self.path}: broke off, {refused.why}")
            self.close_connection = True  # fewer bytes than were promised: the client notices
            return
        self.server.say(f"{self.path}: {refused.status}, {refused.why}")
        body = f"{refused.why}\n".encode()
        self.send_response(refused.status)
        if isinstance(refused, Refused) and refused.location:
            self.send_header("Location", refused.location)
        self._send_text(body, "text/plain; charset=utf-8")

    def _send_text(self, body: bytes, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _route(self) -> None:
        parts = _parts(self.path)
        if parts and parts[0] in ("http:", "https:"):  # apt asks us as a proxy
            parts = ["packages", parts[0].rstrip(":"), *parts[2:]]
        match parts:
            case [] | [""]:
                self.send_response(200)
                self._send_text(b"lab's cache: git/ simple/ files/ packages/\n", "text/plain; charset=utf-8")
            case ["git", host, *rest] if rest:
                self._git(host, rest)
            case ["simple", ""]:
                self._page(simple_front_page())
            case ["simple", name, ""]:
                self._page(self.server.passing.page(name))
            case ["simple", name]:
                raise Refused(301, "a page ends in /", location=f"/simple/{quote(name)}/")
            case ["simple", name, file] if _plain(file):
                path = self.server.passing.file(name, file, self._passing)
                if path is not None:
                    self._file(path)
            case ["files", key, name] if _plain(key) and _plain(name):
                self._kept_file(cache.root() / "files" / key / name)
            case ["packages", ("http" | "https") as scheme, host, *rest] if rest and all(map(_plain, rest)):
                passed = self.server.packages.get(scheme, host, "/".join(rest), self._passing)
                if passed is not None:
                    self._file(passed.path, stale=passed.stale)
            case _:
                raise Refused(404, "there is nothing of this name")

    def _page(self, text: str) -> None:
        self.send_response(200)
        self._send_text(text.encode(), "text/html; charset=utf-8")

    def _kept_file(self, path: Path) -> None:
        if cache.record_of(path) is None:
            raise Refused(404, "this file is not kept")
        if cache.intact(path) is None:
            raise Refused(410, "the kept file is damaged: lab prefetch fetches it again")
        self._file(path)

    def _git(self, host: str, rest: list[str]) -> None:
        root = cache.root() / "git" / host
        for end in range(1, len(rest) + 1):
            *above, name = rest[:end]
            path = root.joinpath(*above, f"{name.removesuffix('.git')}.git")
            if (path / "HEAD").is_file():
                file = "/".join(rest[end:])
                if not _GIT_FILE.fullmatch(file) or not (path / file).is_file():
                    raise Refused(404, "git asks for no such file, or the mirror has none")
                return self._file(path / file, fresh=not file.startswith("objects/pack/pack-"))
        where = f"https://{host}/{'/'.join(rest)}"
        upstream = self.server.settings.at(where)
        if self.server.config.offline or not upstream.startswith(("http://", "https://")):
            raise Refused(404, f"there is no mirror of {where}: lab prefetch makes it")
        query = urlsplit(self.path).query
        raise Refused(302, "no mirror of it here", location=upstream + (f"?{query}" if query else ""))

    def _file(self, path: Path, *, stale: str = "", fresh: bool = False) -> None:
        """Send a file of the cache, all or the range that was asked for. `fresh`: no cache on the way may keep it."""
        real = path.resolve()
        if not real.is_relative_to(cache.root().resolve()) or not real.is_file():
            raise Refused(404, "there is nothing of this name")
        with real.open("rb") as file:
            status = os.fstat(file.fileno())
            record = cache.record_of(path)
            tag = f'"{record.sha256[:32]}"' if record else f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
            changed = (
                record.modified if record and record.modified else email.utils.formatdate(status.st_mtime, usegmt=True)
            )
            if self._unchanged(tag, changed):
                self.send_response(304)
                self.send_header("ETag", tag)
                self.end_headers()
                return
            first, last = self._range(status.st_size, tag, changed)
            partial = (first, last) != (0, status.st_size - 1)
            self.send_response(206 if partial else 200)
            if partial:
                self.send_header("Content-Range", f"bytes {first}-{last}/{status.st_size}")
            if stale:
                self.send_header("Warning", '110 - "Response is Stale"')
            if fresh:
                self.send_header("Cache-Control", "no-cache")
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(last - first + 1))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", tag)
            self.send_header("Last-Modified", changed)
            self.end_headers()
            if self.command != "HEAD":
                _copy(file, self.wfile, first, last - first + 1)

    def _unchanged(self, tag: str, changed: str) -> bool:
        tags = self.headers.get("If-None-Match")
        if tags is not None:
            return tags.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in tags.split(","))
        since = _date(self.headers.get("If-Modified-Since"))
        then = _date(changed)
        return since is not None and then is not None and then <= since

    def _range(self, size: int, tag: str, changed: str) -> tuple[int, int]:
        """First and last byte (RFC 9110, 14.2; of several ranges, which nobody here asks for, none is served)."""
        everything = (0, size - 1)
        match = _RANGE.fullmatch(self.headers.get("Range", "").strip())
        condition = self.headers.get("If-Range", "").strip()
        if match is None or match[0] == "bytes=-" or (condition and condition not in (tag, changed)):
            return everything
        if not match[1]:
            first, last = max(0, size - int(match[2])), size - 1
        else:
            first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
        if first > last:
            raise Refused(416, f"the file has {size} bytes")
        return first, last


class _Passing:
    """Sends a file on while it is fetched: a large one would else be silent for longer than apt and pip wait."""

    def __init__(self, handler: Handler) -> None:
        self.handler, self.begun, self._left = handler, False, False

    def begin(self, length: int | None) -> None:
        if self.begun:
            return
        self.begun = True
        try:
            self.handler.send_response(200)
            self.handler.send_header("Content-Type", "application/octet-stream")
            if length is None:
                self.handler.send_header("Connection", "close")
                self.handler.close_connection = True
            else:
                self.handler.send_header("Content-Length", str(length))
            self.handler.end_headers()
        except OSError:
            self._gone()

    def write(self, chunk: bytes) -> None:
        if not self._left:
            try:
                self.handler.wfile.write(chunk)
            except OSError:
                self._gone()

    def _gone(self) -> None:
        self._left, self.handler.close_connection = True, True  # what it asked for is kept all the same


def simple_front_page() -> str:
    from stacklab.prefetch import simple

    return simple.front_page()


def _parts(target: str) -> list[str]:
    """The names in a request's path. Raises Refused for what could lead out of the directory it is looked up in."""
    path = target if target.startswith(("http://", "https://")) else urlsplit(target).path
    text = path.partition("?")[0].partition("#")[0]
    parts = [unquote(part) for part in text.removeprefix("/").split("/")]
    scheme = parts[0] in ("http:", "https:")
    for number, part in enumerate(parts):
        empty = part == "" and number != len(parts) - 1 and not (scheme and number == 1)
        if empty or part in (".", "..") or re.search(r"[/\\\x00-\x1f\x7f]", part):
            raise Refused(400, "this is no path")
    return parts


def _plain(name: str) -> bool:
    """A file name, and not that of one of our own records."""
    return name != "" and not cache.is_ours(name)


def _date(text: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None


def _copy(source: BinaryIO, sink: Any, first: int, length: int) -> None:
    source.seek(first)
    if first == 0 and length == os.fstat(source.fileno()).st_size:
        shutil.copyfileobj(source, sink, 1 << 18)
        return
    while length and (chunk := source.read(min(length, 1 << 18))):
        sink.write(chunk)
        length -= len(chunk)


# --- the process -----------------------------------------------------------------------------------------------------------


def _held(lock: IO[str]) -> bool:
    """Hold the lock for good. Whoever looks whether we serve holds it for a moment, too, so once is not enough."""
    until = time.monotonic() + 1
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        else:
            return True


def main(directory: Path) -> int:
    """Serve until told to end (SIGTERM), until the directory or our lock in it is gone, or nobody asks for long."""
    with (directory / LOCK).open("a+") as lock:
        if not _held(lock):
            say("another server serves this lab")
            return 3
        config = Config(**json.loads((directory / CONFIG).read_text(encoding="utf-8")))
        try:
            server = Server(config, say)
        except (OSError, ValueError) as error:
            say(f"cannot serve on {config.bind}, port {config.port}: {error}")
            return 4
        threading.Thread(target=_watch, args=(server, directory / LOCK, os.fstat(lock.fileno())), daemon=True).start()
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        write_json(directory / STATE, {"pid": os.getpid(), "bind": config.bind, "port": server.server_port})
        say(f"serving {cache.root()} on {config.bind}, port {server.server_port}")
        with server:
            server.serve_forever(poll_interval=0.5)
        say("ended")
    return 0


def say(line: str) -> None:
    """A line of the log, which is our standard error."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {without_password(line)}\n")
    sys.stderr.flush()


def _watch(server: Server, lock: Path, mine: os.stat_result) -> None:
    while True:
        time.sleep(5)
        try:
            there = lock.stat().st_ino == mine.st_ino
        except OSError:
            there = False
        if not there or time.monotonic() - server.asked > IDLE_SECONDS:
            say("the lab is gone" if not there else "nobody asked for long")
            server.shutdown()
            return


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
