"""What can be broken on purpose in an embedded cloud: the ideas of DevStack's faults, with processes instead of units."""

from __future__ import annotations

from stacklab.cloud.access import LEARNER
from stacklab.conditions.embedded.configured import Address, FullStore, Password, Refused
from stacklab.conditions.embedded.ground import EmbeddedFault, Ground
from stacklab.conditions.fault import Fault
from stacklab.conditions.finding import Finding
from stacklab.conditions.quota import QuotaFault
from stacklab.errors import HomeUnavailable
from stacklab.homes.embedded import supervision
from stacklab.homes.embedded.cloud import Cloud
from stacklab.homes.embedded.readiness import Prober, Trouble
from stacklab.stages import Progress

FORCED_DOWN = "2.53"
"""The API version since which a compute service is named by its id. (S: nova/api/openstack/compute/services.py)"""


def faults(cloud: Cloud) -> dict[str, Fault]:
    """All of them by id, also those that this home cannot have."""
    ground = Ground(cloud)
    kept = cloud.layout.home / "faults" / "quota.json"
    found: list[Fault] = [
        Dashboard(ground),
        Refused(ground),
        Address(ground),
        FullStore(ground),
        Password(ground),
        QuotaFault(ground.admin, LEARNER["learner_project"], kept),
        Compute(ground),
        Elsewhere(
            "clock", "the machine's clock is wrong", "the cloud runs on this machine, and its clock is not the lab's"
        ),
    ]
    return {one.id: one for one in found}


class Dashboard(EmbeddedFault):
    """Horizon's process is ended and stays down."""

    id = "httpd"
    title = "the dashboard does not run"

    def see(self, prober: Prober) -> Finding:
        where = prober.urls["horizon"]
        try:
            prober.horizon()
        except Trouble as error:
            return self.unanswered("horizon", where, error)
        return Finding("well", f"{where} shows its login page")

    def inflict(self, progress: Progress) -> None:
        progress("ending horizon")
        supervision.end_service(self.ground.layout, "horizon")
        self.wait("broken", "symptoms", progress)

    def mend(self, progress: Progress) -> None:
        if not self.ground.runs or self.look().state == "well":
            return  # the next start of the cloud starts it, too
        self.ground.restart("horizon", progress)
        self.wait("well", "repair", progress)


class Compute(EmbeddedFault):
    """nova-compute is declared dead. It cannot die alone: all of Nova is one process here."""

    id = "nova-compute"
    title = "the hypervisor's agent, nova-compute, counts as dead"

    def see(self, prober: Prober) -> Finding:
        try:
            answer, _ = prober.ask(
                f"{prober.urls['nova']}/os-services?binary=nova-compute", OpenStack_API_Version=f"compute {FORCED_DOWN}"
            )
        except Trouble as error:
            state = self.unanswered("nova", "Nova's list of services", error)
            return Finding("unknown", state.evidence, state.early)
        found = answer["services"]
        wrong = [one for one in found if (one["state"], one["status"]) != ("up", "enabled")]
        said = "; ".join(
            f"nova-compute on {one['host']} is {one['state']} and {one['status']}"
            + (", forced down" if one.get("forced_down") else "")
            for one in found
        )
        return Finding("broken" if wrong or not found else "well", said or "Nova knows no nova-compute")

    def inflict(self, progress: Progress) -> None:
        progress("declaring nova-compute dead")
        self._set(forced_down=True)
        self.wait("broken", "symptoms", progress)

    def mend(self, progress: Progress) -> None:
        if self.ground.runs and self.look().state == "well":
            return
        progress("declaring nova-compute alive")
        self._set(forced_down=False, status="enabled")
        self.wait("well", "repair", progress)

    def _set(self, **values: object) -> None:
        """Raises CloudRefused, CloudUnreachable."""
        admin = self.ground.admin()
        services = admin.get("compute", "os-services", binary="nova-compute", version=FORCED_DOWN)["services"]
        for one in services:
            admin.request("PUT", "compute", ("os-services", one["id"]), body=values, version=FORCED_DOWN)


class Elsewhere(Fault):
    """A fault that other homes can have."""

    def __init__(self, fault_id: str, title: str, why: str) -> None:
        self.id, self.title, self._why = fault_id, title, why

    def why_not(self) -> str:
        return self._why

    def look(self) -> Finding:
        return Finding("not_applicable", self._why)

    def inflict(self, progress: Progress) -> None:
        raise HomeUnavailable(
            f"the fault '{self.id}' cannot be had here: {self._why}", advice="lab faults lists others"
        )

    def mend(self, progress: Progress) -> None:
        """It was never broken."""
