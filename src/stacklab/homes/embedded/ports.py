"""The ports of a cloud: chosen free, remembered, and replaced when somebody else took one meanwhile."""

from __future__ import annotations

import errno
import random
import socket
import time
from collections.abc import Callable, Iterable

# Below the range that Linux hands to outgoing connections (32768 and up), above what distributions assign.
LOWEST, HIGHEST = 20000, 31999


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


def choose(
    names: Iterable[str], remembered: dict[str, int], free: Callable[[int], bool] = is_free
) -> tuple[dict[str, int], list[str]]:
    """A free port for each name, the remembered one where it is still free; and the names whose port had to change."""
    chosen: dict[str, int] = {}
    replaced = []
    for name in names:
        port = remembered.get(name)
        if port is None or port in chosen.values() or not free(port):
            if port is not None:
                replaced.append(name)
            port = _another({*chosen.values(), *remembered.values()}, free)
        chosen[name] = port
    return chosen, replaced


def choose_patiently(
    names: Iterable[str], remembered: dict[str, int], seconds: float = 2
) -> tuple[dict[str, int], list[str]]:
    """`choose`, but a port that a dying process of ours still holds is waited for, not given up."""
    deadline = time.monotonic() + seconds
    names = list(names)
    while True:
        chosen, replaced = choose(names, remembered)
        if not replaced or time.monotonic() > deadline:
            return chosen, replaced
        time.sleep(0.1)


def _another(avoid: set[int], free: Callable[[int], bool]) -> int:
    candidates = list(range(LOWEST, HIGHEST + 1))
    random.shuffle(candidates)
    for port in candidates:
        if port not in avoid and free(port):
            return port
    raise OSError(errno.EADDRINUSE, f"no free port between {LOWEST} and {HIGHEST}")
