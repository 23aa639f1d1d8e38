"""What a step's kind works with: on paper (no cloud at hand) or on stage (a connected one)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stacklab.cloud.connection import Connection
from stacklab.conditions.fault import Fault
from stacklab.course.session import Session, Step
from stacklab.errors import UnknownName
from stacklab.homes.base import Ability, CloudAccess, ServiceState, Way
from stacklab.https.server import Https
from stacklab.kinds import KINDS
from stacklab.kinds.declaration import AssetRef, Ref, SecretRef, StepRef, shouted
from stacklab.kinds.identity import find_projects, find_users
from stacklab.kinds.kind import Absent, Asset, Thing
from stacklab.kinds.narration import Hidden, Later, Word
from stacklab.machines.site import Site
from stacklab.replay.consent import Allow, refuse_foreign
from stacklab.suggest import closest

Assets = Mapping[str, Callable[[], Asset]]
Secrets = Callable[[str], str]


class _Common:
    """What paper and desk share: names, secrets, files."""

    def __init__(self, session: Session, step: Step, assets: Assets, secrets: Secrets) -> None:
        self.session = session
        self.step = step
        self._assets = assets
        self._secrets = secrets

    @property
    def session_name(self) -> str:
        """The session's name."""
        return self.session.name

    def called(self, ref: Ref) -> str:
        """The name that a reference declares."""
        if isinstance(ref, str):
            return ref
        params: Any = self.session.step(ref.step).params
        return str(getattr(params, "name", ref.step))

    def secret(self, ref: SecretRef) -> Hidden:
        """The secret, shown as `$LEARNER_PASSWORD`."""
        return Hidden(shouted(ref.secret, "password"), self._secrets(ref.secret))

    def asset(self, ref: AssetRef) -> Asset:
        """The file. Raises UnknownName."""
        if ref.asset not in self._assets:
            raise UnknownName(
                f"there is no asset '{ref.asset}'", advice=closest(ref.asset, self._assets, "the course's author")
            )
        return self._assets[ref.asset]()


class Paper(_Common):
    """For showing a step without a cloud: ids are variables, nothing can be looked up.

    `https`: where its files lie is known, when there is a lab.
    """

    def __init__(
        self, session: Session, step: Step, assets: Assets, secrets: Secrets, https: Callable[[], Https] | None = None
    ) -> None:
        super().__init__(session, step, assets, secrets)
        self._https = https

    def id_of(self, ref: Ref, kind: str) -> Word:
        """A variable."""
        return Later(shouted(self.called(ref), "id"))

    def thing(self, ref: Ref, kind: str) -> Thing:
        """Nothing is there on paper."""
        raise Absent(f"{kind} {self.called(ref)}", ref.step if isinstance(ref, StepRef) else None)

    def project_id(self) -> str:
        """Nothing is there on paper."""
        raise Absent("a cloud")

    user_id = project_id

    @property
    def who(self) -> Connection:
        """Nobody is there on paper."""
        raise Absent("a cloud")

    admin = who

    def ability(self, name: str) -> str | None:
        """On paper everything is possible."""
        return None

    def way_to(self, server_id: str) -> Way | None:
        """On paper there is no way."""
        return None

    def site(self) -> Site:
        """Nothing is there on paper."""
        raise Absent("a machine")

    def services(self) -> list[ServiceState]:
        """Nothing runs on paper."""
        raise Absent("a cloud")

    def dashboard(self) -> str:
        """Nothing answers on paper."""
        raise Absent("a cloud")

    def https(self) -> Https:
        """Of the lab, if there is one."""
        if self._https is None:
            raise Absent("a cloud")
        return self._https()

    def fault(self, name: str) -> Fault:
        """Nothing breaks on paper."""
        raise Absent("a cloud")

    def say(self, text: str) -> None:
        """Nothing happens on paper, so there is nothing to say."""


@dataclass
class Desk:
    """A connected cloud with its people and the lab's files: what all scenes of one command share.

    `memory`: things that references meant, by step; cleared whenever a step changes something. `agreed`: see
    `stacklab.replay.consent`.
    """

    session: Session
    access: CloudAccess
    admin: Connection
    learner: Connection
    assets: Assets
    secrets: Secrets
    say: Callable[[str], None]
    memory: dict[str, Thing] = field(default_factory=dict)
    agreed: Allow = refuse_foreign

    def allow(self, step: Step) -> None:
        """Raises NotTrusted unless what this step runs may run."""
        self.agreed(self.session, step)

    def scene(self, step: Step) -> Scene:
        """The scene of one step."""
        return Scene(self, step)

    def paper(self, step: Step) -> Paper:
        """The same step without looking at the cloud."""
        return Paper(self.session, step, self.assets, self.secrets, self.access.https)


class Scene(_Common):
    """One step on stage."""

    def __init__(self, desk: Desk, step: Step) -> None:
        super().__init__(desk.session, step, desk.assets, desk.secrets)
        self.desk = desk
        self.admin = desk.admin
        self.who = desk.admin if step.who == "admin" else desk.learner

    def _learner(self, index: int) -> str:
        name = self.session.learner[index]
        found = (find_users, find_projects)[index](self, name)
        if not found:
            raise Absent(f"the {('user', 'project')[index]} {name}")
        return str(found[0]["id"])

    def project_id(self) -> str:
        """Looked up by name as admin: a check needs no password of the learner's."""
        return (
            self.admin.project_id
            if self.step.who == "admin"
            else self._remembered("project:", lambda: self._learner(1))
        )

    def user_id(self) -> str:
        """Like `project_id`."""
        return self.admin.user_id if self.step.who == "admin" else self._remembered("user:", lambda: self._learner(0))

    def _remembered(self, key: str, find: Callable[[], str]) -> str:
        if key not in self.desk.memory:
            self.desk.memory[key] = {"id": find()}
        return str(self.desk.memory[key]["id"])

    def thing(self, ref: Ref, kind: str) -> Thing:
        """What the reference means. A thing that differs from its declaration counts: its own step's check says so."""
        if isinstance(ref, str):
            found = KINDS[kind].named(self, ref)
            if found is None:
                raise Absent(f"{kind} {ref}")
            return found
        if ref.step not in self.desk.memory:
            step = self.session.step(ref.step)
            self.desk.allow(step)
            answer = step.kind.find(self.desk.scene(step), step.params)
            if answer is None:
                raise Absent(step.title, ref.step)
            self.desk.memory[ref.step] = answer[0]
        return self.desk.memory[ref.step]

    def id_of(self, ref: Ref, kind: str) -> Word:
        """The id, or a variable."""
        try:
            return str(self.thing(ref, kind)["id"])
        except Absent:
            return Later(shouted(self.called(ref), "id"))

    def ability(self, name: str) -> str | None:
        """Why not, or None."""
        ability: Ability = {"hypervisor": self.desk.access.hypervisor, "data_path": self.desk.access.data_path}[name]
        return None if ability.there else ability.why

    def way_to(self, server_id: str) -> Way | None:
        """Where SSH reaches the instance."""
        return self.desk.access.way_to(server_id)

    def site(self) -> Site:
        """The machine."""
        return self.desk.access.site()

    def services(self) -> list[ServiceState]:
        """Asked anew each time."""
        return self.desk.access.services()

    def https(self) -> Https:
        """As this home has it."""
        return self.desk.access.https()

    def dashboard(self) -> str:
        """Where Horizon answers."""
        return self.desk.access.dashboard or ""

    def fault(self, name: str) -> Fault:
        """As this home makes it. Raises UnknownName."""
        faults = self.desk.access.faults()
        if name not in faults:
            raise UnknownName(f"there is no fault '{name}' on this home", advice=closest(name, faults, "lab faults"))
        return faults[name]

    def say(self, text: str) -> None:
        """Pass on to whoever shows it."""
        self.desk.say(text)
