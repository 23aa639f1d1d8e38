"""Where packages and sources come from: whether each place answers, asked as pip, package manager and git are configured."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from stacklab import indexes
from stacklab.conditions.condition import Finding
from stacklab.deploy.prepare.internet import proxies
from stacklab.deploy.profile.model import DevStack
from stacklab.deploy.profile.settings import Settings
from stacklab.doctor import packages
from stacklab.doctor.probe import bad, good, unknown, warning
from stacklab.download import reason, without_login, without_password
from stacklab.machines.base import Finished, Machine
from stacklab.machines.local import LocalMachine
from stacklab.prefetch import mirrors

CONNECT_SECONDS, READ_SECONDS = 5.0, 10.0
GIT_SECONDS = 25
ASK_SECONDS = 50
ELSEWHERE = "deploy: mirrors: or pip_index: or proxy: in config.yaml names another way"

_ASK_PACKAGES = r"""
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
mkdir "$scratch/partial"
export LC_ALL=C
exec 2>&1
"""
_ASK_URL = r"""
if command -v curl >/dev/null; then
    printf 'url = "%s"\n' "$url" | curl -sS -o /dev/null -L -m 15 --connect-timeout 8 -w '%{http_code}' --config -
    exit
fi
if command -v python3 >/dev/null; then
    printf %s "$url" | python3 -c 'import sys, urllib.request as r; print(r.urlopen(sys.stdin.read(), timeout=10).status)'
    exit
fi
echo "neither curl nor python3 is there to ask with" >&2
exit 44
"""
_NOTHING_TO_ASK_WITH = (44, 127)
"""Or there is not even a shell."""


def session(settings: Settings) -> requests.Session:
    """What asks: with the user's certificates."""
    asking = requests.Session()
    if settings.ca_file:
        asking.verify = str(settings.ca_file)
    return asking


def ask(with_: requests.Session, url: str) -> requests.Response:
    """The headers of a page, its content not read. Raises requests.RequestException, also when the answer is an error."""
    # not from a cache on the way: the clock is compared with the answer's date
    headers = {"Accept": "text/html, application/json, */*", "Cache-Control": "no-cache", "Accept-Encoding": "identity"}
    with with_.get(url, headers=headers, timeout=(CONNECT_SECONDS, READ_SECONDS), stream=True) as answer:
        answer.raise_for_status()
        return answer


# --- Python packages -------------------------------------------------------------------------------------------------


def indexes_of_pip(settings: Settings) -> tuple[list[str], list[Path], requests.Session]:
    """The indexes and directories that pip on this host is configured with, and what asks them as it does."""
    options = indexes.for_both(os.environ, index=settings.pip_index, ca_file=settings.ca_file, at=settings.at)
    first = [] if options.get("PIP_NO_INDEX") else [options["PIP_INDEX_URL"]]
    asking = requests.Session()
    asking.verify = options.get("PIP_CERT", True)
    if proxy := options.get("PIP_PROXY"):
        asking.proxies = {"http": proxy, "https": proxy}
    places = [Path(place.removeprefix("file://")) for place in options.get("PIP_FIND_LINKS", "").split()]
    return [*first, *options.get("PIP_EXTRA_INDEX_URL", "").split()], [p for p in places if p.is_dir()], asking


def page(url: str) -> str:
    """The page of a project in an index."""
    return f"{url.rstrip('/')}/{packages.data()['python_project']}/"


def python_index(settings: Settings) -> Finding:
    """Every index that pip here is configured with. A file that is none is told: pip leaves it out, with a warning."""
    urls, places, asking = indexes_of_pip(settings)
    answering: list[str] = []
    silent: list[str] = []
    missing: list[str] = []
    for url in urls:
        shown = without_password(url)
        if urlsplit(url).scheme == "file":
            path = Path(unquote(urlsplit(url).path))
            (answering if path.is_dir() else missing).append(str(path))
            continue
        try:
            ask(asking, page(url))
        except requests.RequestException as error:
            status = error.response.status_code if error.response is not None else None
            # An extra index need not have the project; that it says so is an answer.
            if status not in (404, 410) or url == urls[0]:
                silent.append(f"{shown}: {reason(error)}")
                continue
        answering.append(shown)
    if silent:
        return bad("; ".join(silent), indexes.ADVICE)
    if not answering and not places:
        return bad(
            "pip is configured with no index that is there (PIP_NO_INDEX, or files that are missing)", indexes.ADVICE
        )
    names = ", ".join([*answering, *map(str, places)])
    if missing:
        return warning(f"{names}; not there: {', '.join(missing)}", "pip config list")
    return good(f"{names}: all there")


# --- the distribution's packages -------------------------------------------------------------------------------------


def distribution(machine: Machine, manager: str | None, user: str | None = None) -> Finding:
    """The registries of the machine's package manager, asked by itself."""
    if manager is None:
        return unknown("this machine has no package manager that lab knows", "install by hand what is missing above")
    command = packages.data()["managers"].get(manager, {}).get("ask")
    if command is None:
        advice = f"on {machine.name}: sudo {manager} makecache (or refresh), and read what it says"
        return unknown(f"{manager} cannot be asked without changing its lists", advice)
    done = machine.script(f"{_ASK_PACKAGES}\n{command}", user=user, seconds=ASK_SECONDS, check=False)
    return judged_answer(manager, done.status, done.out + done.err)


def judged_answer(of: str, status: int, output: str) -> Finding:
    """What a package manager answered. Its status alone says little: an older apt ends with 0 though nothing answered."""
    lines = [line.strip() for line in output.splitlines()]
    wrong = [line for line in lines if line.startswith(("Err:", "E:", "W: Failed", "Error:"))]
    if status or wrong:
        complaints = without_password("; ".join(wrong or [line for line in lines if line][-2:])[:400])
        return bad(f"{of}: {complaints or f'ended with status {status}'}", f"sudo {of} update")
    answered = sum(line.startswith(("Get:", "Hit:")) for line in lines)
    if of == "apt-get" and not answered:
        return bad("apt-get knows no registry: /etc/apt/sources.list and sources.list.d name none", "apt-cache policy")
    return good(f"{of}: {f'{answered} sources answer' if answered else 'its sources answer'}")


# --- DevStack's source -----------------------------------------------------------------------------------------------


def source_here(devstack: DevStack, settings: Settings) -> Finding:
    """DevStack's repository: prefetched, or its place answers and has the ref."""
    if prefetched := mirrors.commit(mirrors.mirror_path(devstack.repo), devstack.ref):
        return good(f"{devstack.ref} is prefetched ({prefetched[:12]})")
    ours = proxies(settings) | ({"GIT_SSL_CAINFO": str(settings.ca_file)} if settings.ca_file else {})
    return source(LocalMachine(), devstack, settings, ours)


def source(machine: Machine, devstack: DevStack, settings: Settings, ours: Mapping[str, str] | None = None) -> Finding:
    """DevStack's repository, asked for its ref by the machine's git. `ours`: what git needs in its environment for that."""
    url = settings.at(devstack.repo)
    shown = without_password(url)
    if not machine.run("git", "--version", check=False).ok:
        if url.startswith(("http://", "https://")):
            return answers(machine, f"{url.rstrip('/')}/info/refs?service=git-upload-pack", settings)
        return unknown(
            f"there is no git on {machine.name} to ask {shown} with", "lab up installs it on the lab's machine"
        )
    command, login = without_login("git", "ls-remote", "--", url, devstack.ref)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in {**(ours or {}), **login}.items()]
    # In the script's text, which nobody on the machine can read.
    text = "\n".join(["export GIT_TERMINAL_PROMPT=0", *exports, 'exec timeout "$@"'])
    done = machine.script(text, str(GIT_SECONDS), *command, seconds=60, check=False)
    if not done.ok:
        return _silent(shown, done, GIT_SECONDS, mirrors.complaint(done.err or done.out), settings, ours is None)
    if not done.out.strip():
        return bad(f"{shown} answers, but has no {devstack.ref}", ELSEWHERE)
    return good(f"{shown} answers and has {devstack.ref}")


def answers(machine: Machine, url: str, settings: Settings) -> Finding:
    """Whether an address answers the machine over HTTP."""
    shown = without_password(url)
    if not url.startswith(("http://", "https://")):
        return unknown(f"{shown} cannot be asked from {machine.name}")
    # The address, and an account in it, stand in the script's text, which nobody on the machine can read.
    done = machine.script(f"url={shlex.quote(url)}\n{_ASK_URL}", seconds=40, check=False)
    if done.status in _NOTHING_TO_ASK_WITH:
        return unknown(f"{shown}: {done.err.strip()}")
    code = done.out.strip()
    if done.ok and code.startswith("2"):
        return good(f"{shown} answers")
    last = next((line.strip() for line in reversed(done.err.splitlines()) if line.strip()), "")
    return _silent(shown, done, 15, f"the server answered {code}" if done.ok else last, settings, True)


def _silent(shown: str, done: Finished, seconds: int, complaint: str, settings: Settings, bare: bool) -> Finding:
    """What does not answer. `bare`: the machine has no certificates of ours yet."""
    if done.status == 124:  # timeout(1)
        complaint = f"no answer within {seconds} s"
    evidence = f"{shown}: {without_password(complaint) or f'status {done.status}'}"
    if bare and settings.ca_file and "certificate" in complaint.lower():
        return unknown(f"{evidence} (before lab up has put the certificates of ca_file there)")
    return bad(evidence, ELSEWHERE)
