"""A real Debian 12 machine with systemd and SSH, in systemd-nspawn: what `deploy` and the fixes are tested against.

    with system(tmp_path) as machine:                 # up in about ten seconds once its root file system is cached
        machine.ssh("systemctl", "is-active", "ssh", user="root")

`python -m tests.systems` runs one by hand until it is interrupted.

Its root file system is built by mmdebstrap from the distribution's packages, once for a list of packages, and kept under
$XDG_CACHE_HOME/stacklab/systems; a machine works on a throw-away overlay of it. It has a network of its own, whose bridge the
host holds an end of, reaches the host's package registries through it (masqueraded), and gets the host's settings for
apt, certificates and pip. Needs root, Debian's systemd-container, mmdebstrap, iproute2, iptables, openssh-client and a
file system that an overlay can lie on. Everything that is made here is named after the network (`labsys17`) and goes with it;
only net.ipv4.ip_forward stays on, because somebody else may count on it by then.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import fcntl
import hashlib
import inspect
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

RELEASE = "bookworm"
PACKAGES = (
    *("apt-utils", "bash-completion", "ca-certificates", "curl", "dbus", "file", "git", "iproute2", "iptables"),
    *("iputils-ping", "less", "libpam-systemd", "locales", "lsb-release", "lsof", "nano", "netbase", "openssh-server"),
    *("procps", "psmisc", "python3", "python3-venv", "rsync", "sudo", "systemd", "systemd-sysv", "udev", "vim-tiny"),
    "wget",
)
SERVICES = ("apache2", "memcached")
"""Two of DevStack's neighbours, for the fixes. `bare`, without them, it is a machine that nobody uses yet."""
USER = "learner"
BOOT_SECONDS = 600
SETTLE_SECONDS = 300
STOP_SECONDS = 300
BUILD_SECONDS = 1800
REGISTRY_SETTINGS = ("cert", "index-url", "extra-index-url", "proxy", "trusted-host", "timeout")
"""What of pip's configuration says where packages come from."""

# With --keep-unit systemd-nspawn does not boot a machine again itself but ends with 133. The trap keeps the loop alive until
# nspawn has ended after SIGTERM.
BOOT_LOOP = """
for group in $LAB_GROUPS; do echo $$ >"$group/cgroup.procs"; done; unset LAB_GROUPS
trap : TERM
while :; do status=0; "$@" || status=$?; [ "$status" = 133 ] || exit "$status"; done
"""
# Merging memory pages is the host's business. DevStack fails where the switch is there but read-only, and goes on without it.
KSM = "sys-kernel-mm-ksm.mount"
CA_DIRECTORY = Path("/usr/local/share/ca-certificates")
CGROUPS = Path("/sys/fs/cgroup")


class NoSystem(Exception):
    """This machine cannot run one, or the one that was started does not answer. The message says why, with evidence."""


def missing() -> str | None:
    """Why no system can be run here, or None. For `pytest.skip`."""
    if os.geteuid() != 0:
        return "a systemd machine in systemd-nspawn needs root"
    programs = {
        "systemd-nspawn": "systemd-container",
        "mmdebstrap": "mmdebstrap",
        "iptables": "iptables",
        "ip": "iproute2",
        "ssh": "openssh-client",
    }
    lacking = [package for program, package in programs.items() if shutil.which(program) is None]
    return f"run: apt-get install {' '.join(lacking)}" if lacking else None


@dataclass
class System:
    """A running machine. `user` may use sudo without a password; `key` opens `user` and root; `known_hosts` has its host key.

    `root`: its file system as the host sees it. `console`: a file with what it printed. `pid`: leads the process group of
    systemd-nspawn and of the loop that starts it again when the machine reboots.
    """

    name: str
    address: str
    gateway: str
    user: str
    key: Path
    known_hosts: Path
    root: Path
    console: Path
    pid: int
    _process: subprocess.Popen[bytes] = field(repr=False)
    _groups: list[Path] = field(repr=False)

    def ssh_options(self) -> list[str]:
        """What ssh and scp need to get in, the host key pinned."""
        options = {
            "UserKnownHostsFile": self.known_hosts,
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "5",
        }
        return ["-F", "none", "-i", str(self.key), *(f"-o{name}={value}" for name, value in options.items())]

    def ssh(
        self, *command: str, user: str | None = None, given: str | None = None, seconds: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line (the words are joined by the remote shell, as ssh does)."""
        argv = ["ssh", *self.ssh_options(), f"{user or self.user}@{self.address}", *command]
        done = subprocess.run(argv, input=given or "", capture_output=True, text=True, timeout=seconds, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def boot_id(self) -> str | None:
        """Names this boot; None as long as nobody can log in."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = self.ssh("cat /proc/sys/kernel/random/boot_id", user="root", seconds=20, check=False)
            return done.stdout.strip() if done.returncode == 0 else None
        return None

    def wait(self, seconds: float = BOOT_SECONDS, *, after: str | None = None) -> None:
        """Until root can log in (to another boot than `after`) and units are up. Raises NoSystem with the console's end."""
        until = time.monotonic() + seconds
        while (boot := self.boot_id()) is None or boot == after:
            if self._process.poll() is not None:
                raise NoSystem(f"{self.name}: systemd-nspawn ended with {self._process.returncode}:\n{self._said()}")
            if time.monotonic() > until:
                raise NoSystem(f"{self.name}: no SSH login at {self.address} within {seconds:.0f} s:\n{self._said()}")
            time.sleep(0.3)
        # sshd is there before much else; a unit that never comes up is the affair of whoever wants it.
        settled = f"timeout {SETTLE_SECONDS} systemctl is-system-running --wait"
        self.ssh(settled, user="root", seconds=2 * SETTLE_SECONDS, check=False)

    def reboot(self, seconds: float = 2 * BOOT_SECONDS) -> None:
        """Shut down in order and boot again; back when root can log in. The file system stays."""
        before = self.boot_id()
        self.ssh("systemctl reboot", user="root", check=False)
        self.wait(seconds, after=before)

    def running(self) -> bool:
        """Whether it has not been shut down (a reboot is none)."""
        return self._process.poll() is None

    def stop(self, seconds: float = 0) -> None:
        """End it: with `seconds`, by an orderly shutdown for as long as that; else, and then, at once."""
        if self._process.poll() is None and seconds:
            os.killpg(self.pid, signal.SIGTERM)  # nspawn passes it on as SIGRTMIN+3: shut down
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        _end(self._process, self._groups)

    def _said(self) -> str:
        return "\n".join(self.console.read_text(errors="replace").splitlines()[-25:])


@contextlib.contextmanager
def system(
    scratch: Path,
    packages: Sequence[str] = (),
    *,
    bare: bool = False,
    base: Path | None = None,
    cache: Path | None = None,
    network: str | None = None,
    identity: Path | None = None,
    orderly: bool = False,
) -> Iterator[System]:
    """A running machine, gone with everything that belongs to it at the end of the `with`.

    `scratch`: where its changes and its key go (removed by whoever made it). `packages`: of the distribution, beside PACKAGES
    and SERVICES (`bare`: without SERVICES). `base`: a root file system to use instead of the one that would be built (never
    written to). `network`: a /24 ("10.213.17.0/24") instead of the first free one, for a machine that knows its address.
    `identity`: a directory with `key` and `known_hosts` of the machine that `base` is a copy of, to be that machine again on
    that machine's network. `orderly`: shut it down at the end.
    """
    if why := missing():
        raise NoSystem(why)
    lower = base or root_file_system(packages, cache, bare=bare)
    work = Path(tempfile.mkdtemp(prefix="system-", dir=scratch))
    with contextlib.ExitStack() as stack:
        name, net = stack.enter_context(_network(network))
        root = stack.enter_context(_overlay(lower, work))
        key, known_hosts = work / "key", work / "known_hosts"
        if identity is None:
            _make_identity(root, key, known_hosts, name, net)
        else:
            shutil.copy2(identity / key.name, key)
            shutil.copy2(identity / known_hosts.name, known_hosts)
        _personalise(root, work, name, net)
        groups = stack.enter_context(_control_groups(name))
        console = work / "console"
        process = stack.enter_context(_booted(root, name, groups, console))
        machine = System(
            name, str(net[2]), str(net[1]), USER, key, known_hosts, root, console, process.pid, process, groups
        )
        stack.callback(lambda: machine.stop(STOP_SECONDS if orderly else 0))
        machine.wait()
        yield machine


# -- the root file system


def root_file_system(packages: Sequence[str] = (), cache: Path | None = None, *, bare: bool = False) -> Path:
    """A directory with a Debian that boots; built if it is not there yet (one to three minutes)."""
    directory = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stacklab" / "systems"
    directory.mkdir(parents=True, exist_ok=True)
    wanted = sorted({*PACKAGES, *packages, *(() if bare else SERVICES)})
    certificates = sorted(CA_DIRECTORY.glob("*.crt")) if CA_DIRECTORY.is_dir() else []
    known = [inspect.getsource(_build).encode(), *(path.read_bytes() for path in [*_sources(), *certificates])]
    key = hashlib.sha256(b"".join([" ".join(wanted).encode(), *known])).hexdigest()[:12]
    target = directory / f"debian12-{key}"
    with (directory / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _build(target, wanted, certificates)
    return target


def _sources() -> list[Path]:
    """The host's package sources, where it is the same distribution; else mmdebstrap's own."""
    if f"VERSION_CODENAME={RELEASE}" not in Path("/etc/os-release").read_text().splitlines():
        return []
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.[ls]*"))]
    return [
        path for path in places if path.suffix in (".list", ".sources") and path.is_file() and path.read_text().strip()
    ]


def _build(target: Path, packages: list[str], certificates: list[Path]) -> None:
    part = target.with_name(f".{target.name}.part")
    _run("rm", "-rf", "--one-file-system", str(part))
    dumped = _run("apt-config", "dump", "--format", '%F "%v";%n').splitlines()
    reaching = [line for line in dumped if line.startswith("Acquire::") and '""' not in line]
    with tempfile.NamedTemporaryFile("w", prefix="apt-", suffix=".conf") as options:
        options.write("\n".join(reaching) + "\n")
        options.flush()
        Path(options.name).chmod(0o644)
        copies = [f"--customize-hook=copy-in {path} {CA_DIRECTORY}" for path in certificates]
        log = _run(
            *(
                "mmdebstrap",
                "--mode=root",
                "--variant=minbase",
                "--format=directory",
                f"--include={','.join(packages)}",
            ),
            *(f"--aptopt={options.name}", '--aptopt=APT::Install-Recommends "false"', "--skip=output/dev"),
            *(f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("man", "doc")),
            *copies,
            '--customize-hook=chroot "$1" update-ca-certificates',
            f'--customize-hook=chroot "$1" useradd -m -s /bin/bash {USER}',
            '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/machine-id "$1"/var/lib/dbus/machine-id',
            '--customize-hook=chroot "$1" systemctl enable systemd-networkd ssh',
            '--customize-hook=chroot "$1" systemctl mask systemd-networkd-wait-online.service',
            '--customize-hook=chroot "$1" systemctl disable apt-daily.timer apt-daily-upgrade.timer',
            '--customize-hook=chroot "$1" systemctl disable e2scrub_all.timer e2scrub_reap.service',
            *(RELEASE, str(part), *map(str, _sources())),
            seconds=BUILD_SECONDS,
        )
    if not (part / "sbin/init").is_symlink() and not (part / "sbin/init").exists():
        raise NoSystem(f"mmdebstrap made no bootable root file system:\n{log[-2000:]}")
    part.replace(target)


# -- what belongs to one machine


@contextlib.contextmanager
def _network(wanted: str | None) -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """A bridge with a free network, masqueraded; yields the name of both and the network."""
    candidates = [wanted] if wanted else [f"10.213.{number}.0/24" for number in range(10, 250)]
    routes = json.loads(_run("ip", "-json", "-4", "route", "show", "table", "all") or "[]")
    taken = [ipaddress.ip_network(r["dst"], strict=False) for r in routes if r.get("dst", "default") != "default"]
    for candidate in candidates:
        net = ipaddress.IPv4Network(candidate)
        name = f"labsys{net.network_address.packed[2]}"
        if any(net.overlaps(other) for other in taken if isinstance(other, ipaddress.IPv4Network)):
            continue
        # Whoever makes the link has the network: two tests at once cannot both succeed.
        if (
            subprocess.run(["ip", "link", "add", name, "type", "bridge"], capture_output=True, check=False).returncode
            == 0
        ):
            break
    else:
        raise NoSystem(f"no free network among {candidates[0]} … {candidates[-1]}")
    note = ("-m", "comment", "--comment", name)
    rules = (
        ("nat", "POSTROUTING", "-s", str(net), "!", "-d", str(net), *note, "-j", "MASQUERADE"),
        ("filter", "FORWARD", "-i", name, *note, "-j", "ACCEPT"),
        ("filter", "FORWARD", "-o", name, *note, "-j", "ACCEPT"),
    )
    with contextlib.ExitStack() as stack:
        stack.callback(_run, "ip", "link", "delete", name)
        # A killed systemd-nspawn leaves its end, which goes with the namespace, but when is the kernel's business.
        stack.callback(subprocess.run, ["ip", "link", "delete", f"vb-{name}"], capture_output=True, check=False)
        _run("ip", "address", "add", f"{net[1]}/{net.prefixlen}", "dev", name)
        _run("ip", "link", "set", name, "up")
        for table, chain, *rule in rules:
            _run("iptables", "-w", "10", "-t", table, "-I", chain, *rule)
            stack.callback(_run, "iptables", "-w", "10", "-t", table, "-D", chain, *rule)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
        yield name, net


@contextlib.contextmanager
def _overlay(lower: Path, work: Path) -> Iterator[Path]:
    root, upper, inner = (work / part for part in ("root", "upper", "work"))
    for path in (root, upper, inner):
        path.mkdir()
    shutil.copystat(lower, upper)
    # index and redirect_dir are off so that the base stays usable for everybody, whatever the kernel's defaults are.
    options = f"lowerdir={lower},upperdir={upper},workdir={inner},index=off,redirect_dir=off,metacopy=off"
    _run("mount", "-t", "overlay", "labsystem", "-o", options, str(root))
    try:
        yield root
    finally:
        _run("umount", str(root))
        _run("rm", "-rf", "--one-file-system", str(inner))


def _make_identity(root: Path, key: Path, known_hosts: Path, name: str, net: ipaddress.IPv4Network) -> None:
    """A key that root and USER let in, and a host key."""
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key))
    public = key.with_suffix(".pub").read_text()
    for home in (root / "root", root / "home" / USER):
        owner = home.stat()
        (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
        (home / ".ssh/authorized_keys").write_text(public)
        for path in (home / ".ssh", home / ".ssh/authorized_keys"):
            os.chown(path, owner.st_uid, owner.st_gid)
    host_key = root / "etc/ssh/ssh_host_ed25519_key"
    for old in host_key.parent.glob("ssh_host_*"):
        old.unlink()
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(host_key))
    known_hosts.write_text(f"{net[2]} {host_key.with_suffix('.pub').read_text()}")


def _personalise(root: Path, work: Path, name: str, net: ipaddress.IPv4Network) -> None:
    """Its name, address and accounts, and the host's settings."""
    _write(root / "etc/sudoers.d/lab", f"{USER} ALL=(ALL) NOPASSWD:ALL\n", 0o440)
    _write(root / "etc/hostname", f"{name}\n")
    _write(root / "etc/hosts", f"127.0.0.1 localhost\n{net[2]} {name}\n")
    _write(root / "etc/machine-id", hashlib.sha256(f"{name} {work}".encode()).hexdigest()[:32] + "\n", 0o444)
    addresses = (
        f"[Network]\nAddress={net[2]}/{net.prefixlen}\nGateway={net[1]}\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n"
    )
    _write(root / "etc/systemd/network/10-lab.network", f"[Match]\nName=host0\n\n{addresses}")
    if (Path("/") / KSM.removesuffix(".mount").replace("-", "/")).is_dir():
        _write(
            root / "etc/systemd/system" / KSM, "[Mount]\nWhat=none\nWhere=/sys/kernel/mm/ksm\nType=tmpfs\nOptions=ro\n"
        )
        _write(root / "etc/systemd/system/local-fs.target.d/ksm.conf", f"[Unit]\nWants={KSM}\n")
    # systemd-resolved's stub listens on the host's loopback only; the list behind it is what helps elsewhere.
    behind = Path("/run/systemd/resolve/resolv.conf")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    _write(root / "etc/resolv.conf", (behind if behind.exists() else Path("/etc/resolv.conf")).read_text())
    _write(root / "etc/pip.conf", _pip_settings())


def _pip_settings() -> str:
    """What this host's pip is told of where packages are, as far as it holds on another machine."""
    found: dict[str, str] = {}
    for path in (Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", Path.home() / ".config/pip/pip.conf"):
        parser = configparser.RawConfigParser()
        parser.read(path)
        found |= dict(parser["global"]) if parser.has_section("global") else {}
    found |= {n: os.environ[e] for n in REGISTRY_SETTINGS if (e := f"PIP_{n.replace('-', '_').upper()}") in os.environ}
    found = {name: " ".join(w for w in value.split() if not w.startswith("file:")) for name, value in found.items()}
    if "cert" in found:
        found["cert"] = "/etc/ssl/certs/ca-certificates.crt"  # which holds the host's own, see _build
    settings = [f"{name} = {found[name]}" for name in REGISTRY_SETTINGS if found.get(name)]
    return "\n".join(["[global]", *settings, ""])


@contextlib.contextmanager
def _control_groups(name: str) -> Iterator[list[Path]]:
    """A control group of its own: two machines that share one would take each other's services for theirs."""
    made = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        hierarchy = {"name=systemd": "systemd", "": "unified" if (CGROUPS / "unified").is_dir() else "."}.get(
            controllers
        )
        if hierarchy is not None:
            made.append(CGROUPS / hierarchy / path.lstrip("/") / name)
    try:
        for group in made:
            group.mkdir(exist_ok=True)
        yield made
    finally:
        for group in made:
            _remove_group(group)


def _remove_group(group: Path) -> None:
    """Kill what is in it and remove it. (The machine's processes outlive a killed systemd-nspawn.)"""
    until = time.monotonic() + STOP_SECONDS
    while group.is_dir():
        # os.walk, because rglob raises when a directory goes while it looks, and these go as their processes end.
        for inner, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):  # gone meanwhile
                for pid in map(int, Path(inner, "cgroup.procs").read_text().split()):
                    if pid > 0:  # 0 stands for a process of another namespace, and would mean ourselves
                        os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):  # in use still, or gone
                Path(inner).rmdir()
        if time.monotonic() > until:
            raise NoSystem(f"{group} is still in use {STOP_SECONDS} s after everything in it was killed")
        time.sleep(0.05)


@contextlib.contextmanager
def _booted(root: Path, name: str, groups: list[Path], console: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = [
        *(
            "systemd-nspawn",
            "--quiet",
            f"--directory={root}",
            "--boot",
            f"--machine={name}",
            "--register=no",
            "--keep-unit",
        ),
        *(f"--network-bridge={name}", "--capability=all", "--resolv-conf=off", "--timezone=off", "--link-journal=no"),
        *("--console=pipe", "--kill-signal=SIGRTMIN+3"),
    ]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LAB_GROUPS": " ".join(map(str, groups)),
        # As on any Debian 12; where the host has the old control groups the machine would see those, read-only.
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    }
    with console.open("wb") as out:
        process = subprocess.Popen(
            ["sh", "-eu", "-c", BOOT_LOOP, "sh", *argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )
    try:
        yield process
    finally:
        _end(process, groups)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(Path("/run/systemd/nspawn/propagate") / name)  # nspawn refuses to where /run is no tmpfs


def _end(process: subprocess.Popen[bytes], groups: list[Path]) -> None:
    """systemd-nspawn and its loop, at once, and what ran in the machine with them."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_SECONDS)
    for group in groups:
        _remove_group(group)


def _write(path: Path, content: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(content)
    path.chmod(mode)


def _run(*argv: str, seconds: float = 120) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise NoSystem(f"{' '.join(argv)[:300]}: status {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def main() -> int:
    """`python -m tests.systems`: one machine by hand."""
    parser = argparse.ArgumentParser(prog="python -m tests.systems", description="A Debian 12 machine, until Ctrl-C.")
    parser.add_argument(
        "--base", type=Path, help="a root file system to use instead of building one; it is not written to"
    )
    parser.add_argument("--network", help="a /24 instead of the first free one")
    parser.add_argument(
        "--identity", type=Path, help="a directory with the key and known_hosts of the machine that --base was"
    )
    parser.add_argument("--package", action="append", default=[], help="a package to have beside the usual ones")
    parser.add_argument("--bare", action="store_true", help="without Apache and memcached")
    parser.add_argument(
        "--scratch", type=Path, help="where its changes go; left there (default: a directory that is removed)"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):
        scratch = arguments.scratch or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="systems-", dir="/var/tmp"))
        )
        scratch.mkdir(parents=True, exist_ok=True)
        running = system(
            scratch,
            arguments.package,
            bare=arguments.bare,
            base=arguments.base,
            network=arguments.network,
            identity=arguments.identity,
            orderly=True,
        )
        machine = stack.enter_context(running)
        print("ssh", *machine.ssh_options(), f"{machine.user}@{machine.address}", flush=True)
        while machine.running():
            time.sleep(1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
