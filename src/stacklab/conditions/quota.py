"""A project that has used up its quota: broken and mended through Nova's API, so the same on every home."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stacklab.cloud.connection import Connection
from stacklab.conditions.fault import Fault
from stacklab.conditions.finding import Finding
from stacklab.errors import CloudRefused, CloudUnreachable, HomeUnavailable, LabError, ServiceFailed
from stacklab.files import read_json, write_json
from stacklab.stages import Progress

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


class QuotaFault(Fault):
    """The project's limit on memory is lowered to hardly more than what its instances use.

    `admin`: opens the cloud as its administrator; raises NotRunning, CloudUnreachable. `kept`: a file of the lab's, where the
    limit before is kept.
    """

    id = "quota"
    title = "the project has used up its quota"

    def __init__(self, admin: Callable[[], Connection], project: str, kept: Path) -> None:
        self._admin = admin
        self._project = project
        self._kept = kept

    def why_not(self) -> str | None:
        try:
            there = self._find(self._admin())
        except (CloudRefused, CloudUnreachable):
            return None  # a cloud that is ill; whoever looks is told
        except LabError as error:
            return f"cannot tell whether there is a project {self._project}: {error.message}"
        return None if there else f"there is no project {self._project} yet; a session's exercise 'project' makes it"

    def look(self) -> Finding:
        try:
            admin = self._admin()
            project = self._find(admin)
            if project is None:
                return Finding("not_applicable", f"there is no project {self._project}")
            memory = _read(admin, project)
        except LabError as error:
            return Finding("unknown", f"cannot tell: {error.message}")
        if memory.exhausted:
            return Finding("broken", f"project {self._project}: {memory.said}, so no flavor fits")
        return Finding("well", f"project {self._project}: {memory.said}")

    def inflict(self, progress: Progress) -> None:
        admin = self._admin()
        project = self._find(admin)
        if project is None:
            raise HomeUnavailable(f"the fault '{self.id}' cannot be had here: {self.why_not()}")
        memory = _read(admin, project)
        if memory.exhausted:
            return
        write_json(self._kept, {"project": project, "limit": memory.limit})
        progress(f"lowering the quota of {self._project}")
        _set(admin, project, memory.used + LEFT)

    def mend(self, progress: Progress) -> None:
        admin = self._admin()
        project = self._find(admin)
        if project is not None:
            self._raise(admin, project, progress)
        self._kept.unlink(missing_ok=True)

    def _raise(self, admin: Connection, project: str, progress: Progress) -> None:
        memory = _read(admin, project)
        kept = read_json(self._kept)
        if not memory.exhausted:
            return
        progress(f"raising the quota of {self._project}")
        before = kept["limit"] if kept and kept["project"] == project else memory.used + USUAL
        _set(admin, project, int(before))
        after = _read(admin, project)
        if after.exhausted:
            raise ServiceFailed(
                f"project {self._project} has its quota of before, and yet {after.said}",
                advice="remove instances, or raise it: openstack quota set --ram",
            )

    def _find(self, admin: Connection) -> str | None:
        found = admin.get("identity", "projects", name=self._project)["projects"]
        return str(found[0]["id"]) if found else None


def _read(admin: Connection, project: str) -> _Memory:
    told = admin.get("compute", "os-quota-sets", project, "detail")["quota_set"]["ram"]
    return _Memory(int(told["limit"]), int(told["in_use"]) + int(told["reserved"]))


def _set(admin: Connection, project: str, limit: int) -> None:
    admin.put("compute", "os-quota-sets", project, body={"quota_set": {"ram": limit, "force": True}})
