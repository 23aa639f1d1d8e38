"""Where the faults of an embedded cloud happen: its services, asked and restarted one by one."""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import dataclass

from stacklab.cloud.access import ServiceState
from stacklab.cloud.connection import Connection
from stacklab.conditions.fault import Fault
from stacklab.conditions.finding import Finding
from stacklab.errors import LabError, ServiceFailed
from stacklab.homes.embedded import supervision
from stacklab.homes.embedded.cloud import Cloud
from stacklab.homes.embedded.layout import Layout
from stacklab.homes.embedded.readiness import Prober, Trouble, explain
from stacklab.stages import Progress

PATIENCE = 90.0
"""Seconds within which the symptoms, or the repair, must show."""

ASK_EVERY = 0.3
"""Seconds between two looks at something that is waited for."""


@dataclass(frozen=True)
class Ground:
    """The cloud of one lab. Nothing is asked before a fault needs it."""

    cloud: Cloud

    @property
    def layout(self) -> Layout:
        """Where its files lie."""
        return self.cloud.layout

    @property
    def runs(self) -> bool:
        """Whether its supervisor lives."""
        return supervision.is_running(self.layout)

    def prober(self) -> Prober:
        """Somebody who can ask its services; not logged in yet."""
        return Prober(self.cloud.ports, self.cloud.lab.secret("admin"))

    def admin(self) -> Connection:
        """The administrator, for what has to be changed through the API."""
        return Connection(self.layout.clouds_file, "lab-admin")

    def service(self, name: str) -> ServiceState:
        """How a service is."""
        return next(one for one in supervision.services(self.layout) if one.name == name)

    def restart(self, name: str, progress: Progress) -> None:
        """Have a service restarted; whoever needs it waits for what comes of that. A cloud that is stopped stays so."""
        if not self.runs:
            return
        progress(f"restarting {name}")
        old = self.service(name).pid
        supervision.order(self.layout, "restart", service=name)
        until = time.monotonic() + PATIENCE
        while old is not None and self.service(name).pid == old:  # it still answers, with what it read before
            if time.monotonic() > until:
                raise ServiceFailed(f"{name} did not end within {PATIENCE:.0f} s", advice=f"lab logs {name}")
            time.sleep(0.05)


class EmbeddedFault(Fault):
    """See `stacklab.conditions.fault.Fault`. `see` is given somebody who is logged in."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    @abstractmethod
    def see(self, prober: Prober) -> Finding:
        """What `look` does on a cloud that runs. May raise what asking a service can end in."""

    def look(self) -> Finding:
        if not self.ground.runs:
            return Finding("unknown", "the cloud is not running")
        prober = self.ground.prober()
        try:
            prober.keystone()
        except Trouble as error:
            return Finding("unknown", f"cannot tell, because Keystone gives no token: {explain(error)}")
        try:
            return self.see(prober)
        except Trouble as error:
            return Finding("unknown", f"cannot tell: {explain(error)}")
        except LabError as error:
            return Finding("unknown", f"cannot tell: {error.message}")

    def unanswered(self, service: str, what: str, error: Exception) -> Finding:
        """What it means that a service does not answer as it should: broken, unless it is only just coming up."""
        state = self.ground.service(service)
        said = f"{what}: {explain(error)}; {service} is {state.state}" + (f" ({state.reason})" if state.reason else "")
        if state.state == "starting" and not state.reason:
            return Finding("unknown", said, early=True)
        return Finding("broken", said)

    def settled(self) -> Finding:
        """How it is, once what has just been started can be asked; as it is after PATIENCE at the latest."""
        until = time.monotonic() + PATIENCE
        while True:
            found = self.look()
            if not found.early or time.monotonic() > until:
                return found
            time.sleep(ASK_EVERY)

    def wait(self, wanted: str, what: str, progress: Progress) -> None:
        """Until a look finds it so. Raises ServiceFailed."""
        until = time.monotonic() + PATIENCE
        progress(f"waiting for the {what} (at most {PATIENCE:.0f} s)")
        while True:
            found = self.look()
            if found.state == wanted:
                return
            if time.monotonic() > until:
                raise ServiceFailed(
                    f"fault '{self.id}': no {what} within {PATIENCE:.0f} s; {found.evidence}",
                    advice="lab status and lab logs SERVICE show more",
                )
            time.sleep(ASK_EVERY)
