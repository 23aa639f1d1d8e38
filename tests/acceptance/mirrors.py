"""Bare git repositories at the paths of their public addresses, served to one machine's network."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

RELEASE_BRANCH = "stable/2026.1"
REPOSITORIES = {
    **{
        f"openstack/{name}.git": RELEASE_BRANCH
        for name in (
            *("devstack", "requirements", "keystone", "glance", "placement", "cinder", "neutron", "nova"),
            "horizon",
        )
    },
    "novnc/noVNC.git": None,  # DevStack's stackrc names a tag
}
"""What DevStack clones with the profile's services, and the branch that must be there."""
PUBLIC = {"https://opendev.org": "", "https://github.com": ""}
"""The beginnings of the public addresses, and what of the path they stand for is ours."""
GIT_PORT = 9418
START_SECONDS = 10


class NoMirrors(Exception):
    """There are none, or one is not what it must be."""


class Mirrors:
    """The mirrors in `directory`. Raises NoMirrors unless all of REPOSITORIES are there."""

    def __init__(self, directory: Path | None) -> None:
        if directory is None:
            raise NoMirrors(
                "where are the mirrors? --mirrors DIR or LAB_ACCEPTANCE_MIRRORS; --help says what they must hold"
            )
        self.directory = directory.resolve()
        for path, branch in REPOSITORIES.items():
            reference = f"refs/heads/{branch}" if branch else "HEAD"
            git = ("git", "-C", str(self.directory / path))
            asked = (*git, "rev-parse", "--quiet", "--verify", f"{reference}^{{commit}}")
            if subprocess.run(asked, capture_output=True, check=False).returncode != 0:
                raise NoMirrors(
                    f"{self.directory / path} is no git repository with {branch or 'a commit'}; --help says more"
                )

    def commits(self) -> dict[str, str]:
        """Name → commit, of what will be deployed."""
        asked = {
            path: ("git", "-C", str(self.directory / path), "rev-parse", f"refs/heads/{branch}")
            for path, branch in REPOSITORIES.items()
            if branch
        }
        return {Path(path).stem: subprocess.check_output(command, text=True).strip() for path, command in asked.items()}

    @contextlib.contextmanager
    def served(self, address: str, log: Path) -> Iterator[dict[str, str]]:
        """Served at `address` until the end of the `with`; yields what stands in place of the public addresses' beginnings."""
        argv = [
            *("git", "daemon", "--export-all", "--reuseaddr", f"--base-path={self.directory}", f"--listen={address}"),
            *(f"--port={GIT_PORT}", str(self.directory)),
        ]
        with log.open("wb") as out:
            daemon = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            _wait(address, daemon, log)
            yield {begin: f"git://{address}{below}" for begin, below in PUBLIC.items()}
        finally:
            daemon.terminate()
            daemon.wait(START_SECONDS)


def _wait(address: str, daemon: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((address, GIT_PORT), timeout=1).close()
        except OSError as error:
            if daemon.poll() is not None or time.monotonic() > until:
                raise NoMirrors(f"git daemon does not answer at {address}: {log.read_text()[-500:]}") from error
            time.sleep(0.1)
        else:
            return
