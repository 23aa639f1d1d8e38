"""Clouds on this machine and in its own networks are reached past the proxy that is meant for the internet."""

from __future__ import annotations

import os

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def past_the_proxy(*hosts: str) -> None:
    """Where the environment names a proxy, except these hosts from it; for this process and those that it starts.

    Both spellings of no_proxy are set: programs differ in which one they look at first.
    """
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXIES):
        return
    known = [part.strip() for part in no_proxy().split(",") if part.strip()]
    if "*" not in known:
        known += [host for host in hosts if host not in known]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(known)


def no_proxy() -> str:
    """The hosts that the environment excepts from its proxy, as it writes them."""
    return os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
