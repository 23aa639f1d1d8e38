"""What can be broken on purpose in an embedded cloud: the ideas of DevStack's faults, with processes instead of units."""

from __future__ import annotations

import re
import secrets
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

from stacklab.cloud.access import LEARNER, ServiceState
from stacklab.cloud.connection import Connection
from stacklab.cloud.horizon import login_page
from stacklab.conditions.condition import Action, Fault, Finding, cannot_tell
from stacklab.conditions.machine import OnDisk
from stacklab.conditions.password import agreeing, logs_in
from stacklab.conditions.quota import QuotaExhausted
from stacklab.conditions.stackunits import NOVA_COMPUTE, compute_services
from stacklab.conditions.store import upload_refused
from stacklab.conditions.wrongvalue import IniValue, WrongValue
from stacklab.errors import LabError, NotRunning
from stacklab.homes.embedded import supervision
from stacklab.homes.embedded.cloud import Cloud
from stacklab.homes.embedded.services import urls
from stacklab.inifile import value_of
from stacklab.machines.local import LocalMachine
from stacklab.stages import Progress
from stacklab.waiting import NotYet, looks, until

FORCED_DOWN = "2.53"
"""The API version since which a compute service is named by its id. (S: nova/api/openstack/compute/services.py)"""

FORBIDDEN = "/proc/stacklab"
"""A directory that nobody can make: only the kernel puts anything there. (proc(5))"""

NOBODY = "127.0.0.2"
"""An address of this machine at which none of the cloud's services listens, so a connection is refused at once."""


def faults(cloud: Cloud) -> dict[str, Fault]:
    """All of them by id, also those that this home cannot have."""
    kinds = (DashboardDown, NetworkServiceFails, WrongImageAddress, UploadsRefused, CinderPassword, ComputeForcedDown)
    own: list[Fault] = [kind(cloud) for kind in kinds]
    kept = cloud.layout.home / "faults" / "quota.json"
    own.append(QuotaExhausted(lambda: _admin(cloud), LEARNER["learner_project"], kept))
    own.append(
        Elsewhere(
            "clock", "the machine's clock is wrong", "the cloud runs on this machine, and its clock is not the lab's"
        )
    )
    return {fault.id: fault for fault in own}


def _admin(cloud: Cloud) -> Connection:
    return Connection(cloud.layout.clouds_file, "lab-admin")


class EmbeddedFault(Fault):
    """`service`: the process that it is about."""

    service: ClassVar[str]
    patience = 90
    every = 0.3

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    @property
    def runs(self) -> bool:
        """Whether the cloud's supervisor lives."""
        return supervision.is_running(self.cloud.layout)

    @abstractmethod
    def ask(self, admin: Connection) -> Finding:
        """How it is, seen by the administrator of a cloud that runs. A LabError means that the service does not answer."""

    def see(self) -> Finding:
        if not self.runs:
            raise NotRunning("the cloud is not running")
        admin = _admin(self.cloud)
        try:
            admin.get("identity", "projects")
        except LabError as error:
            return Finding("unknown", f"cannot tell, because Keystone gives no token: {error.message}")
        try:
            return self.ask(admin)
        except LabError as error:
            return self.unanswered(error)

    def unanswered(self, error: LabError) -> Finding:
        """What it means that the service does not answer as it should: bad, unless it is only just coming up."""
        state = self.state()
        evidence = f"{error.message}; {self.service} is {state.state}" + (f" ({state.reason})" if state.reason else "")
        if state.state == "starting" and not state.reason:
            return Finding("unknown", evidence, early=True)
        return Finding("bad", evidence)

    def state(self) -> ServiceState:
        """How the process is."""
        return next(state for state in supervision.services(self.cloud.layout) if state.name == self.service)

    def settled(self) -> Finding:
        """How it is, once what has just been started can be asked; as it is when the patience is over at the latest."""
        finding = Finding("unknown", "")
        for finding in looks(self.look, self.patience, self.every):
            if not finding.early:
                break
        return finding

    def restarting(self, service: str) -> Iterator[Action]:
        """Have a service restarted; whoever needs it waits for what comes of that. A cloud that is stopped stays so."""
        if self.runs:
            yield Action(f"restart {service}", lambda: self._restart(service))

    def _restart(self, service: str) -> None:
        def pid() -> int | None:
            return next(state.pid for state in supervision.services(self.cloud.layout) if state.name == service)

        old = pid()
        supervision.order(self.cloud.layout, "restart", service=service)
        until(  # until then it still answers, with what it read before
            lambda: NotYet(f"process {old} is still there") if old is not None and pid() == old else True,
            f"the end of {service}", seconds=self.patience, every=0.05, advice=f"lab logs {service}",
        )  # fmt: skip

    def clear(self, progress: Progress) -> None:
        """A cloud that is stopped is only put back: nothing of it can be seen before it is started."""
        if self.runs:
            super().clear(progress)
        else:
            self.put_back()
            self.forget()

    def put_back(self) -> None:
        """Put right what a start would not, on a cloud that is stopped."""


class DashboardDown(EmbeddedFault):
    """Horizon's process is ended and stays down; the next start of the cloud starts it, too."""

    id = "httpd"
    title = "the dashboard does not run"
    service = "horizon"

    def ask(self, admin: Connection) -> Finding:
        url = urls(self.cloud.ports)["horizon"]
        shown, evidence = login_page(url)
        return Finding("good" if shown else "bad", f"{url} answers {evidence}")

    def breaking(self) -> Iterator[Action]:
        yield Action("end horizon", lambda: supervision.end_service(self.cloud.layout, "horizon"))

    def repairing(self) -> Iterator[Action]:
        if self.look().state != "good":
            yield from self.restarting(self.service)


class ComputeForcedDown(EmbeddedFault):
    """nova-compute is declared dead. It cannot die alone: all of Nova is one process here."""

    id = NOVA_COMPUTE
    title = "the hypervisor's agent, nova-compute, counts as dead"
    service = "nova"

    def ask(self, admin: Connection) -> Finding:
        answer = admin.get("compute", "os-services", binary=NOVA_COMPUTE, version=FORCED_DOWN)
        return compute_services(answer["services"])

    def unanswered(self, error: LabError) -> Finding:
        finding = super().unanswered(error)
        return Finding("unknown", f"cannot tell: {finding.evidence}", finding.early)

    def breaking(self) -> Iterator[Action]:
        yield Action("declare nova-compute dead", lambda: self._set(forced_down=True))

    def repairing(self) -> Iterator[Action]:
        if self.look().state != "good":
            yield Action("declare nova-compute alive", lambda: self._set(forced_down=False, status="enabled"))

    def put_back(self) -> None:
        raise NotRunning("the cloud is not running, so Nova cannot be told that nova-compute lives", advice="lab up")

    def _set(self, **values: object) -> None:
        admin = _admin(self.cloud)
        answer = admin.get("compute", "os-services", binary=NOVA_COMPUTE, version=FORCED_DOWN)
        for service in answer["services"]:
            admin.request("PUT", "compute", ("os-services", service["id"]), body=values, version=FORCED_DOWN)


class Misconfigured(EmbeddedFault, WrongValue):
    """One wrong value in a service's configuration. `place`: file below conf/, section, key."""

    place: ClassVar[tuple[str, str, str]]
    secret: ClassVar[bool] = False

    @property
    def kept(self) -> OnDisk:
        return OnDisk(self.cloud.layout.home / "faults" / f"{self.id}.json")

    @property
    def value(self) -> IniValue:
        file, section, key = self.place
        return IniValue(LocalMachine(), str(self.cloud.layout.conf / file), section, key, secret=self.secret)

    def taking_effect(self) -> Iterable[Action]:
        return self.restarting(self.service)

    def fits(self, wrong: str) -> bool:
        return self.settled().state == "good"

    def put_back(self) -> None:
        kept = self.kept.read()
        if kept is not None and self.value.read() == kept["wrong"]:
            self.value.write(kept["right"])

    def repairing(self) -> Iterator[Action]:
        kept, now = self.kept.read(), self.value.read()
        if kept is not None and now == kept["wrong"] and self.look().state == "good":
            # Either the service has not read the mistake yet, or somebody has made the cloud fit it, which is a repair, too.
            yield from self.taking_effect()
        if self.settled().state == "good":
            return
        if kept is not None and now != kept["right"]:
            yield self.value.writing(kept["right"])
            yield from self.taking_effect()
            if self.settled().state == "good":
                return
        # More than this value was changed: then everything becomes as `lab up` makes it.
        services = {self.service}
        yield Action(
            "write the configuration as lab up does", lambda: services.update(self.cloud.put_back_configuration())
        )
        for service in sorted(services):
            yield from self.restarting(service)
        self.settled()
        yield from self.making_agree()

    def making_agree(self) -> Iterator[Action]:
        """Give the cloud what its configuration expects of it."""
        yield from ()


class NetworkServiceFails(Misconfigured):
    """Neutron's database is to be where nobody may make a file, root neither: as with SELinux, the kernel refuses."""

    id = "selinux-q-agt"
    title = "the network service starts, and fails again"
    service = "neutron"
    place = ("neutron.conf", "database", "connection")

    def wrong(self, right: str | None) -> str:
        path = re.match(r"sqlite:///\S+?(\?\S*)?$", right or "")
        return f"sqlite:///{FORBIDDEN}/neutron.db{(path[1] or '') if path else ''}"

    def ask(self, admin: Connection) -> Finding:
        admin.get("network", "networks", limit="1")
        return Finding("good", "Neutron lists networks")


class WrongImageAddress(Misconfigured):
    """Nova asks Glance at an address of before, where nobody answers: no instance can be launched, all else looks well."""

    id = "network"
    title = "the address under the cloud has changed, and no instance can be launched"
    service = "nova"
    place = ("nova.conf", "glance", "api_servers")

    def wrong(self, right: str | None) -> str:
        return f"http://{NOBODY}:{self.cloud.ports['glance']}"

    def ask(self, admin: Connection) -> Finding:
        try:
            admin.get("image", "images", limit="1")
        except LabError as error:
            return Finding("unknown", f"cannot tell whether Nova reaches Glance: Glance itself: {error.message}")
        # Nova's old list of images is Glance's, asked for as a launch asks. (S: nova/api/openstack/compute/images.py)
        admin.get("compute", "images", limit="1")
        return Finding("good", "Nova gets images from Glance, as it does for a launch")


class UploadsRefused(Misconfigured):
    """Glance's own limit for what a project may store is a few bytes, so that an upload ends in 413."""

    id = "glance-full"
    title = "Glance has no room for another image"
    service = "glance"
    place = ("glance-api.conf", "DEFAULT", "user_storage_quota")
    size = 64 << 10

    def wrong(self, right: str | None) -> str:
        return "16KB"

    def ask(self, admin: Connection) -> Finding:
        try:
            admin.get("image", "images", limit="1")
            refused = upload_refused(admin, self.size)
        except LabError as error:
            state = self.unanswered(error)
            return Finding("unknown", f"cannot tell whether Glance has room: {state.evidence}", state.early)
        if refused:
            return Finding("bad", f"an image of {self.size >> 10} KiB cannot be uploaded: {refused}")
        return Finding("good", f"an image of {self.size >> 10} KiB was uploaded, and removed again")


class CinderPassword(Misconfigured):
    """Cinder's password in its configuration is not the one that Keystone has."""

    id = "wrong-password"
    title = "a service cannot log in to Keystone"
    service = "cinder"
    place = ("cinder.conf", "keystone_authtoken", "password")
    secret = True

    def wrong(self, right: str | None) -> str:
        return secrets.token_hex(12)

    def ask(self, admin: Connection) -> Finding:
        admin.get("block-storage", "volumes", limit="1")
        text = (self.cloud.layout.conf / "nova.conf").read_text(encoding="utf-8")
        password = value_of(text, "cinder", "password")
        try:
            known = password is None or logs_in(admin, "cinder", password)
        except LabError as error:
            return Finding("unknown", cannot_tell(error))
        if not known:
            why = "Cinder lists volumes, but the password that Nova has for it is refused by Keystone"
            return Finding("bad", why)
        return Finding("good", "Cinder lists volumes, and Keystone knows the password that Nova has for it")

    def making_agree(self) -> Iterator[Action]:
        """The user's password in Keystone may have been changed to fit."""
        yield agreeing(_admin(self.cloud), "cinder", self.cloud.passwords()["cinder"])
        yield from self.restarting(self.service)


class Elsewhere(Fault):
    """A fault that other homes can have."""

    def __init__(self, fault_id: str, title: str, why: str) -> None:
        self.id, self.title, self._why_not = fault_id, title, why

    def why_not(self) -> str:
        return self._why_not

    def see(self) -> Finding:
        return Finding("not_applicable", self._why_not)

    def breaking(self) -> Iterable[Action]:
        return ()

    def repairing(self) -> Iterable[Action]:
        return ()
