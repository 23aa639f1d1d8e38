"""What a deployment fetches comes from this host's cache, where `lab prefetch` has filled one, for as long as stack.sh runs."""

from __future__ import annotations

import socket
from dataclasses import replace
from urllib.parse import urlsplit

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.stack import detached
from stacklab.errors import CommandFailed
from stacklab.prefetch import mirrors, serving
from stacklab.stages import Progress

# An answer, not a connection only: whoever is not among the server's clients is let in and told nothing.
_REACH = r"""exec 3<>"/dev/tcp/$0/$1" && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && grep -q 'cache' <&3"""


class Supply:
    """The cache's server for one deployment. `bind`: this host's address that faces the machine; None: there is none."""

    def __init__(self, deployment: Deployment, bind: str | None) -> None:
        self.own = deployment
        self.bind = bind

    @property
    def wanted(self) -> bool:
        """Whether the cache holds this profile's DevStack, and stack.sh still has to run to its end."""
        source = self.own.profile.devstack
        kept = mirrors.commit(mirrors.mirror_path(source.repo), source.ref) is not None
        return self.bind is not None and kept and detached.state(self.own.machine).state != "done"

    def served(self) -> Deployment:
        """The deployment as it uses the server, if that runs."""
        served = serving.state(self.own.lab)
        if served is None:
            return self.own
        settings = serving.settings_for(served, self.own.profile, self.own.settings, self.own.services)
        return replace(self.own, settings=settings)

    def already(self) -> str | None:
        """Why the server need not be started."""
        if not self.wanted:
            return "not needed"
        served = serving.state(self.own.lab)
        return f"at {served.url}" if served else None

    def start(self, progress: Progress) -> str:
        """Serve, if the machine can reach us."""
        profile = self.own.profile
        served = serving.start(self.own.lab, str(self.bind), profile, self.own.settings, clients=(self.own.host_ip,))
        at = urlsplit(served.url)
        try:
            self.own.machine.run("timeout", "10", "bash", "-c", _REACH, str(at.hostname), str(at.port), seconds=30)
        except CommandFailed:
            self.stop(progress)
            return f"not used: {self.own.machine.name} does not reach {served.url}"
        return f"git, Python packages and the distribution's come through {served.url}"

    def stopped_already(self) -> str | None:
        """Why there is nothing to end."""
        return None if serving.state(self.own.lab) else "not needed"

    def stop(self, progress: Progress) -> str:
        """End the server."""
        return "ended" if serving.stop(self.own.lab) else "it had ended"


def facing(host: str) -> str | None:
    """The address of this host from which `host` is reached; None where there is no route, or only loopback."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # connects nothing: it only asks for the route
            probe.connect((host, 9))
            address = str(probe.getsockname()[0])
    except OSError:
        return None
    return None if address.startswith("127.") else address
