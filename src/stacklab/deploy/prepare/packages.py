"""The distribution's packages: its repositories, and what is removed, upgraded and installed."""

from __future__ import annotations

import time
from contextlib import suppress

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.prepare.files import content
from stacklab.deploy.prepare.internet import run_through_proxy, without_account
from stacklab.deploy.stack.failures import diagnose
from stacklab.durations import seconds as spoken
from stacklab.errors import CommandFailed, MachineUnreachable
from stacklab.machines.base import Finished, Machine
from stacklab.stages import Progress

SECONDS = 3600
REBOOT_SECONDS = 600
UPGRADED = "/etc/stacklab/upgraded"
APT_PROXY = "/etc/apt/apt.conf.d/01stacklab-proxy"
_YUM_PROXY = """
sed -i '/^# stacklab: packages_proxy$/,+1d' /etc/yum.conf
[ -z "$1" ] || sed -i "/^\\[main\\]/a # stacklab: packages_proxy\\nproxy=$1" /etc/yum.conf
"""


class PackageManager:
    """apt or yum on the machine, as the profile's family has it."""

    def __init__(self, deployment: Deployment) -> None:
        self.profile, self.settings = deployment.profile, deployment.settings
        self.proxy = without_account(self.settings.packages_proxy or "")  # all on the machine may read where it is
        self.machine: Machine = deployment.machine

    def proxy_already(self) -> bool:
        """Whether the package manager goes through `packages_proxy`, or through none of ours."""
        if self.profile.family == "debian":
            return self.machine.read(APT_PROXY) == self._apt_proxy()
        lines = (self.machine.read("/etc/yum.conf") or b"").decode(errors="replace").splitlines()
        ours = [lines[at + 1] for at, line in enumerate(lines[:-1]) if line == "# stacklab: packages_proxy"]
        return ours == ([f"proxy={self.proxy}"] if self.proxy else [])

    def set_proxy(self) -> None:
        """Only the package manager: what else goes through a proxy is in the environment."""
        if self.profile.family == "redhat":
            self.machine.script(_YUM_PROXY, self.proxy, user="root")
        elif (content := self._apt_proxy()) is None:
            self.machine.run("rm", "-f", APT_PROXY, user="root")
        else:
            self.machine.put(APT_PROXY, content)

    def _apt_proxy(self) -> bytes | None:
        return f'// Written by lab.\nAcquire::http::Proxy "{self.proxy}";\n'.encode() if self.proxy else None

    def sources_already(self) -> str | None:
        for placed in self.profile.repositories:
            if self.machine.read(placed.path) != content(placed, self.settings, lambda _: None):
                return None
        return f"{len(self.profile.repositories)} files"

    def put_sources(self, progress: Progress) -> str:
        for placed in self.profile.repositories:
            progress(f"{placed.path}: {placed.why}")
            text = content(placed, self.settings, progress)
            # Neither apt nor yum takes an account from anywhere else on every release.
            private = without_account(text.decode(errors="replace")) != text.decode(errors="replace")
            self.machine.put(placed.path, text, mode=0o600 if private else placed.mode)
        if self.profile.family == "redhat":
            self.run("yum", "clean", "expire-cache")
        return f"{len(self.profile.repositories)} files"

    def run(self, *command: str, check: bool = True) -> Finished:
        """A package manager, not interactive and through the proxy. What it says when it fails is looked up."""
        plain = ("env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", *command)
        ended = run_through_proxy(self.machine, *plain, user="root", seconds=SECONDS)
        if check and not ended.ok:
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
        if not names:
            return set()
        if self.profile.family == "redhat":
            each = 'for name in "$@"; do rpm -q --whatprovides "$name" >/dev/null 2>&1 && echo "$name"; done; true'
            return set(self.machine.script(each, *names).lines)
        states = self.machine.run("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names, check=False)
        return {line.split()[0] for line in states.lines if line.endswith(" installed")}

    def already(self) -> str | None:
        wanted, unwanted = self.profile.packages.install, self.profile.packages.remove
        there = self._installed([*wanted, *unwanted])
        if set(wanted) - there or set(unwanted) & there:
            return None
        # Only once: an upgrade below a running cloud is how `up again` would break it.
        if self.profile.packages.upgrade and self.machine.read(UPGRADED) is None:
            return None
        return f"{len(wanted)} packages there"

    def change(self, progress: Progress) -> str:
        packages, redhat = self.profile.packages, self.profile.family == "redhat"
        manager = ("yum", "-y") if redhat else ("apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=300")
        options = () if redhat else ("-o", "Dpkg::Options::=--force-confold")
        if not redhat:
            progress("apt-get update")
            self.run(*manager, "-o", "Acquire::Retries=3", "update")
        unwanted = sorted(self._installed(packages.remove))
        if unwanted:
            progress(f"removing {', '.join(unwanted)}")
            self.run(*manager, "remove", *unwanted)
        restarted = ""
        if packages.upgrade and self.machine.read(UPGRADED) is None:
            progress("upgrading all packages")
            self.run(*manager, *options, "update" if redhat else "upgrade")
            restarted = self._restart_for_kernel(progress)
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
        return f"{len(packages.install)} packages there{restarted}"

    def _restart_for_kernel(self, progress: Progress) -> str:
        """Restart if a newer kernel than the running one was installed. A container has none of its own."""
        kernels = self.machine.script(
            "uname -r; ls /boot 2>/dev/null | sed -n 's/^vmlinuz-//p' | grep -v rescue | sort -V | tail -n 1",
            user="root",
        ).lines
        if len(kernels) < 2 or kernels[0] == kernels[1] or not self._boots(kernels[0]):
            return ""
        progress(f"restarting for kernel {kernels[1]}")
        restart(self.machine, progress)
        return f", restarted with kernel {kernels[1]}"

    def _boots(self, kernel: str) -> bool:
        return self.machine.run("test", "-e", f"/boot/vmlinuz-{kernel}", check=False).ok


def restart(machine: Machine, progress: Progress, seconds: float = REBOOT_SECONDS) -> None:
    """Restart the machine and wait until it answers again, as another boot. Raises MachineUnreachable."""
    boot = "/proc/sys/kernel/random/boot_id"
    before = machine.run("cat", boot).out
    with suppress(MachineUnreachable):
        # Through a timer of systemd's: the command ends before the connection does.
        machine.run("systemd-run", "--on-active=1", "systemctl", "reboot", user="root")
    began = time.monotonic()
    while True:
        time.sleep(3)
        waited = time.monotonic() - began
        try:
            if machine.run("cat", boot, seconds=30).out != before:
                return
            trouble = "it has not gone down"
        except (MachineUnreachable, CommandFailed) as error:
            machine.close()
            trouble = error.message
        if waited > seconds:
            raise MachineUnreachable(
                f"{machine.name} did not come back within {spoken(seconds)} after a restart: {trouble}",
                advice="look at its console",
            )
        progress(f"restarting, {spoken(waited)}: {trouble}")
