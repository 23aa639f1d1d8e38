"""What a deployment fetches comes from this host's cache, where `lab prefetch` has filled one, for as long as stack.sh runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from stacklab.cache import cache_root
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.prepare import preparation
from stacklab.deploy.prepare.internet import without_account
from stacklab.deploy.stack import detached
from stacklab.errors import CommandFailed, ServiceFailed
from stacklab.logs import FileLog
from stacklab.machines.ssh import SshMachine
from stacklab.prefetch import fill, mirrors, plan, serving, wheels
from stacklab.stages import Progress, Stage
from stacklab.waiting import NotYet, until

REACH_SECONDS = 30
GIT_CONFIG = "/etc/stacklab/git.conf"
_REACH = r"""exec 3<>"/dev/tcp/127.0.0.1/$0" && printf 'HEAD / HTTP/1.0\r\n\r\n' >&3 && grep -q '200 OK' <&3"""
_INCLUDE = """
git config --system --get-all include.path | grep -qxF "$1" || git config --system --add include.path "$1"
"""  # a file that is not there is as if it were not named


class Prefetched:
    """The cache's server for one deployment, which the machine reaches through an SSH connection of ours."""

    def __init__(self, deployment: Deployment, machine: SshMachine) -> None:
        self.own = deployment
        self.machine = machine

    def before(self) -> Stage:
        """Comes before all others."""
        return Stage("cache", "what was prefetched", self._served_already, self._serve, 2)

    def deployment(self) -> Deployment:
        """The deployment as it uses the server, if that runs."""
        served = serving.state(self.own.lab)
        if served is None:
            return self.own
        place = wheels.directory(plan.target_of(self.own.profile)).relative_to(cache_root())
        return replace(self.own, settings=self.own.settings.model_copy(update={"pip_first": f"{served.url}{place}/"}))

    def git(self) -> Stage:
        """Where git on the machine fetches from; also without a server, for one may have been killed."""
        return Stage("mirrors", "where git fetches from", self._git_already, self._set_git, 1)

    def after(self) -> Iterator[Stage]:
        """When the cloud is made, the machine goes on with the user's own settings."""
        yield Stage("cache-end", "the end of what was prefetched", self._ended_already, self._end, 1)
        yield self.git()
        yield from (stage for stage in preparation.stages(self.own) if stage.name == "pip")

    def _needed(self) -> bool:
        """Whether the cache holds this profile's DevStack, and stack.sh still has to run to its end."""
        source = plan.devstack_of(self.own.profile)
        there = mirrors.commit(mirrors.mirror_path(source.url), source.ref) is not None
        return there and detached.state(self.machine).state != "done"

    def _served_already(self) -> str | None:
        if not self._needed():
            return "not needed"
        return "served" if serving.state(self.own.lab) else None

    def _serve(self, progress: Progress) -> str:
        """Serve, if the machine lets us forward a port."""
        self.machine.connect()  # its host key is pinned from here on
        served = serving.start(self.own.lab, self.machine.ssh_argv())

        def reached() -> bool | NotYet:
            port = served.url.rstrip("/").rpartition(":")[2]
            done = self.machine.run("timeout", "10", "bash", "-c", _REACH, port, seconds=30, check=False)
            return done.ok or NotYet(" ".join(FileLog(served.log).last(1)))

        try:
            until(reached, "the way from the machine to the cache", seconds=REACH_SECONDS, every=0.5)
        except (ServiceFailed, CommandFailed) as error:
            serving.stop(self.own.lab, another_port=True)
            return f"not used: {error.message}"
        return "git repositories and Python packages come from here, through the SSH connection"

    def _git_config(self) -> bytes | None:
        served = serving.state(self.own.lab)
        if served is None:
            return None
        repositories = fill.repositories(self.own.profile, self.own.services)
        asked = ((repository, without_account(self.own.settings.at(repository.url))) for repository in repositories)
        return serving.git_config(served.url, asked).encode()

    def _git_already(self) -> str | None:
        config = self._git_config()
        if self.machine.read(GIT_CONFIG) != config:
            return None
        return "the cache, then their own places" if config else "their own places"

    def _set_git(self, progress: Progress) -> str:
        config = self._git_config()
        if config is None:
            self.machine.run("rm", "-f", GIT_CONFIG, user="root")
        else:
            self.machine.put(GIT_CONFIG, config)
            self.machine.script(_INCLUDE, GIT_CONFIG, user="root")
        return "the cache, then their own places" if config else "their own places"

    def _ended_already(self) -> str | None:
        return None if serving.state(self.own.lab) else "not needed"

    def _end(self, progress: Progress) -> str:
        return "ended" if serving.stop(self.own.lab) else "it had ended"
