"""TLS before an embedded cloud: a real Apache of the lab's own, run by whoever uses lab, on high ports of loopback."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from stacklab.files import read_derivable, remove_drafts, write_json
from stacklab.homes.embedded import supervision
from stacklab.homes.embedded.layout import Layout
from stacklab.homes.embedded.services import NAMES, is_free, urls
from stacklab.https.apache import Apache, facts, template
from stacklab.https.configuration import ServiceConfiguration
from stacklab.https.server import Https
from stacklab.https.virtual_hosts import HORIZON
from stacklab.machines.local import LocalMachine
from stacklab.stages import Progress
from stacklab.waiting import NotYet

END_SECONDS = 10
_HTTP = "http"  # the port that stands for 80


class OwnApache(Apache):
    """An Apache that serves one lab and nothing else. `own_ports`: the services'."""

    account = None

    def __init__(self, layout: Layout, own_ports: Callable[[], dict[str, int]]) -> None:
        self.layout = layout
        self.configuration = configuration_of(layout)
        self.log = layout.logs / "apache.log"
        self.pid_file = layout.run / "apache.pid"
        self._own_ports = own_ports
        directory, program = str(self.configuration.parent), _program() or "apache2"
        words = {"configuration": str(self.configuration), "program": program}
        super().__init__(LocalMachine(), "own", "apache", "127.0.0.1", "", directory, **words)
        self.sites = self.configuration.parent / "sites"
        self.known |= {"sites": str(self.sites), "enabled": str(self.sites)}
        self.advice = f"see {self.log}; where a port is taken, lab undo https-endpoints, and replay it with others"

    # --- ports -----------------------------------------------------------------------------------------------------

    @property
    def _ports_file(self) -> Path:
        """Outside what a checkpoint puts back. Where it is gone, ports are chosen anew."""
        return self.layout.home / "tls-ports.json"

    def plain_port(self) -> int:
        return self.port_for(_HTTP, self._own_ports()[HORIZON], ())

    def port_for(self, name: str, own: int, ours: Iterable[int]) -> int:
        """The first free port after the service's own: chosen once and kept, also when somebody listens there by now."""
        chosen: dict[str, int] = read_derivable(self._ports_file)
        if name not in chosen:
            taken = {*self._own_ports().values(), *chosen.values(), *ours}
            port = own + 1
            while port in taken or not is_free(port):
                port += 1
            chosen[name] = port
            write_json(self._ports_file, chosen)
        return chosen[name]

    # --- serving ---------------------------------------------------------------------------------------------------

    def groundwork(self) -> dict[str, str]:
        """Apache's main file."""
        text = template("httpd.conf.j2").render(
            root=self.directory, run=self.layout.run, pid_file=self.pid_file, log=self.log, sites=self.sites,
            modules=_modules() or [], root_starts=os.geteuid() == 0,
        )  # fmt: skip
        return {str(self.configuration): text}

    def _run(self, script: str) -> None:
        if not self.running():  # the number in the file may be another program's by now, which Apache would signal
            self.pid_file.unlink(missing_ok=True)
        super()._run(script)

    def _answers(self) -> bool | NotYet:
        """Whether it lives: one that was ending when it was told to read its files again does not."""
        if self.running():
            return True
        self.pid_file.unlink(missing_ok=True)
        self.machine.script(self._line("reload"), check=False)
        return NotYet(supervision.last_line(self.log))

    def running(self) -> bool:
        """Whether Apache's first process lives."""
        return bool(processes(self.configuration))

    def put_back(self, before: Mapping[str, Any]) -> None:
        end_apache(self.layout)
        self.configuration.unlink(missing_ok=True)
        self.forget()
        remove_drafts(self.configuration.parent)
        with suppress(OSError):  # it is not there, or something of the learner's lies in it
            self.sites.rmdir()
        if not all(map(is_free, read_derivable(self._ports_file).values())):
            self._ports_file.unlink(missing_ok=True)  # somebody else took one: the next time others are chosen

    def forget(self) -> None:
        """Remove what an Apache that is no longer wanted left outside the directory for https."""
        for path in (self.log, self.pid_file):
            path.unlink(missing_ok=True)


class EmbeddedConfiguration(ServiceConfiguration):
    """Of services that the lab's supervisor runs."""

    _facts = "embedded"
    apache: OwnApache

    def restart(self, units: Iterable[str]) -> None:
        layout = self.apache.layout
        for unit in units:
            supervision.order(layout, "restart", service=unit)
        supervision.wait_until_running(layout, lambda detail: None, time.monotonic() + 90)

    def restarting(self, units: Iterable[str]) -> list[str]:
        return [f"lab restart {unit}" for unit in dict.fromkeys(units)]


class EmbeddedHttps(Https):
    """Https, whose Apache is started and ended with the cloud."""

    apache: OwnApache

    def __init__(
        self, layout: Layout, lab: str, own_ports: Callable[[], dict[str, int]], rewrite: Callable[[], None]
    ) -> None:
        apache = OwnApache(layout, own_ports)
        services = EmbeddedConfiguration(apache, NAMES, str(layout.conf))
        directory = apache.configuration.parent
        super().__init__(directory, lab, apache, services, lambda: urls(own_ports())[HORIZON], rewrite)
        self._own_ports = own_ports

    def why_not(self) -> str | None:
        if _program() and _modules():
            return None
        how = facts()["packages"]
        return (
            "Apache with mod_ssl is not installed on this machine; "
            f"on Debian: {how['debian']}; on Fedora and its kin: {how['redhat']} (its own service need not run)"
        )

    def start(self, progress: Progress) -> str:
        """Start it again after a restart of the machine or `lab down`; the services' own ports may be others by now."""
        ports, remembered = self._own_ports(), self.remembered().items()
        hosts = {name: replace(host, backend=f"http://{host.host}:{ports[name]}/") for name, host in remembered}
        self.remember(hosts)
        there = self.apache.there()
        progress("starting Apache")
        self.serve({name: host for name, host in hosts.items() if name in there}, hosts)
        return f"{len(there)} services behind TLS"

    def should_run(self) -> bool:
        """Whether the session's state says that there are virtual hosts."""
        return bool(self.apache.there())

    def notes(self) -> list[str]:
        """What `lab status` says of it."""
        if not self.should_run():
            return []
        names = ", ".join(sorted(self.apache.there()))
        if self.apache.running():
            return [f"behind TLS, by Apache: {names}"]
        return [f"Apache, before {names}, is not running; lab up starts it"]


def configuration_of(layout: Layout) -> Path:
    """Apache's main file in a cloud's directory."""
    return layout.home / "https" / "httpd.conf"


def end_apache(layout: Layout) -> None:
    """End a cloud's Apache and wait until nothing of it is left. Also one that a kill left without its pid file."""
    supervision.end_processes(lambda: processes(configuration_of(layout)), "Apache", END_SECONDS)


def processes(configuration: Path) -> list[int]:
    """Apache's processes, by the configuration that their command line names, never by a remembered id."""
    named = os.fsencode(str(configuration))
    return [
        pid
        for pid, arguments, _ in supervision.own_processes()
        if arguments[0].rpartition(b"/")[2] in (b"apache2", b"httpd") and named in arguments
    ]


def _program() -> str | None:
    return next((path for path in facts()["programs"] if os.access(path, os.X_OK)), None)


def _modules() -> list[tuple[str, str]] | None:
    """Names and files of the modules that are wanted and are files here; None where mod_ssl or the proxy is missing."""
    for directory in facts()["modules"]:
        found = [(name, f"{directory}/{file}") for name, file in facts()["loaded"] if Path(directory, file).exists()]
        if {"ssl_module", "proxy_http_module"} <= {name for name, _ in found}:
            return found
    return None
