"""The process that serves the cache to a lab's machine: `python -m stacklab.prefetch.server DIRECTORY`. See `serving`.

It listens on a socket that only its user gets at, and keeps an ssh running that leads a port of the machine's loopback there.
So nobody else reads it, and nobody on the way puts anything else in its place.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import IO, Any

from stacklab.cache import cache_root
from stacklab.files import write_json

IDLE_SECONDS = 12 * 3600
"""After so long without a question the run is over, and nobody was left to end us."""
QUIET_SECONDS = 120
"""A connection that says nothing for so long is closed."""
AGAIN_SECONDS = 3
"""The pause before a lost connection is made again: the machine may be restarting."""

LOCK, CONFIG, STATE = "server.lock", "server.json", "serving.json"


class Handler(SimpleHTTPRequestHandler):
    """Files and lists of files, to be read: git's "dumb" protocol and pip's simple index need no more."""

    server: CacheServer
    protocol_version = "HTTP/1.1"
    timeout = QUIET_SECONDS

    def address_string(self) -> str:
        """A socket of this kind has no address."""
        return "machine"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        self.server.asked = time.monotonic()
        say(format % args)


class CacheServer(ThreadingMixIn, UnixStreamServer):
    """Serves one lab's machine. `asked`: when it was asked last."""

    daemon_threads = True
    asked = time.monotonic()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line: a machine that goes away while it is served is no defect."""
        say(f"{type(sys.exception()).__name__}: {sys.exception()}")


def forwarding(ssh: list[str], port: int, socket: Path) -> list[str]:
    """The ssh that leads the machine's port to our socket. `ssh`: what logs in there; it ends when its input does."""
    program, *rest = ssh
    options = {"ClearAllForwardings": "no", "ExitOnForwardFailure": "yes"}  # of several values, ssh takes the first
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return [program, *words, "-R", f"127.0.0.1:{port}:{socket}", *rest, "cat"]


def main(directory: Path) -> int:
    """Serve until told to end (SIGTERM), until the directory or our lock in it is gone, or nobody asks for long."""
    with (directory / LOCK).open("a+") as lock:
        if not _held(lock):
            say("another server serves this lab")
            return 3
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        private = Path(tempfile.mkdtemp(prefix="lab-cache-", dir="/tmp"))  # a socket's path has at most 107 bytes
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        mine = os.fstat(lock.fileno()).st_ino

        def over(server: CacheServer) -> bool:
            try:
                gone = (directory / LOCK).stat().st_ino != mine
            except OSError:
                gone = True
            return gone or ended.is_set() or time.monotonic() - server.asked > IDLE_SECONDS

        try:
            with CacheServer(str(private / "http"), partial(Handler, directory=str(cache_root()))) as server:
                threading.Thread(target=server.serve_forever, daemon=True).start()
                write_json(directory / STATE, {"pid": os.getpid(), "port": config["port"]})
                command = forwarding(config["ssh"], config["port"], private / "http")
                while not over(server):
                    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as ssh:
                        while ssh.poll() is None and not over(server):
                            ended.wait(1)
                        ssh.terminate()
                    if not over(server):
                        say(f"ssh ended with status {ssh.returncode}; again in {AGAIN_SECONDS} s")
                        ended.wait(AGAIN_SECONDS)
                server.shutdown()
        finally:
            shutil.rmtree(private, ignore_errors=True)
        say("ended")
    return 0


def _held(lock: IO[str]) -> bool:
    """Hold the lock for good. Whoever looks whether we serve holds it for a moment, too, so once is not enough."""
    deadline = time.monotonic() + 1
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        else:
            return True


def say(line: str) -> None:
    """A line of the log, which is our standard error."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
