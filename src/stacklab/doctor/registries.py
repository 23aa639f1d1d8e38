"""Where packages and sources come from: whether each place answers, asked as pip, package manager and git are configured."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
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
from stacklab.prefetch import mirrors

CONNECT_SECONDS, READ_SECONDS = 5.0, 10.0
GIT_SECONDS = 25.0
ASK_SECONDS = 50.0


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
            if status in (404, 410) and url != urls[0]:
                answering.append(shown)
            else:
                silent.append(f"{shown}: {reason(error)}")
        else:
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


def distribution() -> Finding:
    """The registries of this machine's package manager, asked by itself."""
    of = packages.manager()
    if of is None:
        return unknown("this machine has no package manager that lab knows", "install by hand what is missing above")
    with tempfile.TemporaryDirectory(prefix="lab-doctor-") as scratch:
        (Path(scratch) / "partial").mkdir()
        command = packages.asking(of, scratch)
        if command is None:
            return unknown(
                f"{of} cannot be asked without changing its lists", f"sudo {of} refresh, and read what it says"
            )
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=ASK_SECONDS, stdin=subprocess.DEVNULL, check=False,
                env={**os.environ, "LC_ALL": "C"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return bad(f"{of}: its registries did not answer within {ASK_SECONDS:.0f} s", f"sudo {of} update")
    return judged_answer(of, done.returncode, f"{done.stdout}\n{done.stderr}")


def judged_answer(of: str, status: int, output: str) -> Finding:
    """What a package manager answered. Its status alone says little: an older apt ends with 0 though nothing answered."""
    lines = [line.strip() for line in output.splitlines()]
    wrong = [line for line in lines if line.startswith(("Err:", "E:", "W: Failed", "Error:"))]
    if status or wrong:
        complaints = wrong or [line for line in lines if line][-2:]
        return bad(
            f"{of}: {without_password('; '.join(complaints)[:400]) or f'ended with status {status}'}",
            f"sudo {of} update",
        )
    answered = sum(line.startswith(("Get:", "Hit:")) for line in lines)
    if of == "apt-get" and not answered:
        return bad("apt-get knows no registry: /etc/apt/sources.list and sources.list.d name none", "apt-cache policy")
    return good(f"{of}: {f'{answered} sources answer' if answered else 'its sources answer'}")


def source(wanted: DevStack, settings: Settings, environment: Mapping[str, str] | None = None) -> Finding:
    """DevStack's repository: prefetched, or its place answers and has the ref."""
    if kept := mirrors.commit(mirrors.mirror_path(wanted.repo), wanted.ref):
        return good(f"{wanted.ref} is prefetched ({kept[:12]})")
    if shutil.which("git") is None:
        return unknown("there is no git here to ask with", "install git")
    url = settings.at(wanted.repo)
    shown = without_password(url)
    ours = {**(os.environ if environment is None else environment), **proxies(settings), "GIT_TERMINAL_PROMPT": "0"}
    if settings.ca_file:
        ours["GIT_SSL_CAINFO"] = str(settings.ca_file)
    elsewhere = f"deploy: mirrors: {{'{wanted.repo}': 'https://…'}} in config.yaml names another place"
    command, login = without_login("git", "ls-remote", "--", url, wanted.ref)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_SECONDS,
            stdin=subprocess.DEVNULL, env=ours | login, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return bad(f"{shown} did not answer within {GIT_SECONDS:.0f} s", elsewhere)
    if done.returncode:
        return bad(
            f"{shown}: {mirrors.complaint(done.stderr) or f'git ended with status {done.returncode}'}", elsewhere
        )
    if not done.stdout.strip():
        return bad(f"{shown} answers, but has no {wanted.ref}", elsewhere)
    return good(f"{shown} answers and has {wanted.ref}")
