"""From a bare machine to one that stack.sh can work on. Every stage looks at the thing itself and may be run again.

The order is that of facts about CentOS 7 (repositories before anything is installed, pip's settings before pip); it does for
Debian as well. What a machine looks like when somebody uses it already is in `ownership`.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator

from cryptography import x509

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.prepare.files import placed_files
from stacklab.deploy.prepare.forms import MachineFile, fact_stage, file_stage
from stacklab.deploy.prepare.internet import HEADER, accounts, pip_settings, proxies, without_account
from stacklab.deploy.prepare.ownership import ours, put_marker
from stacklab.deploy.prepare.packages import PackageManager
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.deploy.stack.detached import ENVIRONMENT, STACK_USER
from stacklab.durations import seconds as spoken
from stacklab.errors import NotEnoughSpace, ProfileInvalid, UnsupportedMachine
from stacklab.machines.base import Machine
from stacklab.stages import Progress, Stage

MEMORY_SHARE = 0.9  # the kernel keeps a part of what the VM was given
CLOCK_SECONDS = 2.0
HOME = "/opt/stack"
NETRC = {"/root/.netrc": "root", f"{HOME}/.netrc": STACK_USER}
CONSTRAINTS = "/etc/stacklab/constraints.txt"
PIP_CONF = "/etc/pip.conf"
OURS = "# Written by lab."
_CA = {
    "debian": ("/usr/local/share/ca-certificates/stacklab.crt", "update-ca-certificates", "/etc/ssl/certs/ca-certificates.crt"),
    "redhat": ("/etc/pki/ca-trust/source/anchors/stacklab.pem", "update-ca-trust", "/etc/pki/tls/certs/ca-bundle.crt"),
}  # fmt: skip

_FACTS = r"""
. /etc/os-release
echo "$ID $VERSION_ID"
awk '/^MemTotal/ {print $2}' /proc/meminfo
mkdir -p /opt && df -Pk /opt | awk 'NR==2 {print $4}'
"""
# The file counts only when it is whole and right: a broken one in sudoers.d locks everybody out of sudo.
_USER = r"""
user=$1 home=$2
getent passwd "$user" >/dev/null || useradd -s /bin/bash -d "$home" -m -U "$user"
mkdir -p /etc/stacklab "$home"
printf '%s\n' "$user ALL=(ALL) NOPASSWD: ALL" "Defaults:$user !requiretty" >/etc/stacklab/sudoers
visudo -cf /etc/stacklab/sudoers >/dev/null
install -m 0440 -o root -g root /etc/stacklab/sudoers /etc/sudoers.d/40-stacklab
chown "$user": "$home"; chmod 0755 "$home"
"""


def stages(deployment: Deployment) -> list[Stage]:
    """In order; what the profile and the settings do not ask for is left out."""
    return list(_stages(deployment))


def _stages(deployment: Deployment) -> Iterator[Stage]:
    machine, profile, settings = deployment.machine, deployment.profile, deployment.settings
    packages = PackageManager(deployment)
    yield Stage("machine", "the machine fits", lambda: _known(deployment), lambda _: _fits(deployment), 2)
    yield _proxy(deployment, packages)
    if settings.ca_file:
        yield _trust(deployment)
    if repositories := profile.repositories:
        yield file_stage(
            machine, "repositories", "repositories", lambda progress: placed_files(repositories, settings, progress),
            detail=f"{len(repositories)} files", usual=5,
            # What yum remembers of a repository may be another one's.
            then=("yum", "clean", "expire-cache") if profile.family == "redhat" else (),
        )  # fmt: skip
    yield Stage("packages", "packages", packages.already, packages.change, 120)
    if profile.external_ids:
        yield _switch(machine, profile)
    yield _clock(machine)
    yield _locale(machine, profile.locale)
    yield _user(machine)
    if lines := _accounts(settings):
        detail = f"in {', '.join(NETRC)}"
        yield file_stage(machine, "accounts", "accounts of mirrors", lambda _: _netrc(machine, lines), detail=detail)
    yield _pip(machine, profile, settings)


# --- the machine -----------------------------------------------------------------------------------------------------


def _known(deployment: Deployment) -> str | None:
    return "looked at before; it is this lab's" if ours(deployment.machine, deployment.lab) else None


def _fits(deployment: Deployment) -> str:
    """Distribution, memory and disk, then the marker. Whether somebody uses the machine is `looks_used`'s to tell."""
    machine, profile = deployment.machine, deployment.profile
    facts = machine.script(_FACTS, user="root").lines
    distribution, memory, disk = facts[0], int(facts[1]) / 1024, int(facts[2]) / 1024**2
    if distribution != profile.distribution and not distribution.startswith(f"{profile.distribution}."):
        raise UnsupportedMachine(
            f"{machine.name} is {distribution}, and the profile {profile.name} is for {profile.distribution}",
            advice="lab up --profile NAME chooses another profile",
        )
    check_size(machine.name, profile, memory, disk)
    put_marker(machine, deployment.lab)
    return f"{distribution}, {memory:.0f} MiB of memory, {disk:.0f} GiB of disk free"


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


# --- proxy, certificates, accounts -----------------------------------------------------------------------------------


def _proxy(deployment: Deployment, packages: PackageManager) -> Stage:
    settings = deployment.settings
    variables = proxies(settings, deployment.host_ip)
    lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    environment = MachineFile(ENVIRONMENT, lines.encode(), mode=0o600)
    detail = without_account(settings.proxy or "none")
    if settings.packages_proxy:
        detail += f"; for packages {without_account(settings.packages_proxy)}"
    return file_stage(
        deployment.machine, "proxy", "proxy settings", lambda _: [environment, *packages.proxy_files()], detail=detail
    )


def _trust(deployment: Deployment) -> Stage:
    settings, (path, command, bundle) = deployment.settings, _CA[deployment.profile.family]
    return file_stage(
        deployment.machine, "trust", "certificates to trust", lambda _: [MachineFile(path, _certificates(settings))],
        detail=f"{settings.ca_file} in {bundle}", then=(command,), usual=3,
    )  # fmt: skip


def _certificates(settings: Settings) -> bytes:
    """The file with certificates to trust. Raises ProfileInvalid."""
    path = settings.ca_file
    try:
        content = path.read_bytes() if path else b""
        x509.load_pem_x509_certificates(content)
    except (OSError, ValueError) as error:
        problem = (
            f"cannot be read: {error.strerror}" if isinstance(error, OSError) else "holds no certificate in PEM format"
        )
        raise ProfileInvalid(f"ca_file {path} {problem}", advice="correct deploy: ca_file: in config.yaml") from error
    return content


def _accounts(settings: Settings) -> str:
    """The accounts that the machine needs."""
    options = pip_settings(settings, os.environ, "")
    indexes = [options.get("index-url", ""), *options.get("extra-index-url", "").split()]
    return accounts([*settings.mirrors.values(), *indexes])


def _netrc(machine: Machine, lines: str) -> list[MachineFile]:
    """Somebody else's lines stay above ours."""
    files = []
    for path, owner in NETRC.items():
        others = (machine.read(path) or b"").partition(HEADER.encode())[0]
        files.append(MachineFile(path, others + f"{HEADER}\n{lines}".encode(), mode=0o600, owner=owner))
    return files


# --- Open vSwitch, clock, locale, user -------------------------------------------------------------------------------


def _switch(machine: Machine, profile: Profile) -> Stage:
    ids = profile.external_ids

    def look() -> str | None:
        for key, value in ids.items():
            get = ("ovs-vsctl", "--timeout=30", "--if-exists", "get", "open", ".", f"external-ids:{key}")
            if machine.run(*get, user="root", check=False).out.strip().strip('"') != value:
                return None
        return ", ".join(f"{key}={value}" for key, value in ids.items())

    def change(progress: Progress) -> None:
        settings = [f"external-ids:{key}={value}" for key, value in ids.items()]
        machine.run("ovs-vsctl", "--timeout=60", "set", "open", ".", *settings, user="root")

    problem = f"Open vSwitch on {machine.name} does not keep its settings"
    return fact_stage("switch", "Open vSwitch settings", look, change, problem=problem, advice="ovs-vsctl show there")


def _clock(machine: Machine) -> Stage:
    """Tokens carry times: a clock that is off makes them useless."""

    def seconds_off() -> float:
        """Seconds that the machine's clock is ahead of this host's; the way there and back is not counted."""
        before = time.time()
        there = float(machine.run("date", "+%s.%N").out)
        return there - min(max(there, before), time.time())

    def look() -> str | None:
        off = abs(seconds_off())
        return f"right to {max(off, 0.1):.1f} s" if off <= CLOCK_SECONDS else None

    def change(progress: Progress) -> None:
        off = seconds_off()
        progress(f"{spoken(abs(off))} {'fast' if off > 0 else 'slow'}, setting it")
        machine.run("date", "-u", "-s", f"@{time.time():.3f}", user="root", check=False)

    problem = f"the clock of {machine.name} is off and could not be set"
    return fact_stage(
        "clock", "the clock", look, change, problem=problem, advice="set it there; tokens do not hold otherwise"
    )


def _locale(machine: Machine, locale: str) -> Stage:
    """DevStack sets LC_ALL to it without asking (stack.sh:63 at pike-eol)."""

    def look() -> str | None:
        there = {name.lower().replace("-", "") for name in machine.run("locale", "-a", check=False).lines}
        return "there" if locale.lower().replace("-", "") in there else None

    def change(progress: Progress) -> None:
        language, _, charset = locale.partition(".")
        charset = "UTF-8" if charset.lower().replace("-", "") == "utf8" else charset
        command = ("localedef", "-i", language, "-f", charset, f"{language}.{charset}")
        machine.run(*command, user="root", seconds=300, check=False)

    return fact_stage(
        "locale", f"locale {locale}", look, change, usual=10,
        problem=f"{machine.name} has no locale {locale}, and it could not be made",
        advice="install the package locales (Debian) or glibc-langpack-en (Red Hat) there",
    )  # fmt: skip


def _user(machine: Machine) -> Stage:
    def account() -> list[str]:
        """The user's seven fields in passwd; fewer if there is none."""
        return machine.run("getent", "passwd", STACK_USER, check=False).out.strip().split(":")

    def look() -> str | None:
        owner = machine.run("stat", "-c", "%U %a", HOME, user="root", check=False).out.strip()
        if len(account()) != 7 or account()[5] != HOME or owner != f"{STACK_USER} 755":
            return None
        sudo = machine.run("sudo", "-n", "true", user=STACK_USER, check=False).ok
        return f"home {HOME}, sudo without a password" if sudo else None

    def change(progress: Progress) -> None:
        fields = account()
        if len(fields) == 7 and fields[5] != HOME:
            raise UnsupportedMachine(
                f"{machine.name} has a user {STACK_USER} already, whose home is {fields[5]} and not {HOME}",
                advice=f"remove it there, or: usermod -d {HOME} {STACK_USER}",
            )
        machine.script(_USER, STACK_USER, HOME, user="root")

    return fact_stage(
        "user", f"user {STACK_USER}", look, change,
        problem=f"user {STACK_USER} on {machine.name} cannot use sudo without a password",
        advice=f"look there: sudo -l -U {STACK_USER}",
    )  # fmt: skip


# --- pip -------------------------------------------------------------------------------------------------------------


def _pip(machine: Machine, profile: Profile, settings: Settings) -> Stage:
    options = pip_settings(settings, os.environ, _CA[profile.family][2])
    if profile.pip_constraints:
        options["constraint"] = CONSTRAINTS
    constraints = "".join(f"{line}\n" for line in profile.pip_constraints).encode()

    def files(progress: Progress) -> list[MachineFile]:
        """A file that we wrote earlier and that has nothing to say now goes."""
        files = [MachineFile(CONSTRAINTS, constraints or None)]
        if options:
            lines = [f"{name} = {without_account(value)}" for name, value in options.items()]
            files.append(MachineFile(PIP_CONF, "\n".join([OURS, "[global]", *lines, ""]).encode()))
        elif (machine.read(PIP_CONF) or b"").startswith(OURS.encode()):
            files.append(MachineFile(PIP_CONF, None))
        return files

    index = without_account(options.get("index-url", "its own index"))
    detail = f"{index}, {len(profile.pip_constraints)} constraints"
    return file_stage(machine, "pip", "pip's settings", files, detail=detail)
