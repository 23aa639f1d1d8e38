"""Talking to a running QEMU: one short connection per conversation, over a unix socket in the guest's directory."""

import collections
import contextlib
import json
import os
import socket
import threading
import time


class QmpError(Exception):
    """QEMU does not answer, or answered with an error (then `kind` is its class, "" otherwise)."""

    def __init__(self, message, kind=""):
        super().__init__(message)
        self.kind = kind


# QEMU serves one client of a socket at a time; a second one would wait in silence.
_locks = collections.defaultdict(threading.RLock)


class Conversation:
    """Commands to one QEMU, in order."""

    def __init__(self, connection, deadline):
        self.connection = connection
        self.deadline = deadline
        self.pending = b""

    def _line(self):
        while b"\n" not in self.pending:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise QmpError("QEMU did not answer in time")
            self.connection.settimeout(left)
            piece = self.connection.recv(65536)
            if not piece:
                raise QmpError("QEMU closed the connection")
            self.pending += piece
        line, self.pending = self.pending.split(b"\n", 1)
        return json.loads(line)

    def run(self, command, **arguments):
        """The command's return value. Events in between are passed over."""
        request = {"execute": command}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.connection.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = self._line()
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error']['desc']}", answer["error"]["class"])
            if "return" in answer:
                return answer["return"]

    def greet(self):
        self._line()
        self.run("qmp_capabilities")


@contextlib.contextmanager
def conversation(directory, timeout=15):
    """Commands to the QEMU whose socket is `qmp` in `directory`. Raises QmpError.

    The path of a unix socket is limited to 108 bytes, so the way leads through an open directory.
    """
    with _locks[str(directory)], contextlib.ExitStack() as stack:
        try:
            folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            connection.settimeout(timeout)
            connection.connect(f"/proc/self/fd/{folder}/qmp")
            talk = Conversation(connection, time.monotonic() + timeout)
            talk.greet()
            yield talk
        except OSError as error:
            raise QmpError(f"QEMU does not answer: {error}") from error


def ask(directory, command, timeout=15, **arguments):
    """One command and its return value."""
    with conversation(directory, timeout) as talk:
        return talk.run(command, **arguments)
