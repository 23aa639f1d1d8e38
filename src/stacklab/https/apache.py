"""Apache on the machine of a cloud: its files, and making it serve them. What differs between distributions is in facts.yaml.

DevStack's services share port 80. Each virtual host gets a port of its own; the plain addresses go on as internal endpoints.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from stacklab.errors import CommandFailed, StepFailed
from stacklab.https.authority import Names
from stacklab.https.peer import NoTls, ask
from stacklab.https.virtual_hosts import VirtualHost
from stacklab.machines.base import Finished, Machine
from stacklab.waiting import NotYet, until

OURS = "/etc/stacklab/https"
ANSWER_SECONDS = 180
INSTALL_SECONDS = 900
ADDED = 10000

# With their dependencies, as the files of the modules name them; those that are not enabled yet.
_MODULES = r"""
closure="$*"
for round in 1 2 3; do for module in $closure; do
    file=/etc/apache2/mods-available/$module.load
    [ ! -e $file ] || closure="$closure $(sed -n 's/^# Depends: *//p' $file)"
done; closure=$(printf '%s\n' $closure | awk '!seen[$0]++'); done
for module in $closure; do [ -e /etc/apache2/mods-enabled/$module.load ] || echo $module; done
"""

# a2dismod and a2dissite keep notes of what an administrator switched off.
_DISABLE = r"""
what=$1; shift
noted=/var/lib/apache2/$what/disabled_by_admin
[ -d $noted ] && known=yes || known=no
for name; do
    if [ $what = module ]; then a2dismod -q -f $name; else a2dissite -q $name; fi >/dev/null 2>&1 || :
    rm -f /var/lib/apache2/$what/enabled_by_admin/$name $noted/$name
done
[ $known = yes ] || [ ! -d $noted ] || rmdir $noted
"""

_THERE = 'for file in "$1"/"$2"*.conf; do [ ! -e "$file" ] || basename "$file" .conf; done'


@cache
def facts() -> dict[str, Any]:
    """What `facts.yaml` says."""
    content: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "facts.yaml").read_text(encoding="utf-8"))
    return content


@cache
def template(name: str) -> Any:
    """A Jinja2 template of ours."""
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - Apache's files, not HTML, and every value in them is ours
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


class Apache:
    """The Apache that a distribution brings, where a deployment has its services behind it already.

    `family`: of the distribution, as facts.yaml has it. `unit`: systemd's. `host`: the cloud's address. `keystone`: its plain
    address, which goes through the same Apache. All methods raise MachineUnreachable and its kin.
    """

    account: str | None = "root"
    """As whom files of the machine are changed."""
    certificate_path = f"{OURS}/server.pem"
    key_path = f"{OURS}/server.key"
    originals = f"{OURS}/original"
    """The directory on the machine for what was changed, as it was; nobody else reads it."""

    def __init__(self, machine: Machine, family: str, unit: str, host: str, keystone: str) -> None:
        self.machine = machine
        self.host = host
        self.unit = unit
        self._keystone = keystone
        self._known: dict[str, Any] = facts()["apache"][family]

    def why_not(self) -> str | None:
        """Why there can be no Apache here, and which package brings it; None if there can."""
        return None  # DevStack itself needs Apache

    @cached_property
    def names(self) -> Names:
        """What the server certificate must be for."""
        answer = self.machine.run("hostname", "-f", check=False)
        name = answer.out.strip()
        return Names((name,) if answer.ok and name and name != self.host and len(name) < 64 else (), (self.host,))

    # --- ports -----------------------------------------------------------------------------------------------------

    def plain_port(self) -> int:
        """Where plain HTTP to Horizon is redirected from."""
        return 80

    def port_for(self, name: str, own: int, ours: Iterable[int]) -> int:
        """The TLS port of a virtual host. `own`: where the service itself listens; `ours`: ports that are Apache's already."""
        port = int(facts()["ports"].get(name) or 20000 + zlib.crc32(name.encode()) % 5000)
        return port + ADDED if port == own or port in self._taken - {*ours} else port

    @cached_property
    def _taken(self) -> set[int]:
        """Ports on which something else than Apache listens."""
        lines = self._do("ss", "-Hltnp").lines
        others = [line.split() for line in lines if f'"{self.unit}"' not in line]
        return {int(words[3].rpartition(":")[2]) for words in others if len(words) > 3}

    # --- files and the commands that a person would type -----------------------------------------------------------

    def site_path(self, name: str) -> str:
        """The file of a virtual host."""
        return f"{self._known['sites']}/{self._known['prefix']}{name}.conf"

    def listening(self, host: VirtualHost) -> dict[str, Any]:
        """`address` of the virtual host, `listen` where it needs a line of its own, `own_plain_port`, `plain_listen`."""
        shared = host.port == 443 and self._known["listens_443"]
        listen = None if shared else str(host.port)
        return {"address": f"*:{host.port}", "listen": listen, "own_plain_port": False, "plain_listen": ""}

    def groundwork(self) -> dict[str, str]:
        """Files that the first virtual host needs beside its own, by path."""
        return {}

    def lines(self, names: Iterable[str]) -> list[str]:
        """The commands that make Apache use the virtual hosts' files."""
        test = f"sudo {self._known['program']} -t && sudo systemctl reload-or-restart {self.unit}"
        if package := self._known["package"]:
            return [f"sudo yum install -y {package}", test]
        sites = [f"{self._known['prefix']}{name}" for name in names]
        return [f"sudo a2enmod {' '.join(self._known['modules'])}", f"sudo a2ensite {' '.join(sites)}", test]

    def copying(self) -> list[str]:
        """The commands that bring the lab's certificate to where Apache reads it."""
        return [
            f"scp server.key server.pem {self.machine.name}:   # and there:",
            f"sudo install -D -m 600 server.key {self.key_path}; sudo install -D -m 644 server.pem {self.certificate_path}",
        ]

    def there(self) -> set[str]:
        """The names of the virtual hosts whose files are there."""
        prefix = self._known["prefix"]
        names = self.machine.script(_THERE, self._known["enabled"], prefix, user=self.account).lines
        return {name.removeprefix(prefix) for name in names}

    def install(self, key: bytes, certificate: bytes) -> None:
        """Put a certificate where Apache reads it; `reload` makes it read it."""
        self.machine.put(self.key_path, key, mode=0o600)
        self.machine.put(self.certificate_path, certificate)

    def installed(self, key: bytes, certificate: bytes) -> bool:
        """Whether these are what Apache reads."""
        return self.machine.read(self.key_path) == key and self.machine.read(self.certificate_path) == certificate

    def uninstall(self) -> None:
        """Take the certificate away from there."""
        self._do("rm", "-f", self.key_path, self.certificate_path)
        self.tidy()

    def tidy(self) -> None:
        """Remove directories of ours in which nothing lies any more."""
        directories = (self.originals, OURS, "/etc/stacklab")
        self.machine.run("rmdir", "--ignore-fail-on-non-empty", *directories, user=self.account, check=False)

    # --- serving ---------------------------------------------------------------------------------------------------

    def before(self) -> dict[str, Any]:
        """What must be known of Apache, to be put back later, before the first virtual host is made. JSON without secrets."""
        if modules := self._known["modules"]:
            return {"modules": self.machine.script(_MODULES, *modules, user=self.account).out.split()}
        package = self._known["package"]
        there = self.machine.run("rpm", "-q", package, check=False).ok
        return {"package": None if there else package, **self._selinux()}

    def _selinux(self) -> dict[str, Any]:
        """What enforcing SELinux would need changed: a boolean; ports are known when they are used."""
        enforcing = self.machine.run("getenforce", user=self.account, check=False).out.strip() == "Enforcing"
        boolean = "httpd_can_network_connect"
        off = enforcing and "--> off" in self.machine.run("getsebool", boolean, user=self.account, check=False).out
        return {"enforcing": enforcing, "boolean": boolean if off else None}

    def serve(self, contents: Mapping[str, str], ports: Iterable[int], before: Mapping[str, Any]) -> None:
        """Write the files of virtual hosts (content by name) and make Apache serve them. Raises StepFailed with its words."""
        if before.get("package"):
            self._do("yum", "install", "-y", before["package"], seconds=INSTALL_SECONDS)
        self._label(before, ports)
        for name, content in contents.items():
            self.machine.put(self.site_path(name), content)
        if modules := self._known["modules"]:
            self._do("a2enmod", "-q", *modules)
            self._do("a2ensite", "-q", *(f"{self._known['prefix']}{name}" for name in contents))
        self.reload()

    def _label(self, before: Mapping[str, Any], ports: Iterable[int]) -> None:
        """Unproven: no machine with SELinux and Apache was at hand. semanage(8), httpd_selinux(8)."""
        if not before.get("enforcing"):
            return
        if before["boolean"]:
            self._do("setsebool", before["boolean"], "on")
        for port in ports:
            argv = ("-t", "http_port_t", "-p", "tcp", str(port))
            if not self.machine.run("semanage", "port", "-a", *argv, user="root", check=False, seconds=300).ok:
                self._do("semanage", "port", "-m", *argv, seconds=300)

    def remove(self, names: Iterable[str], ports: Iterable[int], before: Mapping[str, Any]) -> bool:
        """Take virtual hosts away, and with the last of them everything that was done to Apache; False if none was there."""
        names = list(names)
        removed = self.there() & {*names}
        if self._known["modules"]:
            self.machine.script(
                _DISABLE, "site", *(f"{self._known['prefix']}{name}" for name in names), user=self.account
            )
        self._do("rm", "-f", *(self.site_path(name) for name in names))
        if before.get("enforcing"):
            for port in ports:  # fails for one that was only changed; its local rule goes all the same
                argv = ("port", "-d", "-p", "tcp", str(port))
                self.machine.run("semanage", *argv, user="root", check=False, seconds=300)
        if not self.there():
            self.put_back(before)
        elif removed:
            self.reload()
        return bool(removed)

    def put_back(self, before: Mapping[str, Any]) -> None:
        """Apache as it was before the first virtual host."""
        if modules := before.get("modules"):
            self.machine.script(_DISABLE, "module", *modules, user=self.account)
        if before.get("package"):
            self._do("yum", "remove", "-y", before["package"], seconds=INSTALL_SECONDS)
        if before.get("enforcing") and before["boolean"]:
            self._do("setsebool", before["boolean"], "off")
        self.reload()

    def reload(self) -> None:
        """Make Apache read its files again, and wait until it answers. Raises StepFailed with its words."""
        tested = self.machine.run(self._known["program"], "-t", user=self.account, check=False)
        if not tested.ok:
            raise StepFailed(f"Apache does not take its configuration: {' '.join(tested.err.split())[-400:]}")
        try:
            self._do("systemctl", "reload-or-restart", self.unit)
        except CommandFailed as error:
            raise StepFailed(
                f"Apache did not start: {error.said or error.message}", advice=f"journalctl -u {self.unit}"
            ) from error
        until(self._answers, "Keystone's answer through Apache", seconds=ANSWER_SECONDS, every=0.3, error=StepFailed)

    def _answers(self) -> bool | NotYet:
        parts = urlsplit(self._keystone)
        try:
            status = ask(str(parts.hostname), parts.port or 80, parts.path, tls=False).status
        except NoTls as error:
            return NotYet(str(error))
        return True if status < 500 else NotYet(f"HTTP {status}")

    def _do(self, *argv: str, seconds: float = 120) -> Finished:
        return self.machine.run(*argv, user=self.account, seconds=seconds)
