"""DevStack itself on the machine: cloned at the profile's ref, its lists trimmed, and the files that are put beside it."""

from __future__ import annotations

import hashlib
import posixpath
import re
import time

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.prepare.files import content
from stacklab.deploy.prepare.internet import run_through_proxy, without_account
from stacklab.deploy.profile.model import PlacedFile
from stacklab.deploy.stack.detached import STACK_USER, called
from stacklab.errors import DownloadFailed, MachineInUse
from stacklab.machines.base import Finished, Machine
from stacklab.stages import Progress, Stage

CLONE_SECONDS = 1200
PAUSES = (5.0, 20.0)
"""Seconds between attempts to reach the git host."""


def stages(deployment: Deployment) -> list[Stage]:
    """The clone, then the files."""
    clone = _Clone(deployment)
    title = f"DevStack at {deployment.profile.devstack.ref}"
    return [Stage("source", title, clone.already, clone.run, 30), *file_stages(deployment)]


def file_stages(deployment: Deployment) -> list[Stage]:
    """The files alone."""
    title = f"{len(deployment.profile.files)} files that {called(deployment.profile.program)} would else fetch or lack"
    files = _Files(deployment)
    return [Stage("files", title, files.already, files.run, 5)]


class _Clone:
    def __init__(self, deployment: Deployment) -> None:
        self.machine: Machine = deployment.machine
        self.devstack = deployment.profile.devstack
        self.url = without_account(deployment.settings.at(self.devstack.repo))

    def already(self) -> str | None:
        at = self._here()
        if at is None or at != self._commit() or self._origin() != self.url:
            return None
        if any(self._trimmed(path, words) is not None for path, words in self.devstack.drop.items()):
            return None
        return f"commit {at[:10]} in {self.devstack.directory}"

    def run(self, progress: Progress) -> str:
        if self._here() is None:
            self._clone(progress)
        elif self._here() != self._commit() or self._origin() != self.url:
            self._move(progress)
        for path, words in self.devstack.drop.items():
            text = self._trimmed(path, words)
            if text is not None:
                progress(f"{path}: without {', '.join(words)}")
                self.machine.put(f"{self.devstack.directory}/{path}", text, owner=STACK_USER)
        return f"commit {str(self._here())[:10]} in {self.devstack.directory}"

    def _git(self, *arguments: str, check: bool = True, seconds: float = 120) -> Finished:
        return self.machine.run(
            "git", "-C", self.devstack.directory, *arguments,
            user=STACK_USER, check=check, seconds=seconds,
        )  # fmt: skip

    def _here(self) -> str | None:
        """The commit that is checked out, None if there is no clone."""
        head = self._git("rev-parse", "--verify", "--quiet", "HEAD", check=False)
        return head.out.strip() if head.ok else None

    def _origin(self) -> str:
        return self._git("config", "--get", "remote.origin.url", check=False).out.strip()

    def _commit(self) -> str | None:
        """What the profile's ref means in the clone: a tag or commit, or the branch as it was when it was last fetched."""
        for name in (f"refs/tags/{self.devstack.ref}", f"refs/remotes/origin/{self.devstack.ref}", self.devstack.ref):
            commit = self._git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False)
            if commit.ok:
                return commit.out.strip()
        return None

    def _clone(self, progress: Progress) -> None:
        directory = self.devstack.directory
        there = self.machine.run("ls", "-A", directory, user="root", check=False)
        if there.ok and there.out.strip():
            raise MachineInUse(
                f"{directory} on {self.machine.name} holds something that is no git clone",
                advice=f"move it away there: sudo mv {directory} {directory}.old",
            )
        # Beside its place, so that a clone that was cut off is never taken for one.
        part = f"{directory}.part"
        self._reach(progress, "clone", "--quiet", "--no-checkout", self.url, part)
        self.machine.script('rmdir "$2" 2>/dev/null || true; mv "$1" "$2"', part, directory, user=STACK_USER)
        self._check_out()

    def _move(self, progress: Progress) -> None:
        """An existing clone to the profile's ref, if nothing is lost by it."""
        directory, status = self.devstack.directory, self._git("status", "--porcelain", "--untracked-files=no").lines
        changed = [line[3:] for line in status if line[3:] not in self.devstack.drop]
        if changed:
            raise MachineInUse(
                f"{directory} on {self.machine.name} is not at {self.devstack.ref} and has changes of its own: "
                f"{', '.join(changed[:5])}",
                advice="keep them elsewhere (git diff), then: git checkout --force, and the same command again",
            )
        self._git("config", "remote.origin.url", self.url)
        self._reach(progress, "-C", directory, "fetch", "--quiet", "--tags", "origin")
        self._check_out()

    def _check_out(self) -> None:
        commit = self._commit()
        if commit is None:
            raise DownloadFailed(
                f"{self.url} has no tag, branch or commit {self.devstack.ref}",
                advice="branches of old releases become tags (pike-eol); name it in the profile: devstack.ref",
            )
        self._git("checkout", "--quiet", "--force", "--detach", commit)

    def _reach(self, progress: Progress, *arguments: str) -> None:
        """Run a git that reaches the host, several times if need be."""
        command = ("env", "GIT_TERMINAL_PROMPT=0", "git", *arguments)
        progress(f"git {' '.join(arguments)}")
        for pause in (*PAUSES, None):
            self.machine.run("rm", "-rf", f"{self.devstack.directory}.part", user=STACK_USER)
            ended = run_through_proxy(self.machine, *command, user=STACK_USER, seconds=CLONE_SECONDS)
            if ended.ok:
                return
            complaint = without_account(" ".join(ended.err.split()))[-300:]
            if pause is None:
                raise DownloadFailed(
                    f"{self.machine.name} could not fetch {self.url}: {complaint}",
                    advice="is it reachable from the machine? mirrors: and proxy: in config.yaml name another way",
                )
            progress(f"{complaint}; again in {pause:.0f} s")
            time.sleep(pause)

    def _trimmed(self, path: str, words: list[str]) -> str | None:
        """The list without these words; None if none of them is in it."""
        held = self.machine.read(f"{self.devstack.directory}/{path}")
        if held is None:
            return None
        text = held.decode()
        others = [line for line in text.splitlines(keepends=True) if not _names(line, words)]
        return "".join(others) if len(others) != len(text.splitlines()) else None


def _names(line: str, words: list[str]) -> bool:
    """Whether a line of DevStack's package lists (`name  # comment`) is for one of `words`."""
    first = re.match(r"\s*([^\s#]+)", line)
    return first is not None and first[1] in words


class _Files:
    def __init__(self, deployment: Deployment) -> None:
        self.deployment, self.machine = deployment, deployment.machine
        self.directory = deployment.profile.devstack.directory

    def _differing(self, progress: Progress) -> list[tuple[str, PlacedFile, bytes]]:
        """Compared by checksum on the machine: some of these files are large."""
        differing = []
        for placed in self.deployment.profile.files:
            wanted = content(placed, self.deployment.settings, progress)
            path = posixpath.join(self.directory, placed.path)  # an absolute path stays what it is
            there = self.machine.run("sha256sum", "--", path, user="root", check=False)
            if there.out.split(" ")[0] != hashlib.sha256(wanted).hexdigest():
                differing.append((path, placed, wanted))
        return differing

    def already(self) -> str | None:
        return None if self._differing(lambda _: None) else "all there"

    def run(self, progress: Progress) -> str:
        differing = self._differing(progress)
        for path, placed, wanted in differing:
            progress(f"{path}: {placed.why}")
            owner = STACK_USER if path.startswith(f"{self.directory}/") else "root"
            self.machine.put(path, wanted, mode=placed.mode, owner=owner)
        if any(path.startswith("/etc/systemd/") for path, _, _ in differing):
            self.machine.run("systemctl", "daemon-reload", user="root")
        return ", ".join(posixpath.basename(path) for path, _, _ in differing) or "all there"
