"""The distribution's packages: its proxy, and what is removed, upgraded and installed."""

from __future__ import annotations

import time

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.prepare.forms import MachineFile
from stacklab.deploy.prepare.internet import run_through_proxy, without_account
from stacklab.deploy.stack.failures import diagnose
from stacklab.errors import CommandFailed
from stacklab.machines.base import Finished, Machine
from stacklab.stages import Progress

SECONDS = 3600
UPGRADED = "/etc/stacklab/upgraded"
APT_PROXY = "/etc/apt/apt.conf.d/01stacklab-proxy"
YUM_CONF = ("/etc/dnf/dnf.conf", "/etc/yum.conf")
"""Where there is the first, the second only leads there."""
_YUM_MARK = "# stacklab: packages_proxy"
_INSTALLED = {
    "redhat": 'for name in "$@"; do rpm -q --whatprovides "$name" >/dev/null 2>&1 && echo "$name"; done; true',
    "debian": """dpkg-query -W -f '${Package} ${db:Status-Status}\\n' "$@" 2>/dev/null | sed -n 's/ installed$//p'""",
}


class PackageManager:
    """apt or yum on the machine, as the profile's family has it."""

    def __init__(self, deployment: Deployment) -> None:
        self.profile, self.settings = deployment.profile, deployment.settings
        self.machine: Machine = deployment.machine
        self.redhat = self.profile.family == "redhat"

    def proxy_files(self) -> list[MachineFile]:
        """Where the package manager alone is told of a proxy: what else goes through one is told in its environment."""
        proxy = without_account(self.settings.packages_proxy or "")  # all on the machine may read where it is
        if not self.redhat:
            text = f'// Written by lab.\nAcquire::http::Proxy "{proxy}";\n'
            return [MachineFile(APT_PROXY, text.encode() if proxy else None)]
        contents = {path: self.machine.read(path) for path in YUM_CONF}
        path = next((path for path, content in contents.items() if content is not None), YUM_CONF[-1])
        lines = (contents[path] or b"[main]").decode(errors="replace").splitlines()
        if not proxy and _YUM_MARK not in lines:
            return []
        if _YUM_MARK in lines:
            at = lines.index(_YUM_MARK)
            del lines[at : at + 2]
        if proxy:
            at = lines.index("[main]") + 1
            lines[at:at] = [_YUM_MARK, f"proxy={proxy}"]
        return [MachineFile(path, "".join(f"{line}\n" for line in lines).encode())]

    def run(self, *command: str) -> Finished:
        """A package manager, not interactive and through the proxy. What it says when it fails is looked up."""
        plain = ("env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", *command)
        ended = run_through_proxy(self.machine, *plain, user="root", seconds=SECONDS)
        if not ended.ok:
            output = without_account(f"{ended.out}\n{ended.err}".strip())
            diagnosis = diagnose(output)
            raise CommandFailed(
                f"{' '.join(command)} failed on {self.machine.name} with exit status {ended.status}: "
                f"{diagnosis.command}. Likely cause: {diagnosis.cause}",
                status=ended.status,
                said=output[-2000:],
                advice=f"{diagnosis.remedy}; then the same command again"
                if diagnosis.known
                else "read what it says there",
            )
        return ended

    def _installed(self, names: list[str]) -> set[str]:
        return set(self.machine.script(_INSTALLED[self.profile.family], *names).lines) if names else set()

    def already(self) -> str | None:
        packages = self.profile.packages
        there = self._installed([*packages.install, *packages.remove])
        if set(packages.install) - there or set(packages.remove) & there:
            return None
        # Only once: an upgrade below a running cloud is how `up again` would break it.
        if packages.upgrade and self.machine.read(UPGRADED) is None:
            return None
        return f"{len(packages.install)} packages there"

    def change(self, progress: Progress) -> str:
        packages = self.profile.packages
        manager = ("yum", "-y") if self.redhat else ("apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=300")
        options = () if self.redhat else ("-o", "Dpkg::Options::=--force-confold")
        if not self.redhat:
            progress("apt-get update")
            self.run(*manager, "-o", "Acquire::Retries=3", "update")
        unwanted = sorted(self._installed(packages.remove))
        if unwanted:
            progress(f"removing {', '.join(unwanted)}")
            self.run(*manager, "remove", *unwanted)
        if packages.upgrade and self.machine.read(UPGRADED) is None:
            progress("upgrading all packages")
            self.run(*manager, *options, "update" if self.redhat else "upgrade")
            self.machine.put(UPGRADED, time.strftime("%Y-%m-%d %H:%M:%S %z\n"))
        missing = sorted(set(packages.install) - self._installed(packages.install))
        if missing:
            progress(f"installing {', '.join(missing)}")
            self.run(*manager, *options, "install", *missing)
        still = sorted(set(packages.install) - self._installed(packages.install))
        if still:  # yum takes "No package … available" for success
            raise CommandFailed(
                f"{manager[0]} on {self.machine.name} did not install {', '.join(still)}",
                advice="no repository of the profile has it; mirrors: in config.yaml names other places",
            )
        return f"{len(packages.install)} packages there"
