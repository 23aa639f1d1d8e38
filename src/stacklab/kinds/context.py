"""What a step works with: who acts, what its references mean, what this cloud can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stacklab.cloud.access import Ability, CloudAccess, ServiceState, SshEndpoint
from stacklab.cloud.connection import Connection
from stacklab.conditions.condition import Fault
from stacklab.errors import UnknownName
from stacklab.https.server import Https
from stacklab.kinds.declaration import AssetRef, Ref, SecretRef, StepRef, shouted
from stacklab.kinds.narration import Hidden, Later, Word
from stacklab.machines.site import Site
from stacklab.suggest import closest

if TYPE_CHECKING:
    from stacklab.course.session import Session, Step

Thing = dict[str, Any]
"""A resource as the API's JSON shows it."""

DOMAIN = "default"
"""Keystone's domain that users and projects of the course are in."""


class Absent(Exception):
    """Something that a step builds on is not in the cloud."""

    def __init__(self, what: str, step: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.step = step


@dataclass(frozen=True)
class Asset:
    """A file that the lab provides. `attributes`: what a kind must know of it (disk_format, login_user, ...)."""

    path: Path
    attributes: dict[str, str]


Assets = Mapping[str, Callable[[], Asset]]
Secrets = Callable[[str], str]


@dataclass
class Workspace:
    """A session at a cloud: what the steps of one command share.

    `site`: the machine that the cloud runs on; `services`: how they run now; `faults`: what can be broken on purpose, by name;
    `https`: TLS in front of the cloud. `lab`: its name. `memory`: things that references meant, by step; cleared whenever a
    step changes something.
    """

    session: Session
    access: CloudAccess
    admin: Connection
    learner: Connection
    assets: Assets
    secrets: Secrets
    say: Callable[[str], None]
    site: Callable[[], Site]
    services: Callable[[], Sequence[ServiceState]]
    faults: Callable[[], Mapping[str, Fault]]
    https: Callable[[], Https]
    lab: str = "intro"
    memory: dict[str, Thing] = field(default_factory=dict)

    def context(self, step: Step) -> Context:
        """What one step works with."""
        return Context(self, step)

    def offline(self, step: Step) -> OfflineContext:
        """The same step without looking at the cloud."""
        return OfflineContext(self.session, step, self.assets, self.secrets, self.https)


class _Declared:
    """What is known of a step without a cloud: names, secrets, files."""

    def __init__(self, session: Session, step: Step, assets: Assets, secrets: Secrets) -> None:
        self.session = session
        self.step = step
        self._assets = assets
        self._secrets = secrets

    @property
    def session_name(self) -> str:
        """The session that the step belongs to, for commands that name it."""
        return self.session.name

    def name_of(self, ref: Ref) -> str:
        """The name that a reference declares, whether or not the thing exists."""
        if isinstance(ref, str):
            return ref
        params: Any = self.session.step(ref.step).params
        return str(getattr(params, "name", ref.step))

    def secret(self, ref: SecretRef) -> Hidden:
        """The secret that a reference names, shown as `$LEARNER_PASSWORD`."""
        return Hidden(shouted(ref.secret, "password"), self._secrets(ref.secret))

    def asset(self, ref: AssetRef) -> Asset:
        """The file that a reference names. Raises UnknownName."""
        if ref.asset not in self._assets:
            raise UnknownName(
                f"there is no asset '{ref.asset}'", advice=closest(ref.asset, self._assets, "the course's author")
            )
        return self._assets[ref.asset]()


class Context(_Declared):
    """One step at a connected cloud."""

    def __init__(self, workspace: Workspace, step: Step) -> None:
        super().__init__(workspace.session, step, workspace.assets, workspace.secrets)
        self._workspace: Workspace | None = workspace
        self.absent: dict[str, Absent] = {}
        """What was not there when its id was asked for, by the variable that stands for it."""

    @property
    def workspace(self) -> Workspace:
        """What it shares with the other steps. Raises Absent where there is no cloud at hand."""
        if self._workspace is None:
            raise Absent("a cloud")
        return self._workspace

    @property
    def admin(self) -> Connection:
        """The admin: checks look through these eyes, so they see whatever anybody made."""
        return self.workspace.admin

    @property
    def user(self) -> Connection:
        """The one that the step is done as."""
        return self.admin if self.step.who == "admin" else self.workspace.learner

    def project_id(self) -> str:
        """The project that the step's things belong to. Raises Absent."""
        return (
            self.admin.project_id if self.step.who == "admin" else self._learners("projects", self.session.learner[1])
        )

    def user_id(self) -> str:
        """The user that the step is done as. Raises Absent."""
        return self.admin.user_id if self.step.who == "admin" else self._learners("users", self.session.learner[0])

    def _learners(self, collection: Literal["projects", "users"], name: str) -> str:
        """The id of the learner's user or project, looked up by name as admin: a check needs no password of the learner's."""
        memory, key = self.workspace.memory, f"{collection}:"
        if key not in memory:
            listed = self.admin.get("identity", collection, name=name, domain_id=DOMAIN)[collection]
            if not listed:
                raise Absent(f"the {collection.removesuffix('s')} {name}")
            memory[key] = listed[0]
        return str(memory[key]["id"])

    def thing(self, ref: Ref, kind: str) -> Thing:
        """What a reference means in the cloud. Raises Absent.

        A thing that differs from its declaration counts: its own step's check says so.
        """
        if isinstance(ref, str):
            from stacklab.kinds import KINDS  # they all import this module

            named = KINDS[kind].named(self, ref)
            if named is None:
                raise Absent(f"{kind} {ref}")
            return named
        workspace = self.workspace
        if ref.step not in workspace.memory:
            step = self.session.step(ref.step)
            closest_thing = step.kind.find(workspace.context(step), step.params)
            if closest_thing is None:
                raise Absent(step.title, ref.step)
            workspace.memory[ref.step] = closest_thing[0]
        return workspace.memory[ref.step]

    def id_of(self, ref: Ref, kind: str) -> Word:
        """The thing's id, or a variable for it when there is no such thing (yet)."""
        try:
            return str(self.thing(ref, kind)["id"])
        except Absent as absent:
            variable = shouted(self.name_of(ref), "id")
            self.absent[variable] = absent
            return Later(variable)

    def lacks(self, ability: Literal["hypervisor", "data_path"]) -> str | None:
        """Why this cloud cannot do it, or None if it can."""
        access = self.workspace.access
        able: Ability = access.hypervisor if ability == "hypervisor" else access.data_path
        return None if able.there else able.why

    def ssh_endpoint(self, server_id: str) -> SshEndpoint | None:
        """Where a server's SSH can be reached from here."""
        return self.workspace.access.ssh_endpoint(server_id)

    def site(self) -> Site:
        """The machine that the cloud runs on. Raises Absent offline, MachineUnreachable."""
        return self.workspace.site()

    def services(self) -> Sequence[ServiceState]:
        """How the cloud's services are now, asked anew each time. Raises Absent offline."""
        return self.workspace.services()

    def https(self) -> Https:
        """TLS in front of the cloud. Raises Absent where there is no lab."""
        return self.workspace.https()

    def dashboard(self) -> str:
        """Horizon's address, "" where there is none. Raises Absent offline."""
        return self.workspace.access.dashboard or ""

    def fault(self, name: str) -> Fault:
        """What can be broken on purpose. Raises Absent offline, UnknownName."""
        faults = self.workspace.faults()
        if name not in faults:
            raise UnknownName(f"there is no fault '{name}' on this home", advice=closest(name, faults, "lab faults"))
        return faults[name]

    def say(self, text: str) -> None:
        """Show what a look or a login brought."""
        self.workspace.say(text)


class OfflineContext(Context):
    """For showing a step without a cloud: ids are variables, and nothing can be looked up.

    `https`: where its files lie is known, when there is a lab.
    """

    def __init__(
        self, session: Session, step: Step, assets: Assets, secrets: Secrets, https: Callable[[], Https] | None = None
    ) -> None:
        _Declared.__init__(self, session, step, assets, secrets)
        self._workspace = None
        self.absent = {}
        self._https = https

    def thing(self, ref: Ref, kind: str) -> Thing:
        """Nothing is there."""
        raise Absent(f"{kind} {self.name_of(ref)}", ref.step if isinstance(ref, StepRef) else None)

    def https(self) -> Https:
        """Of the lab, if there is one."""
        if self._https is None:
            raise Absent("a cloud")
        return self._https()
