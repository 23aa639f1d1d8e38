"""The process that serves the cache to a lab's machine: `python -m stacklab.prefetch.server DIRECTORY`. See `serving`.

It listens on a socket that only its user gets at, and keeps an ssh running that leads a port of the machine's loopback there.
So nobody else reads it, and nobody on the way puts anything else in its place.
"""

from __future__ import annotations

import json
import os
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
from typing import Any

from stacklab.cache import cache_root
from stacklab.files import locked, write_json

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
    # Of several values, ssh takes the first.
    options = ("-o", "ClearAllForwardings=no", "-o", "ExitOnForwardFailure=yes")
    return [program, *options, "-R", f"127.0.0.1:{port}:{socket}", *rest, "cat"]


def main(directory: Path) -> int:
    """Serve until told to end (SIGTERM), until the directory is gone, or nobody asks for long."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with (
        locked(directory / LOCK, wait=False) as mine,
        tempfile.TemporaryDirectory(
            prefix="lab-cache-", dir="/tmp"
        ) as private,  # a socket's path has at most 107 bytes
    ):
        if not mine:
            say("another server serves this lab")
            return 3
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        socket = Path(private) / "http"
        with CacheServer(str(socket), partial(Handler, directory=str(cache_root()))) as server:

            def over() -> bool:
                gone = not (directory / CONFIG).exists()
                return gone or ended.is_set() or time.monotonic() - server.asked > IDLE_SECONDS

            threading.Thread(target=server.serve_forever, daemon=True).start()
            write_json(directory / STATE, {"pid": os.getpid(), "port": config["port"]})
            command = forwarding(config["ssh"], config["port"], socket)
            while not over():
                with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as ssh:
                    while ssh.poll() is None and not over():
                        ended.wait(1)
                    ssh.terminate()
                if not over():
                    say(f"ssh ended with status {ssh.returncode}; again in {AGAIN_SECONDS} s")
                    ended.wait(AGAIN_SECONDS)
            server.shutdown()
        say("ended")
    return 0


def say(line: str) -> None:
    """A line of the log, which is our standard error."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
