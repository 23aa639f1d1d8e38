"""DevStack itself on the machine: cloned at the profile's ref, and the files that are put into it or beside it."""

from __future__ import annotations

import re

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.prepare.files import placed_files
from stacklab.deploy.prepare.forms import MachineFile, file_stage
from stacklab.deploy.prepare.internet import run_through_proxy, without_account
from stacklab.deploy.profile.model import DevStack
from stacklab.deploy.stack.detached import STACK_USER, called
from stacklab.errors import DownloadFailed, MachineInUse
from stacklab.machines.base import Finished, Machine
from stacklab.stages import Progress, Stage

CLONE_SECONDS = 1200


def stages(deployment: Deployment) -> list[Stage]:
    """The clone, then the files."""
    clone = _Clone(deployment)
    title = f"DevStack at {deployment.profile.devstack.ref}"
    return [Stage("source", title, clone.already, clone.run, 30), *file_stages(deployment)]


def file_stages(deployment: Deployment) -> list[Stage]:
    """The files alone."""
    machine, profile = deployment.machine, deployment.profile
    directory = profile.devstack.directory

    def files(progress: Progress) -> list[MachineFile]:
        placed = placed_files(profile.files, deployment.settings, progress, below=directory)
        return placed if profile.deployed_by == "packstack" else [*placed, *_trimmed(machine, profile.devstack)]

    title = f"{len(profile.files)} files that {called(profile.program)} would else fetch or lack"
    reload = (
        ("systemctl", "daemon-reload") if any(file.path.startswith("/etc/systemd/") for file in profile.files) else ()
    )
    return [file_stage(machine, "files", title, files, detail="all there", then=reload, usual=5)]


def _trimmed(machine: Machine, devstack: DevStack) -> list[MachineFile]:
    """DevStack's lists of packages (`name  # comment`) without the words that the profile drops."""
    files = []
    for name, words in devstack.drop.items():
        path = f"{devstack.directory}/{name}"
        content = machine.read(path)
        if content is None:
            continue
        lines = content.decode().splitlines(keepends=True)
        others = [line for line in lines if (re.findall(r"[^\s#]+", line) or [""])[0] not in words]
        why = f"without {', '.join(words)}"
        files.append(MachineFile(path, "".join(others).encode(), owner=STACK_USER, why=why))
    return files


class _Clone:
    def __init__(self, deployment: Deployment) -> None:
        self.machine: Machine = deployment.machine
        self.devstack = deployment.profile.devstack
        self.url = without_account(deployment.settings.at(self.devstack.repo))

    def already(self) -> str | None:
        at = self._commit("HEAD")
        if at is None or at != self._meant() or self._origin() != self.url:
            return None
        return f"commit {at[:10]} in {self.devstack.directory}"

    def run(self, progress: Progress) -> str:
        if self._commit("HEAD") is None:
            self._clone(progress)
        else:
            self._move(progress)
        commit = self._meant()
        if commit is None:
            raise DownloadFailed(
                f"{self.url} has no tag, branch or commit {self.devstack.ref}",
                advice="branches of old releases become tags (pike-eol); name it in the profile: devstack.ref",
            )
        self._git("checkout", "--quiet", "--force", "--detach", commit)
        return f"commit {commit[:10]} in {self.devstack.directory}"

    def _git(self, *arguments: str, check: bool = True) -> Finished:
        return self.machine.run("git", "-C", self.devstack.directory, *arguments, user=STACK_USER, check=check)

    def _commit(self, name: str) -> str | None:
        commit = self._git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False)
        return commit.out.strip() if commit.ok else None

    def _meant(self) -> str | None:
        """What the profile's ref means in the clone: a tag or commit, or the branch as it was when it was last fetched."""
        ref = self.devstack.ref
        return next(filter(None, map(self._commit, (f"refs/tags/{ref}", f"refs/remotes/origin/{ref}", ref))), None)

    def _origin(self) -> str:
        return self._git("config", "--get", "remote.origin.url", check=False).out.strip()

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
        self.machine.run("rm", "-rf", part, user=STACK_USER)
        self._reach(progress, "clone", "--quiet", "--no-checkout", self.url, part)
        self.machine.script('rmdir "$2" 2>/dev/null || true; mv "$1" "$2"', part, directory, user=STACK_USER)

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

    def _reach(self, progress: Progress, *arguments: str) -> None:
        """Run a git that reaches the host."""
        progress(f"git {' '.join(arguments)}")
        command = ("env", "GIT_TERMINAL_PROMPT=0", "git", *arguments)
        ended = run_through_proxy(self.machine, *command, user=STACK_USER, seconds=CLONE_SECONDS)
        if not ended.ok:
            complaint = without_account(" ".join(ended.err.split()))[-300:]
            raise DownloadFailed(
                f"{self.machine.name} could not fetch {self.url}: {complaint}",
                advice="is it reachable from the machine? mirrors: and proxy: in config.yaml name another way",
            )
