"""The embedded home's Apache: a real one, started as whoever uses lab, on high ports of loopback, in the lab's directory."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stacklab.errors import CommandFailed, MissingProgram, StepFailed
from stacklab.files import remove_drafts, write_atomic
from stacklab.homes.embedded import ports, supervision
from stacklab.homes.embedded.layout import Layout
from stacklab.homes.embedded.services import urls
from stacklab.https.authority import Names, fingerprint
from stacklab.https.facts import facts, template
from stacklab.https.fronts import HORIZON, Front
from stacklab.https.peer import NoTls, certificate_of
from stacklab.https.server import Catalogue, Https, Setting
from stacklab.machines.base import Finished
from stacklab.machines.local import LocalMachine
from stacklab.stages import Progress

START_SECONDS = 60
END_SECONDS = 10
_HTTP = "http"  # the port that stands for 80


class EmbeddedHttps(Https):
    """See `stacklab.https.server.Https`."""

    def __init__(
        self, layout: Layout, lab: str, own: Callable[[], dict[str, int]], rewrite: Callable[[], None]
    ) -> None:
        self.layout = layout
        self._own_ports = own
        self._planned: dict[str, int] = {}
        self.local = LocalMachine()
        super().__init__(layout.home / "https", lab, self.local, rewrite)

    @property
    def dashboard(self) -> str:
        return urls(self._own_ports())[HORIZON]

    @property
    def plain_port(self) -> int:  # type: ignore[override]
        """The port that stands for 80."""
        kept = self.remembered().get(HORIZON)
        return kept.plain_port if kept and kept.plain_port else self._choose(_HTTP, self._own_ports()[HORIZON])

    def why_not(self) -> str | None:
        if _program() and _modules():
            return None
        how = facts()["packages"]
        return (
            "Apache with mod_ssl is not installed on this machine; "
            f"on Debian: {how['debian']}; on Fedora and its kin: {how['redhat']} (its own service need not run)"
        )

    def names(self) -> Names:
        hosts = dict.fromkeys(["localhost", *(name for name in [socket.getfqdn()] if "." in name and len(name) < 64)])
        return Names(tuple(hosts), ("127.0.0.1",))

    def port_for(self, name: str, own: int) -> int:
        kept = self.remembered().get(name)
        return kept.port if kept else self._choose(name, own)

    def _choose(self, name: str, own: int) -> int:
        """The first free port after the service's own: the same at every look, as long as nobody takes it."""
        if name not in self._planned:
            taken = {*self._own_ports().values(), *self._planned.values()}
            taken |= {port for one in self.remembered().values() for port in (one.port, one.plain_port) if port}
            port = own + 1
            while port in taken or not (ports.is_free(port) or self._ours(port)):
                port += 1
            self._planned[name] = port
        return self._planned[name]

    def _ours(self, port: int) -> bool:
        """Whether a learner's own Apache with the lab's certificate listens there already."""
        mine = self.authority.server_certificate()
        try:
            return mine is not None and fingerprint(certificate_of("127.0.0.1", port)) == fingerprint(mine)
        except NoTls:
            return False

    # --- files -----------------------------------------------------------------------------------------------------

    @property
    def certificate_path(self) -> str:
        return str(self.authority.server_certificate_file)

    @property
    def key_path(self) -> str:
        return str(self.authority.server_key_file)

    @property
    def configuration(self) -> Path:
        """Apache's main file."""
        return configuration_of(self.layout)

    @property
    def _sites(self) -> Path:
        return self.directory / "sites"

    @property
    def log(self) -> Path:
        """What Apache says."""
        return self.layout.logs / "apache.log"

    @property
    def _pid_file(self) -> Path:
        return self.layout.run / "apache.pid"

    def site_path(self, name: str) -> str:
        return str(self._sites / f"{name}.conf")

    def listening(self, front: Front) -> dict[str, Any]:
        address = f"{front.host}:{front.port}"
        return {
            "address": address, "listen": address, "own_plain_port": True,
            "plain_listen": f"{front.host}:{front.plain_port}",
        }  # fmt: skip

    def lines(self, names: Iterable[str]) -> list[str]:
        program = _program() or "apache2"
        start = [program, "-f", str(self.configuration), "-k"]
        return [f"{shlex.join([*start[:-1], '-t'])}   # is the configuration right?", shlex.join([*start, "graceful"])]

    def groundwork(self) -> dict[str, str]:
        return {} if self.configuration.exists() else {str(self.configuration): self.main()}

    def main(self) -> str:
        """The content of Apache's main file."""
        user, group = _account()
        return str(
            template("httpd.conf.j2").render(
                root=self.directory, run=self.layout.run, pid_file=self._pid_file, log=self.log, sites=self._sites,
                modules=_modules() or [], user=user, group=group,
            )
        )  # fmt: skip

    # --- life ------------------------------------------------------------------------------------------------------

    def install(self) -> None:
        if self.running():
            self._run("graceful")
            there = self.there()
            self.await_certificate(front for name, front in self.remembered().items() if name in there)

    def copying(self) -> list[str]:
        return []

    def installed(self) -> bool:
        return True  # they are the same files

    def uninstall(self) -> None:
        """The certificate that Apache reads is the lab's own file."""

    def before(self) -> dict[str, Any]:
        return {}

    def apply(self, contents: Mapping[str, str]) -> None:
        self._sites.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, content in contents.items():
            write_atomic(Path(self.site_path(name)), content)
        self._serve()

    def withdraw(self, names: Iterable[str], kept: Mapping[str, Any]) -> bool:
        removed = False
        for name in names:
            path = Path(self.site_path(name))
            removed = removed or path.exists()
            path.unlink(missing_ok=True)
        left = self.there()
        self.remember({name: front for name, front in self.remembered().items() if name in left})
        if left:
            if removed:
                self._serve()
            return removed
        self.stop()
        self.configuration.unlink(missing_ok=True)
        self.tidy()
        remove_drafts(self.directory)
        if self._sites.is_dir():
            remove_drafts(self._sites)
            with suppress(OSError):  # something of the learner's lies there
                self._sites.rmdir()
        return removed

    def there(self) -> set[str]:
        return {path.stem for path in self._sites.glob("*.conf")}

    def _serve(self) -> None:
        write_atomic(self.configuration, self.main())
        self._run("graceful" if self.running() else "start")

    def start(self, progress: Progress) -> str:
        """Start it again after a restart of the machine or `lab down`; the services' own ports may be others by now."""
        plain = urls(self._own_ports())
        fronts = {}
        for name, front in self.remembered().items():
            parts = urlsplit(plain.get(name, front.backend))
            fronts[name] = replace(front, backend=f"{parts.scheme}://{parts.netloc}{front.prefix}")
        for front in fronts.values():
            for port in (front.port, front.plain_port):
                if port and not self.running() and not ports.is_free(port):
                    raise StepFailed(
                        f"port {port} of the TLS front of {front.name} is taken by another program",
                        advice="end that program, or lab undo https-endpoints and replay it: other ports are chosen then",
                    )
        self.remember(fronts)
        keep = self.there()
        renewed = ", with a new certificate: the old one was about to expire" if self.renew_if_due() else ""
        progress("starting Apache")
        self.apply({name: self.content(front, fronts) for name, front in fronts.items() if name in keep})
        return f"{len(keep)} services behind TLS{renewed}"

    def should_run(self) -> bool:
        """Whether the session's state says that there are fronts."""
        return bool(self.there()) and self.configuration.exists()

    def notes(self) -> list[str]:
        """What `lab status` says of it."""
        if not self.should_run():
            return []
        names = ", ".join(sorted(self.there()))
        return [
            f"behind TLS, by Apache: {names}"
            if self.running()
            else f"Apache, before {names}, is not running; lab up starts it"
        ]

    def running(self) -> bool:
        """Whether Apache's first process lives."""
        return bool(processes(self.configuration))

    def tidy(self) -> None:
        """Remove what an Apache that is no longer wanted left outside the directory for https."""
        for path in (self.log, self._pid_file):
            path.unlink(missing_ok=True)

    def stop(self) -> None:
        """End Apache and wait until nothing of it is left."""
        end_apache(self.layout)

    def _run(self, what: str) -> None:
        tested = self._apache("-t", check=False)
        if not tested.ok:
            raise StepFailed(f"Apache does not take its configuration: {' '.join(tested.err.split())[-400:]}")
        self._signal(what)
        self._wait()

    def _signal(self, what: str) -> None:
        try:
            self._apache("-k", what)
        except CommandFailed as error:
            raise StepFailed(
                f"Apache did not {what}: {error.said or error.message}", advice=f"see {self.log}"
            ) from error

    def _apache(self, *words: str, check: bool = True) -> Finished:
        program = _program()
        if program is None:
            raise MissingProgram("Apache is not installed", advice=str(facts()["packages"]["debian"]))
        argv = (program, "-f", str(self.configuration), *words)
        return self.local.run(*argv, seconds=START_SECONDS, check=check)

    def _wait(self) -> None:
        """Until it listens on every port; a graceful restart may take a moment."""
        there = self.there()
        fronts = [front for name, front in self.remembered().items() if name in there]
        wanted = [(front.host, port) for front in fronts for port in (front.port, front.plain_port) if port]
        deadline = time.monotonic() + START_SECONDS
        for host, port in wanted:
            while not _listens(host, port):
                if time.monotonic() > deadline:
                    raise StepFailed(
                        f"Apache does not listen on port {port} after {START_SECONDS} s: {supervision.last_line(self.log)}",
                        advice=f"see {self.log}",
                    )
                if not self.running():
                    self._signal("start")  # it was dying when it was told to look at its files again
                time.sleep(0.05)

    # --- the services ----------------------------------------------------------------------------------------------

    def settings(self, catalogue: Catalogue) -> list[Setting]:
        """The cloud's templates have them; that a proxy may tell the scheme is in its servers (inside/labcloud/serving.py)."""
        volume = next(
            (one["type"] for one in catalogue.services if one["type"] in ("block-storage", "volumev3")), "block-storage"
        )
        inside = [
            ("nova.conf", "cinder", "catalog_info", f"{volume}::internalURL", "nova"),
            ("neutron.conf", "nova", "endpoint_type", "internal", "neutron"),
            ("neutron.conf", "placement", "endpoint_type", "internal", "neutron"),
            ("cinder.conf", "nova", "interface", "internal", "cinder"),
        ]
        return [
            Setting(str(self.layout.conf / file), section, option, value, (unit,))
            for file, section, option, value, unit in inside
        ]

    def additions(self) -> dict[str, str]:
        return {}

    @property
    def originals(self) -> str:
        return str(self.directory / "original")

    def restarting(self, units: Iterable[str]) -> list[str]:
        return [f"lab restart {unit}" for unit in dict.fromkeys(units)]

    def restart(self, units: Iterable[str]) -> None:
        for unit in units:
            supervision.order(self.layout, "restart", service=unit)
        supervision.wait_until_running(self.layout, lambda detail: None, time.monotonic() + 90)


def configuration_of(layout: Layout) -> Path:
    """Apache's main file in a cloud's directory."""
    return layout.home / "https" / "httpd.conf"


def end_apache(layout: Layout) -> None:
    """End a cloud's Apache and wait until nothing of it is left. Also one that a kill left without its pid file."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in processes(configuration_of(layout)):
            supervision.send(pid, number)
        deadline = time.monotonic() + END_SECONDS
        while left := processes(configuration_of(layout)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        if not left:
            return
    raise StepFailed(f"Apache's processes {', '.join(map(str, left))} cannot be ended")


def processes(configuration: Path) -> list[int]:
    """Apache's processes, by the configuration that their command line names, never by a remembered id."""
    wanted = os.fsencode(str(configuration))
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue  # it ended while we looked
        if not dead and arguments[0].rpartition(b"/")[2] in (b"apache2", b"httpd") and wanted in arguments:
            found.append(int(entry.name))
    return found


def _program() -> str | None:
    return next((path for path in facts()["programs"] if os.access(path, os.X_OK)), None)


def _modules() -> list[tuple[str, str]] | None:
    """Names and files of the modules that are wanted and are files here; None where mod_ssl or the proxy is missing."""
    for directory in facts()["modules"]:
        found = [(name, f"{directory}/{file}") for name, file in facts()["loaded"] if Path(directory, file).exists()]
        if {"ssl_module", "proxy_http_module"} <= {name for name, _ in found}:
            return found
    return None


def _account() -> tuple[str, str]:
    """Whom Apache's children run as when root starts it; empty for anybody else."""
    if os.geteuid() != 0:
        return "", ""
    for name in facts()["users"]:
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        return name, grp.getgrgid(account.pw_gid).gr_name
    return "nobody", grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
