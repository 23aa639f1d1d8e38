"""Bare git mirrors of what DevStack clones: only the wanted refs, with their whole history and the tags in it.

pbr derives versions from the tags, and a mirror with missing old objects fails the clone; so nothing is shallow. `git
update-server-info` lets a plain HTTP server serve them, also to git 1.8, at no cost for this machine's processors: the
client takes the packs as they are. (A client that wants a shallow clone, DevStack's GIT_DEPTH, needs a git server instead.)
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from stacklab.cache import cache_root
from stacklab.deploy.profile.settings import Settings
from stacklab.download import Unreachable, without_password
from stacklab.errors import DownloadFailed, LabError, MissingProgram, NotEnoughSpace
from stacklab.files import locked
from stacklab.git_login import without_login
from stacklab.prefetch.plan import FetchOutcome, Repository
from stacklab.stages import Progress

PACKS = 12
"""More packs than these are put into one: a plain HTTP client asks for the index of each."""

FETCH_SECONDS = 3600
STALL_SECONDS = 120
DETACHED = "refs/heads/lab"
"""The branch that HEAD points to where only tags are wanted: a clone of a repository without any branch is an empty one."""

ADVICE = (
    "look at the network, or name a mirror of it: deploy: mirrors: in config.yaml; the same command goes on from here"
)


def mirror_path(url: str) -> Path:
    """Where the mirror of a repository is kept, with and without `.git` at the end of its address."""
    parts = urlsplit(url)
    host = re.sub(r"[^A-Za-z0-9.-]", "_", parts.netloc.rpartition("@")[2]) or "local"
    names = [
        name for name in parts.path.removesuffix("/").removesuffix(".git").split("/") if name not in ("", ".", "..")
    ]
    if not names:
        raise DownloadFailed(f"{without_password(url)} names no repository", advice="see the profile's devstack.repo")
    return cache_root() / "git" / host / Path(*names[:-1]) / f"{names[-1]}.git"


def size_of(directory: Path) -> int:
    """Bytes of all files below a directory."""
    return sum((Path(folder) / name).lstat().st_size for folder, _, names in os.walk(directory) for name in names)


def fetch(repository: Repository, settings: Settings, progress: Progress) -> FetchOutcome:
    """Make the mirror, or bring it up to date. What failed is told in the outcome, so that the rest goes on."""
    path = mirror_path(repository.url)
    path.parent.mkdir(parents=True, exist_ok=True)
    label = f"{repository.name} {repository.ref}"
    try:
        with locked(path.with_name(f".{path.name}.lock"), wait=True):
            before = commit(path, repository.ref)
            _prepare(path)
            _clean(path)
            try:
                _fetch(path, settings.at(repository.url), repository.ref, progress)
            finally:
                _clean(path)
            _serve_ready(path)
            after = commit(path, repository.ref)
    except NotEnoughSpace:
        raise  # nothing that follows would fit either
    except LabError as error:
        have = commit(path, repository.ref)
        detail = f"{error.message}; the mirror of an earlier run is still there" if have else error.message
        return FetchOutcome("git", label, "failed", size_of(path) if path.exists() else 0, detail, error)
    size, short = size_of(path), (after or "")[:12]
    if before is None:
        return FetchOutcome("git", label, "fetched", size, short)
    if before != after:
        return FetchOutcome("git", label, "updated", size, f"{before[:12]} → {short}")
    return FetchOutcome("git", label, "already", size, short)


def commit(path: Path, ref: str) -> str | None:
    """The commit that a branch, tag or full ref of a mirror is at; None if it is not there."""
    if not (path / "HEAD").exists():
        return None
    for full in _candidates(ref):
        done = _git(path, "rev-parse", "--verify", "--quiet", f"{full}^{{commit}}", check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return None


def show(repository: Repository, file: str) -> str | None:
    """A file of a mirrored repository at its ref; None if there is none."""
    path = mirror_path(repository.url)
    at = commit(path, repository.ref)
    if at is None:
        return None
    done = _git(path, "show", f"{at}:{file}", check=False)
    return done.stdout if done.returncode == 0 else None


def mirrored() -> Iterator[tuple[Path, list[str], int]]:
    """Every mirror: where it is, its branches and heads, its size in bytes."""
    root = cache_root() / "git"
    for path in sorted(root.rglob("*.git")) if root.is_dir() else []:
        if (path / "HEAD").is_file():
            listed = _git(path, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/lab").stdout.split()
            if "lab" in listed:  # only tags were wanted
                listed += _git(path, "tag", "--points-at", "lab").stdout.split()
            if listed:  # else its first fetch was interrupted
                yield path, [name for name in listed if name != "lab"], size_of(path)


def _candidates(ref: str) -> list[str]:
    return [ref] if ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/lab/{ref}"]


def _prepare(path: Path) -> None:
    if not (path / "HEAD").exists():
        _git(path.parent, "init", "--quiet", "--bare", path.name)
    # Packs, never thousands of loose objects, each of which a plain HTTP client would have to ask for.
    for key, value in {"fetch.unpackLimit": "1", "transfer.unpackLimit": "1", "gc.auto": "0"}.items():
        _git(path, "config", key, value)


def _clean(path: Path) -> None:
    """git leaves what it had received when it was interrupted; it cannot go on with it."""
    for left in [*path.glob("objects/pack/tmp_*"), *path.glob("objects/tmp_*"), *path.glob("*.lock")]:
        if left.is_file():
            left.unlink(missing_ok=True)


def _fetch(path: Path, url: str, ref: str, progress: Progress) -> None:
    target, kind = _asked(path, url, ref)
    progress(f"{path.name.removesuffix('.git')} {ref}")
    spec = f"+{target}:{target if kind != 'commit' else f'refs/lab/{ref}'}"
    lines = _followed(path, ["fetch", "--progress", "--force", "--no-write-fetch-head", url, spec], progress)
    if lines is not None:
        raise _failure(url, lines)
    if kind == "branch":
        _git(path, "symbolic-ref", "HEAD", target)
    elif not _git(path, "rev-parse", "--verify", "--quiet", "HEAD", check=False).stdout:
        _git(path, "update-ref", DETACHED, f"{spec.rpartition(':')[2]}^{{commit}}")
        _git(path, "symbolic-ref", "HEAD", DETACHED)


def _asked(path: Path, url: str, ref: str) -> tuple[str, str]:
    """The full ref that a name means there, and its kind: branch, tag, ref, commit."""
    if re.fullmatch(r"[0-9a-f]{40}", ref):
        return ref, "commit"
    done = _git(path, "ls-remote", url, *_candidates(ref)[:2], check=False, seconds=STALL_SECONDS)
    if done.returncode != 0:
        raise _failure(url, done.stderr.splitlines())
    there = {line.split("\t")[1] for line in done.stdout.splitlines() if "\t" in line}
    for full in _candidates(ref)[:2]:
        if full in there:
            kind = "branch" if full.startswith("refs/heads/") else "tag" if full.startswith("refs/tags/") else "ref"
            return full, kind
    raise DownloadFailed(
        f"{without_password(url)} has no branch or tag '{ref}'",
        advice="see the profile's refs: old branches become tags",
    )


def _serve_ready(path: Path) -> None:
    if len(list((path / "objects" / "pack").glob("*.pack"))) > PACKS:
        _git(path, "repack", "--quiet", "-a", "-d", seconds=FETCH_SECONDS)
    _git(path, "pack-refs", "--all")
    _git(path, "update-server-info")


def complaint(text: str) -> str:
    """What git complains of, in one line. Its last line alone is the end of some advice, or the opposite of what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    complaints = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ssh:"))]
    # That is only what follows from the line before it.
    causes = [line for line in complaints if not line.startswith("fatal: Could not read from remote")]
    return without_password("; ".join(dict.fromkeys(causes or complaints or lines[-1:])))


def _failure(url: str, lines: list[str]) -> LabError:
    output = "\n".join(lines)
    if "No space left on device" in output:
        full = f"no space left to mirror {without_password(url)}"
        return NotEnoughSpace(full, advice="free some space and run the same command again")
    why = complaint(output) or "git said nothing"
    return Unreachable(f"{without_password(url)} could not be mirrored: {why}", advice=ADVICE)


def _environment() -> dict[str, str]:
    ours = ("GIT_SSL", "GIT_SSH")  # what the user's network needs; the rest (GIT_DIR …) would lead git elsewhere
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(ours)}
    return clean | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}  # never ask for an account: nobody may be there


def _git(path: Path, *arguments: str, check: bool = True, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    command, login = without_login("git", *arguments)
    try:
        done = subprocess.run(
            command, cwd=path, env=_environment() | login, capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=seconds, check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise MissingProgram("git is not installed", advice="install it: apt install git, dnf install git") from error
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"git {arguments[0]} did not end within {seconds:.0f} s", advice=ADVICE) from error
    if check and done.returncode != 0:
        raise _failure(str(path), done.stderr.splitlines())
    return done


def _followed(path: Path, arguments: list[str], progress: Progress) -> list[str] | None:
    """Run git and pass on how far it is; the last lines it said if it failed, else None.

    It gives a connection up by itself that brings nothing for STALL_SECONDS; after FETCH_SECONDS it is ended.
    """
    patience = ["-c", "http.lowSpeedLimit=100", "-c", f"http.lowSpeedTime={STALL_SECONDS}"]
    last: deque[str] = deque(maxlen=20)
    reported = time.monotonic()
    command, login = without_login("git", *patience, *arguments)
    with subprocess.Popen(
        command, cwd=path, env=_environment() | login, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
    ) as process:  # fmt: skip
        limit = threading.Timer(FETCH_SECONDS, process.terminate)
        limit.start()
        try:
            for line in process.stderr or ():  # lines of progress, which end in a carriage return, are lines, too
                if line.strip():
                    last.append(line.strip())
                if line.strip() and time.monotonic() - reported > 1:  # there are hundreds of them
                    reported = time.monotonic()
                    progress(f"{path.name.removesuffix('.git')}: {line.strip()}")
            status = process.wait()
        finally:
            limit.cancel()
            process.terminate()
    return None if status == 0 else list(last)
