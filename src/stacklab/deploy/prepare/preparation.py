"""From a bare machine to one that stack.sh can work on. Every stage looks at the thing itself and may be run again.

The order is that of facts about CentOS 7 (repositories before anything is installed, pip's settings before pip); it does for
Debian as well. What a machine looks like when somebody uses it already is in `used`.
"""

from __future__ import annotations

import os
import re
import shlex
import time

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.prepare.files import is_private
from stacklab.deploy.prepare.internet import HEADER, accounts, pip_settings, proxies, without_account
from stacklab.deploy.prepare.ownership import ours, put_marker
from stacklab.deploy.prepare.packages import PackageManager
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.stack.detached import ENVIRONMENT, STACK_USER, unit_states
from stacklab.durations import seconds as spoken
from stacklab.errors import CommandFailed, NotEnoughSpace, ProfileInvalid, UnsupportedMachine
from stacklab.machines.base import Machine
from stacklab.machines.selinux import config_of, mode_of
from stacklab.stages import Progress, Stage

MEMORY_SHARE = 0.9  # the kernel keeps a part of what the VM was given
CLOCK_SECONDS = 2.0
TIME_SERVICES = ("chronyd", "chrony", "systemd-timesyncd", "ntpd", "ntpsec")
HOME = "/opt/stack"
NETRC = {"/root/.netrc": "root", f"{HOME}/.netrc": STACK_USER}
CONSTRAINTS = "/etc/stacklab/constraints.txt"
PIP_CONF = "/etc/pip.conf"
OURS = "# Written by lab."
SUDOERS = "/etc/sudoers.d/40-stacklab"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s*(.*?)\s*-----END CERTIFICATE-----", re.DOTALL)
_CA = {
    "debian": ("/usr/local/share/ca-certificates/stacklab.crt", "update-ca-certificates", "/etc/ssl/certs/ca-certificates.crt"),
    "redhat": ("/etc/pki/ca-trust/source/anchors/stacklab.pem", "update-ca-trust extract", "/etc/pki/tls/certs/ca-bundle.crt"),
}  # fmt: skip

_FACTS = r"""
. /etc/os-release
echo "$ID $VERSION_ID"
awk '/^MemTotal/ {print $2}' /proc/meminfo
mkdir -p /opt && df -Pk /opt | awk 'NR==2 {print $4}'
"""
_SUDO = r"""
visudo -cf /etc/stacklab/sudoers >/dev/null
install -m 0440 -o root -g root /etc/stacklab/sudoers "$1"
mkdir -p "$2"; chown "$3": "$2"; chmod 0755 "$2"
"""


def stages(deployment: Deployment) -> list[Stage]:
    """In order; what the profile and the settings do not ask for is left out."""
    packages = PackageManager(deployment)
    do = _Preparation(deployment, packages)
    profile, settings = deployment.profile, deployment.settings
    wanted = [
        (True, Stage("machine", "the machine fits", do.fits_already, do.fit, 2)),
        (True, Stage("proxy", "proxy settings", do.proxy_already, do.set_proxy, 1)),
        (settings.ca_file, Stage("trust", "certificates to trust", do.trust_already, do.trust, 3)),
        (profile.repositories, Stage("repositories", "repositories", packages.sources_already, packages.put_sources, 5)),
        (True, Stage("packages", "packages", packages.already, packages.change, 120)),
        (profile.external_ids, Stage("switch", "Open vSwitch settings", do.switch_already, do.set_switch, 2)),
        (True, Stage("clock", "the clock", do.clock_already, do.set_clock, 5)),
        (True, Stage("locale", f"locale {profile.locale}", do.locale_already, do.make_locale, 10)),
        (True, Stage("user", f"user {STACK_USER}", do.user_already, do.make_user, 2)),
        (do.accounts(), Stage("accounts", "accounts of mirrors", do.accounts_already, do.put_accounts, 1)),
        (profile.selinux, Stage("selinux", "SELinux mode", do.selinux_already, do.set_selinux, 2)),
        (True, Stage("pip", "pip's settings", do.pip_already, do.set_pip, 1)),
    ]  # fmt: skip
    return [stage for asked, stage in wanted if asked]


def check_size(machine: str, profile: Profile, memory: float, disk: float) -> None:
    """Raises UnsupportedMachine or NotEnoughSpace for less memory (MiB) or disk (GiB) than the profile can live with."""
    size = profile.size
    if memory < size.least_memory * MEMORY_SHARE:
        raise UnsupportedMachine(
            f"{machine} has {memory:.0f} MiB of memory; the profile {profile.name} needs {size.least_memory}",
            advice="give it more memory",
        )
    if disk < size.least_disk:
        raise NotEnoughSpace(
            f"{machine} has {disk:.1f} GiB free on the file system of /opt; {size.least_disk} are needed",
            advice="give it a larger disk",
        )


class _Preparation:
    def __init__(self, deployment: Deployment, packages: PackageManager) -> None:
        self.packages = packages
        self.deployment, self.profile, self.settings = deployment, deployment.profile, deployment.settings
        self.machine: Machine = deployment.machine

    def _ask(self, *argv: str) -> str:
        """What a command prints that may fail, as root."""
        return self.machine.run(*argv, user="root", check=False).out.strip()

    # --- the machine -----------------------------------------------------------------------------------------------

    def fits_already(self) -> str | None:
        return "looked at before; it is this lab's" if ours(self.machine, self.deployment.lab) else None

    def fit(self, progress: Progress) -> str:
        """Distribution, memory and disk, then the marker. Whether somebody uses the machine is `looks_used`'s to tell."""
        name, profile = self.machine.name, self.profile
        facts = self.machine.script(_FACTS, user="root").lines
        distribution, memory, disk = facts[0], int(facts[1]) / 1024, int(facts[2]) / 1024**2
        if distribution != profile.distribution and not distribution.startswith(f"{profile.distribution}."):
            raise UnsupportedMachine(
                f"{name} is {distribution}, and the profile {profile.name} is for {profile.distribution}",
                advice="lab up --profile NAME chooses another profile",
            )
        check_size(name, profile, memory, disk)
        put_marker(self.machine, self.deployment.lab)
        return f"{distribution}, {memory:.0f} MiB of memory, {disk:.0f} GiB of disk free"

    # --- proxy and certificates ------------------------------------------------------------------------------------

    def _environment_file(self) -> str:
        variables = proxies(self.settings, self.deployment.host_ip)
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())

    def proxy_already(self) -> str | None:
        private = is_private(self.machine, ENVIRONMENT, self._environment_file(), "root")
        return self._proxy() if private and self.packages.proxy_already() else None

    def set_proxy(self, progress: Progress) -> str:
        self.machine.put(ENVIRONMENT, self._environment_file(), mode=0o600)
        self.packages.set_proxy()
        return self._proxy()

    def _proxy(self) -> str:
        own, packages = without_account(self.settings.proxy or "none"), self.settings.packages_proxy
        return f"{own}; for packages {without_account(packages)}" if packages else own

    def _certificates(self) -> bytes:
        path, problem = self.settings.ca_file, "holds no certificate in PEM format"
        try:
            held = path.read_bytes() if path else b""
        except OSError as error:
            held, problem = b"", f"cannot be read: {error.strerror}"
        if not _PEM.search(held):
            raise ProfileInvalid(f"ca_file {path} {problem}", advice="correct deploy: ca_file: in config.yaml")
        return held

    def trust_already(self) -> str | None:
        source, _, bundle = _CA[self.profile.family]
        wanted = self._certificates()
        if self.machine.read(source) != wanted:
            return None
        # The bundle is what programs read; line ends may differ in it.
        inside = b"".join((self.machine.read(bundle) or b"").split())
        return "trusted" if all(b"".join(body.split()) in inside for body in _PEM.findall(wanted)) else None

    def trust(self, progress: Progress) -> str:
        source, command, bundle = _CA[self.profile.family]
        self.machine.put(source, self._certificates())
        self.machine.run(*command.split(), user="root")
        if self.trust_already() is None:
            raise CommandFailed(
                f"{command} on {self.machine.name} did not put the certificates of {self.settings.ca_file} into {bundle}",
                advice=f"look there: openssl x509 -in {source} -noout -text",
            )
        return f"{self.settings.ca_file} in {bundle}"

    # --- Open vSwitch, clock, locale -------------------------------------------------------------------------------

    def switch_already(self) -> str | None:
        for key, value in self.profile.external_ids.items():
            asked = self._ask("ovs-vsctl", "--timeout=30", "--if-exists", "get", "open", ".", f"external-ids:{key}")
            if asked.strip('"') != value:
                return None
        return ", ".join(f"{key}={value}" for key, value in self.profile.external_ids.items())

    def set_switch(self, progress: Progress) -> str:
        for key, value in self.profile.external_ids.items():
            setting = f"external-ids:{key}={value}"
            self.machine.run("ovs-vsctl", "--timeout=60", "set", "open", ".", setting, user="root")
        return str(self.switch_already())

    def _clock_off(self) -> float:
        """Seconds that the machine's clock is ahead of this host's; the way there and back is not counted."""
        before = time.time()
        there = float(self.machine.run("date", "+%s.%N").out)
        after = time.time()
        return 0.0 if before <= there <= after else (there - after if there > after else there - before)

    def _time_services(self) -> dict[str, tuple[str, str]]:
        """The services that are there: whether each is enabled, and whether it runs, in systemd's words."""
        states = unit_states(self.machine, TIME_SERVICES)
        return {name: state for name, state in states.items() if state[0] not in ("", "not-found")}

    def _keeper(self) -> str:
        running = [unit for unit, (_, active) in self._time_services().items() if active == "active"]
        return f"kept by {running[0]}" if running else "no time service keeps it"

    def clock_already(self) -> str | None:
        services, off = self._time_services(), self._clock_off()
        # Enabled but not running: in a container, whose clock is its host's.
        settled = not services or any(enabled == "enabled" for enabled, _ in services.values())
        right = f"right to {max(abs(off), 0.1):.1f} s, {self._keeper()}"
        return right if settled and abs(off) <= CLOCK_SECONDS else None

    def set_clock(self, progress: Progress) -> str:
        """Tokens carry times: a clock that is off makes them useless. Without a time service this host's clock has to do."""
        services = self._time_services()
        if services and not any(enabled == "enabled" for enabled, _ in services.values()):
            self._ask("systemctl", "enable", "--now", next(iter(services)))
        off = self._clock_off()
        if abs(off) <= CLOCK_SECONDS:
            return f"right; {self._keeper()}"
        error = f"{spoken(abs(off))} {'fast' if off > 0 else 'slow'}"
        progress(f"{error}, setting it")
        self._ask("date", "-u", "-s", f"@{time.time():.3f}")
        left = abs(self._clock_off())
        if left > CLOCK_SECONDS:
            raise CommandFailed(
                f"the clock of {self.machine.name} is {spoken(left)} off and could not be set",
                advice="set it there; tokens do not hold otherwise",
            )
        return f"was {error}, set; {self._keeper()}"

    def locale_already(self) -> str | None:
        """DevStack sets LC_ALL to it without asking (stack.sh:63 at pike-eol)."""
        there = {name.lower().replace("-", "") for name in self._ask("locale", "-a").splitlines()}
        return "there" if self.profile.locale.lower().replace("-", "") in there else None

    def make_locale(self, progress: Progress) -> str:
        language, _, charset = self.profile.locale.partition(".")
        charset = "UTF-8" if charset.lower().replace("-", "") == "utf8" else charset
        if self.machine.run("sh", "-c", "command -v localedef", check=False).ok:
            command = ("localedef", "-i", language, "-f", charset, f"{language}.{charset}")
            self.machine.run(*command, user="root", seconds=300, check=False)
        if self.locale_already() is None and self.profile.family == "redhat":
            self.packages.run("yum", "-y", "install", f"glibc-langpack-{language.partition('_')[0]}", check=False)
        if self.locale_already() is None:
            raise CommandFailed(
                f"{self.machine.name} has no locale {self.profile.locale}, and it could not be made",
                advice="install the package locales (Debian) or glibc-langpack-en (Red Hat) there",
            )
        return "made"

    # --- the user --------------------------------------------------------------------------------------------------

    def _account(self) -> list[str]:
        """The user's seven fields in passwd; fewer if there is none."""
        return self._ask("getent", "passwd", STACK_USER).split(":")

    def user_already(self) -> str | None:
        account = self._account()
        if len(account) != 7 or account[5] != HOME or self._ask("stat", "-c", "%U %a", HOME) != f"{STACK_USER} 755":
            return None
        sudo = self.machine.run("sudo", "-n", "true", user=STACK_USER, check=False).ok
        return f"home {HOME}, sudo without a password" if sudo else None

    def make_user(self, progress: Progress) -> str:
        account = self._account()
        if len(account) != 7:
            self.machine.run("useradd", "-s", "/bin/bash", "-d", HOME, "-m", "-U", STACK_USER, user="root")
        elif account[5] != HOME:
            raise UnsupportedMachine(
                f"{self.machine.name} has a user {STACK_USER} already, whose home is {account[5]} and not {HOME}",
                advice=f"remove it there, or: usermod -d {HOME} {STACK_USER}",
            )
        # Before it counts: a broken file in sudoers.d locks everybody out of sudo.
        rules = f"{STACK_USER} ALL=(ALL) NOPASSWD: ALL\nDefaults:{STACK_USER} !requiretty\n"
        self.machine.put("/etc/stacklab/sudoers", rules, mode=0o440)
        self.machine.script(_SUDO, SUDOERS, HOME, STACK_USER, user="root")
        made = self.user_already()
        if made is None:
            raise CommandFailed(
                f"user {STACK_USER} on {self.machine.name} cannot use sudo without a password",
                advice=f"look there: sudo -l -U {STACK_USER}",
            )
        return made

    # --- accounts of mirrors and indexes ---------------------------------------------------------------------------

    def accounts(self) -> str:
        """Those that the machine needs, as lines of ~/.netrc."""
        options = pip_settings(self.settings, os.environ, "")
        indexes = [options.get("index-url", ""), *options.get("extra-index-url", "").split()]
        return accounts([*self.settings.mirrors.values(), *indexes])

    def _netrc(self, path: str) -> str:
        """What is to be in the file: somebody else's lines stay above ours."""
        others = (self.machine.read(path) or b"").decode(errors="replace").partition(HEADER)[0]
        return f"{others}{HEADER}\n{self.accounts()}"

    def accounts_already(self) -> str | None:
        right = all(is_private(self.machine, path, self._netrc(path), owner) for path, owner in NETRC.items())
        return f"in {', '.join(NETRC)}" if right else None

    def put_accounts(self, progress: Progress) -> str:
        for path, owner in NETRC.items():
            self.machine.put(path, self._netrc(path), mode=0o600, owner=owner)
        return f"in {', '.join(NETRC)}"

    # --- SELinux ---------------------------------------------------------------------------------------------------

    def _selinux(self) -> tuple[str, str]:
        """Mode now, and the mode that the configuration file gives the next boot (both lower case, "" if unknown)."""
        now = (mode_of(self.machine) or "").lower()
        return now, config_of(self.machine, self.profile.selinux.config) if self.profile.selinux else ""

    def selinux_already(self) -> str | None:
        now, then = self._selinux()
        if not self.deployment.permissive:
            return f"{now or 'not there'}; the fixes bring the rules that it needs"
        if now in ("", "disabled"):
            return now or "not there"
        stays = now == "permissive" and then in ("permissive", "disabled")
        return "permissive, now and after a reboot" if stays else None

    def set_selinux(self, progress: Progress) -> str:
        if self.profile.selinux is None:
            return "not there"
        text = (self.machine.read(self.profile.selinux.config) or b"").decode(errors="replace")
        changed, count = re.subn(r"^\s*SELINUX=\w+.*$", "SELINUX=permissive", text, flags=re.MULTILINE)
        new = changed if count else f"{text.rstrip()}\nSELINUX=permissive\n".lstrip()
        self.machine.put(self.profile.selinux.config, new)
        if self._selinux()[0] == "enforcing":
            self.machine.run("setenforce", "0", user="root")
        mode = self.selinux_already()
        if mode is None:
            raise CommandFailed(
                f"SELinux on {self.machine.name} is still {self._selinux()[0]}", advice="look there: sestatus"
            )
        return mode

    # --- pip -------------------------------------------------------------------------------------------------------

    def _pip(self) -> dict[str, bytes | None]:
        """The files that pip is to have, by path; None is one that we wrote earlier and that has nothing to say now."""
        settings = pip_settings(self.settings, os.environ, _CA[self.profile.family][2])
        files: dict[str, bytes | None] = {}
        if self.profile.pip_constraints:
            files[CONSTRAINTS] = "".join(f"{line}\n" for line in self.profile.pip_constraints).encode()
            settings["constraint"] = CONSTRAINTS
        if settings:
            lines = [f"{name} = {without_account(value)}" for name, value in settings.items()]
            files[PIP_CONF] = "\n".join([OURS, "[global]", *lines, ""]).encode()
        elif (self.machine.read(PIP_CONF) or b"").startswith(OURS.encode()):
            files[PIP_CONF] = None
        return files

    def pip_already(self) -> str | None:
        right = all(self.machine.read(path) == text for path, text in self._pip().items())
        return self._pip_index() if right else None

    def set_pip(self, progress: Progress) -> str:
        for path, text in self._pip().items():
            if text is None:
                self.machine.run("rm", "-f", path, user="root")
            else:
                self.machine.put(path, text)
        return self._pip_index()

    def _pip_index(self) -> str:
        index = pip_settings(self.settings, os.environ, "").get("index-url", "its own index")
        return f"{without_account(index)}, {len(self.profile.pip_constraints)} constraints"
