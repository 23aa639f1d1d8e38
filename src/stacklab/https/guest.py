"""TLS on the machine of a DevStack cloud: in that machine's own Apache, beside what DevStack put there.

DevStack's services share port 80; each front gets a port of its own, and the plain addresses go on as internal endpoints.
"""

from __future__ import annotations

import shlex
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from stacklab.deploy.profile.model import Profile
from stacklab.errors import CommandFailed, StepFailed
from stacklab.https.authority import Names
from stacklab.https.facts import facts
from stacklab.https.fronts import Front
from stacklab.https.peer import NoTls, ask
from stacklab.https.server import Catalogue, Https, Setting
from stacklab.lab import Lab
from stacklab.machines.base import Machine

OURS = "/etc/stacklab/https"
PREFIX = "00-stacklab-tls-"
"""Before mod_ssl's own virtual host: without a name in the handshake (addresses have none) Apache takes the first one."""
APACHE = "apache"
ANSWER_SECONDS = 180
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


class GuestHttps(Https):
    """See `stacklab.https.server.Https`."""

    account = "root"
    plain_port = 80

    def __init__(
        self,
        lab: Lab,
        machine: Machine,
        profile: Profile,
        host: str,
        dashboard: str,
        rewrite: Callable[[], None],
    ) -> None:
        super().__init__(lab.home_directory / "https", lab.name, machine, rewrite)
        self.profile = profile
        self.host = host
        self._dashboard = dashboard
        self._known: dict[str, Any] = facts()["guest"][profile.family]
        self._unit = profile.units.apache

    @property
    def dashboard(self) -> str:
        return self._dashboard

    def why_not(self) -> str | None:
        return None  # DevStack itself needs Apache

    def names(self) -> Names:
        return Names(self._hosts, (self.host,))

    @cached_property
    def _hosts(self) -> tuple[str, ...]:
        said = self.machine.run("hostname", "-f", check=False)
        name = said.out.strip()
        return (name,) if said.ok and name and name != self.host and len(name) < 64 else ()

    def port_for(self, name: str, own: int) -> int:
        if kept := self.remembered().get(name):
            return kept.port
        port = int(facts()["ports"].get(name) or 20000 + zlib.crc32(name.encode()) % 5000)
        return port + ADDED if port == own or port in self._taken else port

    @cached_property
    def _taken(self) -> set[int]:
        """Ports on which something else than Apache listens."""
        ours = {front.port for front in self.remembered().values()}
        lines = self._root("ss", "-Hltnp").lines
        others = [line.split() for line in lines if f'"{self._unit}"' not in line]
        return {int(words[3].rpartition(":")[2]) for words in others if len(words) > 3} - ours

    # --- files -----------------------------------------------------------------------------------------------------

    @property
    def certificate_path(self) -> str:
        return f"{OURS}/server.pem"

    @property
    def key_path(self) -> str:
        return f"{OURS}/server.key"

    def site_path(self, name: str) -> str:
        return f"{self._known['sites']}/{PREFIX}{name}.conf"

    def listening(self, front: Front) -> dict[str, Any]:
        shared = front.port == 443 and self._known["listens_443"]
        return {
            "address": f"*:{front.port}", "listen": None if shared else str(front.port), "own_plain_port": False,
            "plain_listen": "",
        }  # fmt: skip

    def lines(self, names: Iterable[str]) -> list[str]:
        sites = [f"{PREFIX}{name}" for name in names]
        test = f"sudo {self._known['program']} -t && sudo systemctl reload-or-restart {self._unit}"
        if self.profile.family == "debian":
            return [f"sudo a2enmod {' '.join(self._known['modules'])}", f"sudo a2ensite {' '.join(sites)}", test]
        return [f"sudo yum install -y {self._known['package']}", test]

    def copying(self) -> list[str]:
        return [
            f"scp server.key server.pem {self.machine.name}:   # and there:",
            f"sudo install -D -m 600 server.key {self.key_path}; sudo install -D -m 644 server.pem {self.certificate_path}",
        ]

    def install(self) -> None:
        authority = self.authority
        self.machine.put(self.key_path, authority.server_key_file.read_bytes(), mode=0o600)
        self.machine.put(self.certificate_path, authority.server_certificate_file.read_bytes())
        if there := self.there():
            self._reload()
            self.await_certificate(front for name, front in self.remembered().items() if name in there)

    def installed(self) -> bool:
        authority = self.authority
        pairs = (
            (self.key_path, authority.server_key_file),
            (self.certificate_path, authority.server_certificate_file),
        )
        return all(file.exists() and self.machine.read(path) == file.read_bytes() for path, file in pairs)

    def uninstall(self) -> None:
        self._root("rm", "-f", self.key_path, self.certificate_path)
        self._tidy()

    def _tidy(self) -> None:
        directories = (self.originals, OURS, "/etc/stacklab")
        self.machine.run("rmdir", "--ignore-fail-on-non-empty", *directories, user="root", check=False)

    # --- Apache ----------------------------------------------------------------------------------------------------

    def before(self) -> dict[str, Any]:
        if not self.begun(APACHE):
            self.begin(APACHE, self._look())
        return self.noted(APACHE)

    def _look(self) -> dict[str, Any]:
        if self.profile.family == "debian":
            found = self.machine.script(_MODULES, *self._known["modules"], user="root").out.split()
            return {"modules": found}
        package = str(self._known["package"])
        there = self.machine.run("rpm", "-q", package, check=False).ok
        return {"package": None if there else package, **self._selinux()}

    def _selinux(self) -> dict[str, Any]:
        """What enforcing SELinux would need changed: a boolean; ports are known when they are used."""
        enforcing = self.machine.run("getenforce", user="root", check=False).out.strip() == "Enforcing"
        boolean = "httpd_can_network_connect"
        off = enforcing and "--> off" in self.machine.run("getsebool", boolean, user="root", check=False).out
        return {"enforcing": enforcing, "boolean": boolean if off else None}

    def apply(self, contents: Mapping[str, str]) -> None:
        kept = self.before()
        fronts = {name: front for name, front in self.remembered().items() if name in contents}
        if kept.get("package"):
            self._root("yum", "install", "-y", kept["package"], seconds=900)
        self._label(kept, fronts.values())
        for name, content in contents.items():
            self.machine.put(self.site_path(name), content)
        if self.profile.family == "debian":
            self._root("a2enmod", "-q", *self._known["modules"])
            self._root("a2ensite", "-q", *(f"{PREFIX}{name}" for name in contents))
        self._reload()
        self.await_certificate(fronts.values())

    def _label(self, kept: Mapping[str, Any], fronts: Iterable[Front]) -> None:
        """Unproven: no machine with SELinux and Apache was at hand. semanage(8), httpd_selinux(8)."""
        if not kept.get("enforcing"):
            return
        if kept["boolean"]:
            self._root("setsebool", kept["boolean"], "on")
        for front in fronts:
            argv = ("-t", "http_port_t", "-p", "tcp", str(front.port))
            if not self.machine.run("semanage", "port", "-a", *argv, user="root", check=False, seconds=300).ok:
                self._root("semanage", "port", "-m", *argv, seconds=300)

    def withdraw(self, names: Iterable[str], kept: Mapping[str, Any]) -> bool:
        names = list(names)
        removed = self.there() & set(names)
        ports = [front.port for name, front in self.remembered().items() if name in names]
        if self.profile.family == "debian":
            self.machine.script(_DISABLE, "site", *(f"{PREFIX}{name}" for name in names), user="root")
        self._root("rm", "-f", *(self.site_path(name) for name in names))
        left = self.there()
        self.remember({name: front for name, front in self.remembered().items() if name in left})
        if kept.get("enforcing"):
            for port in ports:  # fails for one that was only changed; its local rule goes all the same
                argv = ("port", "-d", "-p", "tcp", str(port))
                self.machine.run("semanage", *argv, user="root", check=False, seconds=300)
        if not left:
            self._put_back(kept)
        if removed or not left:
            self._reload()
        return bool(removed)

    def _put_back(self, kept: Mapping[str, Any]) -> None:
        """What was done to Apache itself."""
        if modules := kept.get("modules"):
            self.machine.script(_DISABLE, "module", *modules, user="root")
        if kept.get("package"):
            self._root("yum", "remove", "-y", kept["package"], seconds=900)
        if kept.get("enforcing") and kept["boolean"]:
            self._root("setsebool", kept["boolean"], "off")
        self.end(APACHE)

    def there(self) -> set[str]:
        script = f'for file in "$1"/{PREFIX}*.conf; do [ ! -e "$file" ] || basename "$file" .conf; done'
        found = self.machine.script(script, str(self._known["enabled"]), user="root").lines
        return {line.removeprefix(PREFIX) for line in found}

    def _reload(self) -> None:
        tested = self.machine.run(str(self._known["program"]), "-t", user="root", check=False)
        if not tested.ok:
            raise StepFailed(f"Apache does not take its configuration: {' '.join(tested.err.split())[-400:]}")
        try:
            self._root("systemctl", "reload-or-restart", self._unit)
        except CommandFailed as error:
            raise StepFailed(
                f"Apache did not start: {error.said or error.message}", advice=f"journalctl -u {self._unit}"
            ) from error
        self._answers()

    def _answers(self) -> None:
        """Until Keystone's plain address answers again, through the same Apache."""
        parts = urlsplit(self._dashboard)
        port, path = parts.port or 80, self.profile.cloud.identity
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                status = ask(str(parts.hostname), port, path, tls=False).status
                if status < 500:
                    return
                said = f"HTTP {status}"
            except NoTls as error:
                said = str(error)
            if time.monotonic() > deadline:
                raise StepFailed(f"Keystone does not answer through Apache after {ANSWER_SECONDS} s: {said}")
            time.sleep(0.3)

    # --- the services ----------------------------------------------------------------------------------------------

    def settings(self, catalogue: Catalogue) -> list[Setting]:
        kinds = [str(one["type"]) for one in catalogue.services]
        volume = next((one for one in ("block-storage", "volumev3", "volumev2", "volume") if one in kinds), "volumev3")
        name = next((str(one["name"]) for one in catalogue.services if one["type"] == volume), "")
        here = set(self.profile.units.devstack)
        found = []
        for one in facts()["settings"]:
            value = one["value"].replace("{volume}", f"{volume}:{name}") if one["value"] else None
            units = tuple(unit for unit in one["units"] if unit in here)
            found.append(Setting(one["file"], one["section"], one["option"], value, units))
        return found

    def additions(self) -> dict[str, str]:
        known = facts()["horizon"]
        return {f"{known['directory']}/{known['file']}": known["content"]} if self._has_horizon else {}

    @cached_property
    def _has_horizon(self) -> bool:
        return self.machine.run("test", "-d", facts()["horizon"]["directory"], user="root", check=False).ok

    @property
    def originals(self) -> str:
        return f"{OURS}/original"

    def restart(self, units: Iterable[str]) -> None:
        names = [f"devstack@{unit}" for unit in dict.fromkeys(units)]
        if names:
            self._root("systemctl", "restart", *names, seconds=400)
        self._reload()  # Horizon runs in it
        self._tidy()

    def restarting(self, units: Iterable[str]) -> list[str]:
        names = [f"devstack@{unit}" for unit in dict.fromkeys(units)]
        return [shlex.join(["sudo", "systemctl", "restart", *names]), f"sudo systemctl reload {self._unit}"]

    def _root(self, *argv: str, seconds: float = 120) -> Any:
        return self.machine.run(*argv, user="root", seconds=seconds)
