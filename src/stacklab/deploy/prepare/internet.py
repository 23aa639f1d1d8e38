"""How a machine reaches the internet: the proxy, and where its pip finds packages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from stacklab import indexes
from stacklab.deploy.profile.settings import Settings


def proxies(settings: Settings, *own: str) -> dict[str, str]:
    """The environment of a program on the machine that is to reach the internet; `own`: the machine's addresses."""
    if not settings.proxy:
        return {}
    both = {"http_proxy": settings.proxy, "https_proxy": settings.proxy}
    # The machine's own services must never be asked through a proxy.
    spared = ",".join(["localhost", "127.0.0.1", *own, *settings.no_proxy])
    return {**both, "no_proxy": spared}


def pip_settings(settings: Settings, environment: Mapping[str, str], bundle: str) -> dict[str, str]:
    """What the machine's pip is told, by option: where packages come from on this host, as far as that holds elsewhere.

    A file on this host or a server on its loopback is nothing to the machine. `bundle`: the machine's certificates, named when
    an address is https, because pip brings its own that know of no company.
    """
    told = indexes.told_to_pip(environment)
    index = settings.pip_index or told.get("index-url")
    found: dict[str, str] = {}
    if index and not _only_here(index):
        found["index-url"] = index
    if not settings.pip_index:
        extra = [url for url in told.get("extra-index-url", "").split() if not _only_here(url)]
        if extra:
            found["extra-index-url"] = " ".join(extra)
        if told.get("trusted-host"):
            found["trusted-host"] = " ".join(told["trusted-host"].split())
    elif settings.pip_index.startswith("http://"):
        found["trusted-host"] = urlsplit(settings.pip_index).hostname or ""  # else pip refuses it: it is not https
    if settings.ca_file and bundle:
        found["cert"] = bundle
    if found:
        found["timeout"] = "60"
    return found


def _only_here(url: str) -> bool:
    return bool(re.match(r"(file:|/|\w+://([^/@]*@)?(localhost|127\.|\[::1\]))", url))
