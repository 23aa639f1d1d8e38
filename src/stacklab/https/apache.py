"""Apache on the machine of a cloud: its files, and making it serve them. What differs between machines is in facts.yaml.

DevStack's services share port 80. Each virtual host gets a port of its own; the plain addresses go on as internal endpoints.
"""

from __future__ import annotations

import shlex
import zlib
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from stacklab.errors import CommandFailed, StepFailed
from stacklab.https.virtual_hosts import HORIZON, KEYSTONE, VirtualHost
from stacklab.machines.base import Machine
from stacklab.waiting import NotYet, until

OURS = "/etc/stacklab/https"
ANSWER_SECONDS = 180
INSTALL_SECONDS = 900
ADDED = 10000

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


def filled(text: str, values: Mapping[str, str]) -> str:
    """A text of facts.yaml with these values in place of their names in braces."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


class Apache:
    """The Apache that a distribution brings, where a deployment has its services behind it already.

    `family`: of the distribution, as facts.yaml has it. `unit`: systemd's. `host`: the cloud's address. `keystone`: its plain
    address, which goes through the same Apache. `directory`: on the machine, where the certificate and what was changed lie.
    `values`: what else facts.yaml speaks of. All methods raise MachineUnreachable and its kin.
    """

    account: str | None = "root"
    """As whom files of the machine are changed."""

    def __init__(
        self, machine: Machine, family: str, unit: str, host: str, keystone: str, directory: str = OURS, **values: str
    ) -> None:
        self.machine = machine
        self.host = host
        self.unit = unit
        self.directory = directory
        self.certificate_path, self.key_path = f"{directory}/server.pem", f"{directory}/server.key"
        self.originals = f"{directory}/original"
        """For what was changed, as it was; nobody else reads it."""
        self._keystone = keystone
        values |= {"unit": unit, "key": self.key_path, "certificate": self.certificate_path, "machine": machine.name}
        self._values = {name: shlex.quote(value) for name, value in values.items()}
        self.known: dict[str, Any] = dict(facts()["apache"][family])
        self.names: list[str] = [*self.known["names"], host]
        """What the server certificate must be for: what endpoints carry."""
        self.advice = f"journalctl -u {unit}; where SELinux enforces: lab fixes apply selinux --permissive"

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
        lines = self.machine.run("ss", "-Hltnp", user=self.account).lines
        others = [line.split() for line in lines if f'"{self.unit}"' not in line]
        return {int(words[3].rpartition(":")[2]) for words in others if len(words) > 3}

    # --- files and the commands that a person would type -----------------------------------------------------------

    def site_path(self, name: str) -> str:
        """The file of a virtual host."""
        return f"{self.known['sites']}/{self.known['prefix']}{name}.conf"

    def content(self, host: VirtualHost, hosts: Mapping[str, VirtualHost]) -> str:
        """The file of a virtual host, one of these."""
        keystone = hosts.get(KEYSTONE)
        identity = (keystone.plain, keystone.public) if keystone and host.name != HORIZON else None
        return str(
            template("virtual_host.conf.j2").render(
                host=host, identity=identity, certificate=self.certificate_path, key=self.key_path,
                address=self.known["address"], own_plain_port=self.known["own_plain_port"],
                listens=host.port != 443 or not self.known["listens_443"],
            )
        )  # fmt: skip

    def groundwork(self) -> dict[str, str]:
        """Files that virtual hosts need beside their own: content by path."""
        return {}

    def script(self, contents: Mapping[str, str]) -> str:
        """The lines, shown and run, that write the files of virtual hosts (content by name) and make Apache use them."""
        files = {**self.groundwork(), **{self.site_path(name): content for name, content in contents.items()}}
        lines = ["umask 022"]
        lines += [f"mkdir -p {shlex.quote(place)}" for place in sorted({str(Path(path).parent) for path in files})]
        lines += [f"cat >{shlex.quote(path)} <<'END'\n{text.rstrip()}\nEND" for path, text in files.items()]
        names = " ".join(shlex.quote(f"{self.known['prefix']}{name}") for name in contents)
        return "\n".join(filter(None, [*lines, self._line("enable", names=names), self._line("reload")]))

    def copying(self) -> list[str]:
        """The commands that bring the lab's certificate to where Apache reads it."""
        return self._line("copy").splitlines()

    def there(self) -> set[str]:
        """The names of the virtual hosts whose files are there."""
        prefix = self.known["prefix"]
        names = self.machine.script(_THERE, self.known["enabled"], prefix, user=self.account).lines
        return {name.removeprefix(prefix) for name in names}

    def outdated(self, lab: Path) -> list[str]:
        """Which of the two files Apache does not read as they are in the lab's directory."""
        files = {name: lab / name for name in ("server.key", "server.pem")}
        contents = {name: file.read_bytes() if file.exists() else None for name, file in files.items()}
        return [name for name, content in contents.items() if self.machine.read(f"{self.directory}/{name}") != content]

    def install(self, lab: Path) -> None:
        """Put the lab's certificate where Apache reads it; `reload` makes it read it."""
        for name in self.outdated(lab):
            mode = 0o600 if name.endswith(".key") else 0o644
            self.machine.put(f"{self.directory}/{name}", (lab / name).read_bytes(), mode=mode)

    def uninstall(self) -> None:
        """Take the certificate away from there."""
        self._remove(self.key_path, self.certificate_path)
        self.tidy()

    def tidy(self) -> None:
        """Remove directories of ours in which nothing lies any more."""
        directories = (self.originals, self.directory, str(Path(self.directory).parent))
        self.machine.run("rmdir", "--ignore-fail-on-non-empty", *directories, user=self.account, check=False)

    # --- serving ---------------------------------------------------------------------------------------------------

    def before(self) -> dict[str, Any]:
        """What must be known of Apache, to be put back later, before the first virtual host is made. JSON without secrets."""
        return {"modules": self.machine.script(self._line("before"), user=self.account).out.split()}

    def serve(self, contents: Mapping[str, str]) -> None:
        """Write the files of virtual hosts (content by name) and make Apache serve them. Raises StepFailed with its words."""
        self._run(self.script(contents))

    def remove(self, names: Iterable[str], before: Mapping[str, Any]) -> bool:
        """Take virtual hosts away, and with the last of them everything that was done to Apache; False if none was there."""
        names = list(names)
        removed = self.there() & {*names}
        self._disable("site", *(f"{self.known['prefix']}{name}" for name in names))
        self._remove(*map(self.site_path, names))
        if not self.there():
            self.put_back(before)
        elif removed:
            self.reload()
        return bool(removed)

    def put_back(self, before: Mapping[str, Any]) -> None:
        """Apache as it was before the first virtual host."""
        if modules := before.get("modules"):
            self._disable("module", *modules)
        self.reload()

    def reload(self) -> None:
        """Make Apache read its files again, and wait until it answers. Raises StepFailed with its words."""
        self._run(self._line("reload"))

    def _run(self, script: str) -> None:
        try:
            self.machine.script(script, user=self.account, seconds=INSTALL_SECONDS)
        except CommandFailed as error:
            why = " ".join((error.said or error.message).split())[-400:]
            raise StepFailed(f"Apache does not serve it: {why}", advice=self.advice) from error
        what = "Apache's answer"
        until(self._answers, what, seconds=ANSWER_SECONDS, every=0.3, advice=self.advice, error=StepFailed)

    def _answers(self) -> bool | NotYet:
        """Whether it passes on what is asked of Keystone."""
        import requests

        try:
            status = requests.get(self._keystone, timeout=20).status_code
        except requests.RequestException as error:
            return NotYet(f"{self._keystone}: no answer ({type(error).__name__})")
        return True if status < 500 else NotYet(f"HTTP {status}")

    def _line(self, key: str, **values: str) -> str:
        return filled(self.known[key], self._values | values).rstrip()

    def _disable(self, *words: str) -> None:
        self.machine.script(self._line("disable"), *words, user=self.account, seconds=INSTALL_SECONDS)

    def _remove(self, *paths: str) -> None:
        self.machine.run("rm", "-f", *paths, user=self.account)
