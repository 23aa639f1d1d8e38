"""A project that has used up its quota: broken and repaired through Nova's API, so the same on every home."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stacklab.cloud.connection import Connection
from stacklab.conditions.condition import Action, Fault, Finding
from stacklab.conditions.machine import OnDisk
from stacklab.errors import CloudRefused, CloudUnreachable, HomeUnavailable, LabError

ROOM = 256
"""MiB of memory that a project must have left: what the course's smallest flavor takes."""

LEFT = 64
"""MiB that the fault leaves: too little for any flavor."""

USUAL = 2048
"""MiB to give a project whose limit before is not known: what the course's own quota is."""


@dataclass(frozen=True)
class _Memory:
    """A project's quota of memory, in MiB; a limit of -1 is none."""

    limit: int
    used: int

    @property
    def exhausted(self) -> bool:
        return 0 <= self.limit < self.used + ROOM

    @property
    def said(self) -> str:
        if self.limit < 0:
            return f"{self.used} MiB of memory are used, and there is no limit"
        return f"{self.used} MiB of memory are used of {self.limit}"


class QuotaExhausted(Fault):
    """The project's limit on memory is lowered to hardly more than what its instances use.

    `admin`: opens the cloud as its administrator; raises NotRunning, CloudUnreachable. `kept`: a file of the lab's, where the
    limit before is kept.
    """

    id = "quota"
    title = "the project has used up its quota"
    patience = 30

    def __init__(self, admin: Callable[[], Connection], project: str, kept: Path) -> None:
        self._admin = admin
        self._project = project
        self._kept = OnDisk(kept)

    def why_not(self) -> str | None:
        try:
            there = self._find(self._admin())
        except (CloudRefused, CloudUnreachable):
            return None  # a cloud that is ill; whoever looks is told
        except LabError as error:
            return f"cannot tell whether there is a project {self._project}: {error.message}"
        return None if there else f"there is no project {self._project} yet; a session's exercise 'project' makes it"

    def see(self) -> Finding:
        admin = self._admin()
        project = self._find(admin)
        if project is None:
            return Finding("not_applicable", f"there is no project {self._project}")
        memory = _read(admin, project)
        evidence = f"project {self._project}: {memory.said}"
        return Finding("bad", f"{evidence}, so no flavor fits") if memory.exhausted else Finding("good", evidence)

    def breaking(self) -> Iterator[Action]:
        admin = self._admin()
        project = self._find(admin)
        if project is None:
            raise HomeUnavailable(f"the fault '{self.id}' cannot be had here: {self.why_not()}")
        memory = _read(admin, project)
        if not memory.exhausted:
            yield self._kept.keeping(project=project, limit=memory.limit)
            yield self._limiting(admin, project, memory.used + LEFT)

    def repairing(self) -> Iterator[Action]:
        admin = self._admin()
        project = self._find(admin)
        if project is None:
            return
        memory, kept = _read(admin, project), self._kept.read()
        if memory.exhausted:
            before = kept["limit"] if kept and kept["project"] == project else memory.used + USUAL
            yield self._limiting(admin, project, int(before))

    def forget(self) -> None:
        self._kept.forget()

    def _limiting(self, admin: Connection, project: str, limit: int) -> Action:
        body = {"quota_set": {"ram": limit, "force": True}}
        text = f"openstack quota set --force --ram {limit} {self._project}"
        return Action(text, lambda: admin.put("compute", "os-quota-sets", project, body=body))

    def _find(self, admin: Connection) -> str | None:
        projects = admin.get("identity", "projects", name=self._project)["projects"]
        return str(projects[0]["id"]) if projects else None


def _read(admin: Connection, project: str) -> _Memory:
    ram = admin.get("compute", "os-quota-sets", project, "detail")["quota_set"]["ram"]
    return _Memory(int(ram["limit"]), int(ram["in_use"]) + int(ram["reserved"]))
