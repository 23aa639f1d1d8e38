"""Bare git mirrors of what DevStack clones: only the refs that it needs, with their whole history and the tags in it.

pbr derives versions from the tags, and a mirror with missing old objects fails the clone; so nothing is shallow. `git
update-server-info` lets a plain HTTP server serve them, also to git 1.8, at no cost for this machine's processors: the
client takes the packs as they are. (A client that wants a shallow clone, DevStack's GIT_DEPTH, needs a git server instead.)
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from stacklab.cache import cache_root
from stacklab.deploy.profile.settings import Settings
from stacklab.download import Unreachable, without_login, without_password
from stacklab.errors import DownloadFailed, MissingProgram, NotEnoughSpace
from stacklab.files import locked
from stacklab.prefetch.plan import FetchOutcome, Repository
from stacklab.stages import Progress

PACKS = 12
"""More packs than these are put into one: a plain HTTP client asks for the index of each."""
FETCH_SECONDS = 3600
STALL_SECONDS = 120
DETACHED = "refs/heads/lab"
"""The branch that HEAD points to where only a tag was fetched: a clone of a repository without any branch is an empty one."""
ADVICE = (
    "look at the network, or name a mirror of it: deploy: mirrors: in config.yaml; the same command goes on from here"
)


def mirror_path(url: str) -> Path:
    """Where the mirror of a repository is, with and without `.git` at the end of its address."""
    parts = urlsplit(url)
    host = re.sub(r"[^A-Za-z0-9.-]", "_", parts.netloc.rpartition("@")[2]) or "local"
    names = [
        name for name in parts.path.removesuffix("/").removesuffix(".git").split("/") if name not in ("", ".", "..")
    ]
    if not names:
        raise DownloadFailed(f"{without_password(url)} names no repository", advice="see the profile's devstack.repo")
    return cache_root() / "git" / host / Path(*names[:-1]) / f"{names[-1]}.git"


def fetch(repository: Repository, settings: Settings, progress: Progress) -> FetchOutcome:
    """Make the mirror, or bring it up to date. Raises MissingProgram, DownloadFailed, NotEnoughSpace."""
    path, ref = mirror_path(repository.url), repository.ref
    label = f"{repository.name} {ref}"
    progress(label)
    with locked(path.with_name(f".{path.name}.lock"), wait=True):
        before = commit(path, ref)
        _prepare(path)
        _fetch(path, settings.at(repository.url), ref)
        after = commit(path, ref)
    size, short = _size(path), (after or "")[:12]
    if before is None:
        return FetchOutcome("git", label, "fetched", size, short)
    if before == after:
        return FetchOutcome("git", label, "already", size, short)
    return FetchOutcome("git", label, "updated", size, f"{before[:12]} → {short}")


def commit(path: Path, ref: str) -> str | None:
    """The commit that a branch, tag or full ref of a mirror is at; None if it is not there."""
    for full in _full(ref) if (path / "HEAD").exists() else []:
        done = _git(path, "rev-parse", "--verify", "--quiet", f"{full}^{{commit}}", check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return None


def show(repository: Repository, file: str) -> str | None:
    """A file of a mirrored repository at its ref; None if there is none."""
    path = mirror_path(repository.url)
    at = commit(path, repository.ref)
    done = _git(path, "show", f"{at}:{file}", check=False) if at else None
    return done.stdout if done and done.returncode == 0 else None


def _size(directory: Path) -> int:
    return sum((Path(folder) / name).lstat().st_size for folder, _, names in os.walk(directory) for name in names)


def _full(ref: str) -> list[str]:
    """What a name may stand for. A commit is one by its name, once it is there."""
    if ref.startswith("refs/") or re.fullmatch(r"[0-9a-f]{40}", ref):
        return [ref]
    return [f"refs/heads/{ref}", f"refs/tags/{ref}"]


def _prepare(path: Path) -> None:
    """An empty mirror, or what an interrupted git left of one: git cannot go on with what it had received."""
    if not (path / "HEAD").exists():
        _git(path.parent, "init", "--quiet", "--bare", path.name)
    # Packs, never thousands of loose objects, each of which a plain HTTP client would have to ask for.
    for key, value in {"fetch.unpackLimit": "1", "transfer.unpackLimit": "1", "gc.auto": "0"}.items():
        _git(path, "config", key, value)
    for left in [*path.glob("objects/pack/tmp_*"), *path.glob("objects/tmp_*"), *path.glob("*.lock")]:
        if left.is_file():
            left.unlink(missing_ok=True)


def _fetch(path: Path, url: str, ref: str) -> None:
    """Fetch the ref and the tags in its history, and let a plain HTTP server serve them."""
    full = _full(ref)
    if len(full) > 1:
        listed = _git(path, "ls-remote", url, *full, what=url, seconds=STALL_SECONDS).stdout
        full = [name for name in full if f"\t{name}\n" in listed]
    if not full:
        raise DownloadFailed(
            f"{without_password(url)} has no branch or tag '{ref}'",
            advice="see the profile's refs: old branches become tags",
        )
    target = full[0] if full[0].startswith("refs/") else DETACHED
    # git gives a connection up by itself that brings nothing for so long.
    stall = ("-c", "http.lowSpeedLimit=100", "-c", f"http.lowSpeedTime={STALL_SECONDS}")
    words = ("fetch", "--quiet", "--force", "--no-write-fetch-head", url, f"+{full[0]}:{target}")
    _git(path, *stall, *words, what=url, seconds=FETCH_SECONDS)
    if target.startswith("refs/heads/"):
        _git(path, "symbolic-ref", "HEAD", target)
    elif _git(path, "rev-parse", "--verify", "--quiet", "HEAD", check=False).returncode != 0:
        _git(path, "update-ref", DETACHED, f"{target}^{{commit}}")
        _git(path, "symbolic-ref", "HEAD", DETACHED)
    if len(list((path / "objects" / "pack").glob("*.pack"))) > PACKS:
        _git(path, "repack", "--quiet", "-a", "-d", seconds=FETCH_SECONDS)
    _git(path, "pack-refs", "--all")
    _git(path, "update-server-info")


def _git(
    path: Path, *arguments: str, check: bool = True, what: str = "", seconds: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run git in a mirror. `what`: the address that it reaches, for messages.

    Raises MissingProgram, Unreachable, NotEnoughSpace.
    """
    command, login = without_login("git", *arguments)
    passed = ("GIT_SSL", "GIT_SSH")  # what the user's network needs; the rest (GIT_DIR …) would lead git elsewhere
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(passed)
    }
    # Never ask for an account: nobody may be there.
    environment = clean | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"} | login
    what = without_password(what) or str(path)
    try:
        done = subprocess.run(
            command, cwd=path, env=environment, capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=seconds, check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise MissingProgram("git is not installed", advice="install it: apt install git, dnf install git") from error
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"{what} could not be mirrored within {seconds:.0f} s", advice=ADVICE) from error
    if check and done.returncode != 0:
        if "No space left on device" in done.stderr:
            advice = "free some space and run the same command again"
            raise NotEnoughSpace(f"no space left to mirror {what}", advice=advice)
        why = complaint(done.stderr) or "git said nothing"
        raise Unreachable(f"{what} could not be mirrored: {why}", advice=ADVICE)
    return done


def complaint(text: str) -> str:
    """What git complains of, in one line. Its last line alone is the end of some advice, or the opposite of what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    complaints = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ssh:"))]
    # That is only what follows from the line before it.
    causes = [line for line in complaints if not line.startswith("fatal: Could not read from remote")]
    return without_password("; ".join(dict.fromkeys(causes or complaints or lines[-1:])))
