"""A unix socket that takes one JSON request a connection and answers with one JSON line.

Socket paths are limited to 108 bytes, so both sides go through the directory: the server binds a relative name, the
client connects by way of /proc/self/fd.
"""

import json
import os
import socket
import threading
from pathlib import Path


def bind(path, backlog=16):
    """A listening socket at `path`, which may be longer than a socket address can say; for this user alone."""
    path = Path(path)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chdir(path.parent)
        listener.bind(path.name)
        os.chmod(path.name, 0o600)  # noqa: PTH101 - before anybody is let in: nobody listens yet
    finally:
        os.fchdir(here)
        os.close(here)
    listener.listen(backlog)
    return listener


def connect(client, path):
    """Connect a unix socket to the one at `path`, however long that is."""
    path = Path(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        client.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def answer(connection, handle):
    """Read one request, answer it with what `handle` returns, or with the error it raised."""
    with connection:
        connection.settimeout(5)
        request = json.loads(read_line(connection))
        connection.settimeout(None)
        try:
            reply = {"ok": True, **(handle(request) or {})}
        except Exception as error:  # noqa: BLE001 - whatever went wrong is the answer; the caller decides
            reply = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        connection.sendall(json.dumps(reply).encode() + b"\n")


def read_line(connection):
    data = b""
    while not data.endswith(b"\n"):
        piece = connection.recv(65536)
        if not piece:
            break
        data += piece
    return data


def serve_in_thread(path, handle):
    """Answer requests at `path` for as long as this process lives (a green thread where eventlet rules)."""
    listener = bind(path)

    def loop():
        while True:
            connection, _ = listener.accept()
            try:
                answer(connection, handle)
            except (OSError, ValueError):
                connection.close()  # a client that went away, or talked nonsense, is no reason to stop

    threading.Thread(target=loop, name="control", daemon=True).start()
