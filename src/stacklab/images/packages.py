"""The distribution's packages, fetched and unpacked by an ordinary user; nothing is installed on the system."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from stacklab.errors import DownloadFailed, MissingProgram
from stacklab.stages import Progress

ADVICE = "give an image yourself: --image PATH|URL"
SYSTEM_LISTS = Path("/var/lib/apt/lists")


class Packages:
    """apt and dpkg-deb, working under `directory`."""

    def __init__(self, directory: Path, progress: Progress) -> None:
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise MissingProgram(
                    f"an image cannot be built here: {program} is missing (this needs Debian's packages)", advice=ADVICE
                )
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.progress = progress
        # As root apt would hand the download to a user who may not write into our directory.
        self.options = ["-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20"]
        self._use_lists()

    def _use_lists(self) -> None:
        """The system's package lists where it has some, else lists of our own, which need no root either."""
        if any(SYSTEM_LISTS.glob("*_Packages*")):
            return
        state, cache = self.directory / "state", self.directory / "cache"
        (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        # dpkg's own status stays the system's: nothing is installed through these lists.
        self.options += [
            "-o", f"Dir::State={state}", "-o", f"Dir::Cache={cache}", "-o", "Dir::State::status=/var/lib/dpkg/status",
        ]  # fmt: skip
        self.progress("fetching package lists (this machine has none)")
        self._run("apt-get", "update", "-qq")

    def _run(self, program: str, *arguments: str, at: Path | None = None) -> str:
        done = subprocess.run(
            [program, *self.options, *arguments],
            cwd=at or self.directory,
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if done.returncode != 0:
            complaint = " ".join(done.stderr.split())[-400:]
            raise DownloadFailed(f"{program} {arguments[0]} failed: {complaint}", advice=ADVICE)
        return done.stdout

    def closure(self, names: Iterable[str], follow: str, skip: str) -> list[str]:
        """`names` and those of their dependencies whose name matches `follow` and not `skip`, sorted.

        A metapackage's own dependency (the kernel) is found like this too.
        """
        needed, todo = set(names), list(names)
        while todo:
            text = self._run("apt-cache", "depends", "--important", "--no-recommends", *sorted(todo))
            others = set(re.findall(r"^\s+(?:Pre)?Depends: ([^<\s]\S*)$", text, re.MULTILINE)) - needed
            todo = [name for name in others if re.search(follow, name) and not re.search(skip, name)]
            needed |= set(todo)
        return sorted(needed)

    def fetch(self, names: Iterable[str], into: Path) -> list[str]:
        """Download packages and unpack them into `into`; returns their file names (name, version, architecture)."""
        folder = self.directory / f"debs-{into.name}"
        folder.mkdir(parents=True, exist_ok=True)
        into.mkdir(parents=True, exist_ok=True)
        self._run("apt-get", "download", "-qq", *names, at=folder)
        files = sorted(folder.glob("*.deb"))
        for file in files:
            subprocess.run(["dpkg-deb", "-x", str(file), str(into)], check=True, capture_output=True, timeout=120)
        return [file.name for file in files]


def distribution() -> tuple[str, str]:
    """(id, version) of this machine's distribution; a derivative answers with the id that it says it is like."""
    try:
        values = platform.freedesktop_os_release()
    except OSError:
        return "unknown", ""
    alike = [values["ID"], *values.get("ID_LIKE", "").split()]
    return next((name for name in alike if name in ("debian", "ubuntu")), values["ID"]), values.get("VERSION_ID", "")
