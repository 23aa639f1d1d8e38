"""How a machine reaches the internet: the proxy, where its pip finds packages, and the accounts that either asks for.

An account with its password never stands in an argument, which everybody on the machine can read and sudo logs: the proxy is in
a file of root's, accounts of mirrors are in ~/.netrc (0600), which git, pip, wget and curl read, and addresses go without them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote, urlsplit

from stacklab import indexes
from stacklab.deploy.profile.settings import Settings
from stacklab.deploy.stack.detached import ENVIRONMENT
from stacklab.errors import ProfileInvalid
from stacklab.machines.base import Finished, Machine

HEADER = "# Written by lab, down to the end of the file."
_ACCOUNT = re.compile(r"\b((?:https?|ftp)://)[^/@\s]*@")
_NETRC_WORD = re.compile(r"""[^\s"'\\#]+""")

_THROUGH_PROXY = r"""
account=$1 environment=$2
shift 2
if [ -r "$environment" ]; then set -a; . "$environment"; set +a; fi
if [ "$account" = root ]; then exec "$@" </dev/null; fi
HOME=$(getent passwd "$account" | cut -d: -f6)
export HOME
cd /
exec runuser -u "$account" -- "$@" </dev/null
"""


def proxies(settings: Settings, *own: str) -> dict[str, str]:
    """The environment of a program that is to reach the internet; `own`: the machine's addresses. Never for an argument."""
    if not settings.proxy:
        return {}
    both = {"http_proxy": settings.proxy, "https_proxy": settings.proxy}
    # The machine's own services must never be asked through a proxy.
    spared = ",".join(["localhost", "127.0.0.1", *own, *settings.no_proxy])
    return {**both, "no_proxy": spared}


def run_through_proxy(machine: Machine, *command: str, user: str, seconds: float) -> Finished:
    """Run a program in the environment that the stage `proxy` has put on the machine, as root or another account."""
    return machine.script(_THROUGH_PROXY, user, ENVIRONMENT, *command, user="root", seconds=seconds, check=False)


def without_account(text: str) -> str:
    """`text` with every http address in it as it may stand in arguments and files that all can read."""
    return _ACCOUNT.sub(r"\1", text)


def accounts(addresses: Iterable[str]) -> str:
    """The accounts in these addresses, as lines of ~/.netrc. Raises ProfileInvalid, which shows no password."""
    lines: dict[str, str] = {}
    for url in addresses:
        if not _ACCOUNT.match(url):
            continue
        parts = urlsplit(url)
        words = [unquote(parts.username or ""), unquote(parts.password or "")]
        line = f"machine {parts.hostname} login {words[0]} password {words[1]}"
        if not all(_NETRC_WORD.fullmatch(word) for word in words):
            raise ProfileInvalid(
                f"the account or the password for {without_account(url)} is empty, or cannot stand in ~/.netrc",
                advice="write it as https://ACCOUNT:PASSWORD@HOST/, without blanks, quotes, '#' and backslashes",
            )
        if lines.setdefault(parts.hostname or "", line) != line:
            raise ProfileInvalid(
                f"the configuration has two accounts for {parts.hostname}, and ~/.netrc can hold one",
                advice="use one account for all that is there",
            )
    return "".join(f"{line}\n" for line in lines.values())


def pip_settings(settings: Settings, environment: Mapping[str, str], bundle: str) -> dict[str, str]:
    """What the machine's pip is told, by option: where packages come from on this host, as far as that holds elsewhere.

    A file on this host or a server on its loopback is nothing to the machine. `bundle`: the machine's certificates, named when
    an address is https, because pip brings its own that know of no company.
    """
    configured = {} if settings.pip_index else indexes.told_to_pip(environment)
    index = _elsewhere([settings.pip_index or configured.get("index-url", "")])
    extra, trusted = (
        _elsewhere(configured.get("extra-index-url", "").split()),
        configured.get("trusted-host", "").split(),
    )
    if settings.pip_index and settings.pip_index.startswith("http://"):
        trusted = [urlsplit(settings.pip_index).hostname or ""]  # else pip refuses it: it is not https
    if settings.pip_first:
        # of one version in both, pip takes the file of the index that it is told first
        index, extra = [settings.pip_first], [*(index or [indexes.pips_own()]), *extra]
    values = {"index-url": index, "extra-index-url": extra, "trusted-host": trusted}
    options = {name: " ".join(words) for name, words in values.items() if words}
    if settings.ca_file and bundle:
        options["cert"] = bundle
    return options | ({"timeout": "60"} if options else {})


def _elsewhere(urls: Iterable[str]) -> list[str]:
    """Those that mean something to another machine."""
    here = re.compile(r"(file:|/|\w+://([^/@]*@)?(localhost|127\.|\[::1\]))")
    return [url for url in urls if url and not here.match(url)]
