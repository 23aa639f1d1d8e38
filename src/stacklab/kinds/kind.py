"""What a kind of step is: one declaration, four uses (narrate, apply, check, undo)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from stacklab.conditions.fault import Fault
from stacklab.errors import CloudRefused
from stacklab.https.server import Https
from stacklab.kinds.declaration import AssetRef, Params, Ref, SecretRef
from stacklab.kinds.narration import Command, Hidden, Request, Word
from stacklab.machines.site import Site

Thing = dict[str, Any]
"""A resource as the API's JSON shows it."""


class Absent(Exception):
    """Something that a step builds on is not in the cloud."""

    def __init__(self, what: str, step: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.step = step


@dataclass(frozen=True)
class Difference:
    """One way in which a thing is not what its step declares. Where nothing is `expected`, `actual` says what is wrong."""

    field: str
    expected: str | None
    actual: str


@dataclass(frozen=True)
class Asset:
    """A file that the lab provides. `attributes`: what a kind must know of it (disk_format, login_user, ...)."""

    path: Path
    attributes: dict[str, str]


class Way(Protocol):
    """An address and a port, and what they stand for; see `stacklab.homes.base`."""

    @property
    def host(self) -> str:
        """The address."""

    @property
    def port(self) -> int:
        """The port."""

    @property
    def why(self) -> str:
        """What they stand for, in words; empty for the instance's own."""

    @property
    def through(self) -> tuple[str, ...]:
        """More options for ssh, where they can be reached only by way of another machine."""


class Running(Protocol):
    """A service of the cloud as its home sees it; see `stacklab.homes.base.ServiceState`."""

    @property
    def name(self) -> str:
        """As `lab status` calls it."""

    @property
    def state(self) -> str:
        """running, starting, failed, stopped."""

    @property
    def reason(self) -> str:
        """Why it is not running."""


class Connection(Protocol):
    """Somebody logged in to the cloud; see `stacklab.cloud`."""

    name: str
    clouds_file: Path

    @property
    def sdk(self) -> Any:
        """The connected openstacksdk Connection."""

    @property
    def project_id(self) -> str:
        """The project that this person's token is scoped to."""

    @property
    def auth_url(self) -> str:
        """Keystone's address."""

    @property
    def verify(self) -> bool | str:
        """How TLS certificates are checked, as requests wants it."""

    def forget(self) -> None:
        """Log in anew when next asked: what the catalogue held is not what it holds."""

    def endpoint(self, service: str) -> str:
        """The public URL of a service, with the API version that we speak. Raises CloudRefused."""

    def address(self, service: str, *path: str) -> str:
        """The URL of something of a service's, its path quoted."""

    def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
        data: Any = None,
    ) -> Any:
        """The whole answer of any URL, asked with a token; raises CloudRefused or CloudUnreachable."""

    def stream(self, service: str, *path: str) -> Iterator[bytes]:
        """The body of a GET, piece by piece; raises CloudRefused or CloudUnreachable."""

    def get(self, service: str, *path: str, version: str | None = None, **query: str) -> Any:
        """The JSON answer of a GET; raises CloudRefused (with status) or CloudUnreachable."""

    def delete(self, service: str, *path: str, version: str | None = None, **query: str) -> bool:
        """DELETE; False if it was not there any more."""

    def post(self, service: str, *path: str, body: Any) -> Any:
        """The JSON answer of a POST."""

    def put(self, service: str, *path: str, body: Any) -> Any:
        """PUT."""

    def gone(self, service: str, *path: str) -> bool:
        """Whether a GET answers 404."""


class Scene(Protocol):
    """What a kind's uses work with: who acts, what the references mean, what this cloud can do."""

    @property
    def session_name(self) -> str:
        """The session that the step belongs to, for commands that name it."""

    @property
    def who(self) -> Connection:
        """The one that the step is done as."""

    @property
    def admin(self) -> Connection:
        """The admin: checks look through these eyes, so they see whatever anybody made."""

    def project_id(self) -> str:
        """The project that the step's things belong to. Raises Absent."""

    def user_id(self) -> str:
        """The user that the step is done as. Raises Absent."""

    def thing(self, ref: Ref, kind: str) -> Thing:
        """What a reference means in the cloud. Raises Absent."""

    def called(self, ref: Ref) -> str:
        """The name that a reference declares, whether or not the thing exists."""

    def id_of(self, ref: Ref, kind: str) -> Word:
        """The thing's id, or a variable for it when there is no such thing (yet)."""

    def secret(self, ref: SecretRef) -> Hidden:
        """The secret that a reference names."""

    def asset(self, ref: AssetRef) -> Asset:
        """The file that a reference names."""

    def ability(self, name: str) -> str | None:
        """Why this cloud cannot do `name` ("hypervisor", "data_path"), or None if it can."""

    def way_to(self, server_id: str) -> Way | None:
        """How a server's SSH can be reached from here."""

    def site(self) -> Site:
        """The machine that the cloud runs on. Raises Absent on paper, MachineUnreachable."""

    def services(self) -> Sequence[Running]:
        """How the cloud's services are now. Raises Absent on paper."""

    def dashboard(self) -> str:
        """Horizon's address, "" where there is none. Raises Absent on paper."""

    def https(self) -> Https:
        """TLS in front of the cloud. Raises Absent on paper."""

    def fault(self, name: str) -> Fault:
        """What can be broken on purpose. Raises Absent on paper, UnknownName."""

    def say(self, text: str) -> None:
        """Show what a look or a login brought."""


P = TypeVar("P", bound=Params)


class Kind(ABC, Generic[P]):
    """One kind of step. `name` is what session files call it, `params` what its `with:` may hold.

    `leaves`: whether applying it leaves something in the cloud that undo removes.
    """

    name: ClassVar[str]
    params: ClassVar[type[Params]]
    leaves: ClassVar[bool] = True
    settles_first: ClassVar[bool] = False
    """Whether to wait for what is declared before doing it: a log is shown when there is something in it."""

    repeatable: ClassVar[bool] = False
    """Whether doing it again is the way to put right what differs: a script, written so that it may run twice."""

    def lasting(self, p: P) -> bool:
        """Whether this step leaves something: `leaves`, where that does not depend on its parameters."""
        return self.leaves

    itself: ClassVar[bool] = False
    """Whether `create` does it whatever way was asked for: the way is what the step is about."""

    @abstractmethod
    def title(self, p: P) -> str:
        """A few words: what it is about."""

    @abstractmethod
    def horizon(self, p: P) -> str:
        """The way through Horizon's menus."""

    @abstractmethod
    def commands(self, scene: Scene, p: P) -> list[Command]:
        """The `openstack` commands that do it."""

    @abstractmethod
    def requests(self, scene: Scene, p: P) -> list[Request]:
        """The REST requests that do it."""

    def more(self, scene: Scene, p: P) -> list[str]:
        """Lines that belong to the telling of this step beside all that: a file with explanations, say."""
        return []

    @abstractmethod
    def create(self, scene: Scene, p: P) -> None:
        """Do it through openstacksdk."""

    @abstractmethod
    def candidates(self, scene: Scene, p: P) -> Iterable[Thing]:
        """Everything in the cloud that could be what is declared (same name, same project)."""

    def compare(self, scene: Scene, p: P, thing: Thing) -> list[Difference]:
        """How `thing` differs from what is declared."""
        return []

    def remove(self, scene: Scene, thing: Thing) -> bool:
        """Remove what was made, given what `keep` recorded of it; False if it was gone already."""
        raise NotImplementedError(self.name)

    def foresee(self, scene: Scene, p: P) -> Thing | None:
        """What `remove` must know to put back what this changes, where that can only be seen before it is done.

        It goes to the journal before anything is changed, in place of what `keep` says, so that a step that was cut off
        half-way can be undone, too. None for a step that makes something of its own.
        """
        return None

    def keep(self, scene: Scene, p: P, thing: Thing) -> Thing:
        """What `remove` must know later (goes to the journal: no secrets)."""
        return {key: thing[key] for key in ("id", "name") if key in thing}

    @abstractmethod
    def look(self, scene: Scene, p: P) -> Command:
        """The command to look at it with."""

    def runs(self, p: P) -> str:
        """What of the session's own making this runs or reads on a machine of the learner's, when applied, checked or undone.

        It is shown, and asked for, before a step of a foreign session; empty for what only asks a cloud.
        """
        return ""

    def applicable(self, scene: Scene, p: P) -> str | None:
        """Why this step makes no sense on this cloud, or None."""
        return None

    def judge(self, scene: Scene, p: P, refusal: CloudRefused | None) -> None:
        """What the cloud's answer to applying means; raises unless it is what the step wants."""
        if refusal:
            raise refusal

    def settle_seconds(self, p: P) -> float:
        """How long the cloud may take, after it has answered, until it shows what was asked for."""
        return 60

    def expected(self, p: P) -> str:
        """What a check expects, in words."""
        return f"{self.title(p)} exists as declared"

    def shown(self, thing: Thing) -> str:
        """A found thing in words, as a check's `actual`."""
        return str(thing.get("name") or thing.get("id") or "there")

    def find(self, scene: Scene, p: P) -> tuple[Thing, list[Difference]] | None:
        """The thing in the cloud that comes closest to what is declared, and how it differs."""
        compared = [(thing, self.compare(scene, p, thing)) for thing in self.candidates(scene, p)]
        return min(compared, key=lambda pair: len(pair[1]), default=None)

    def named(self, scene: Scene, name: str) -> Thing | None:
        """A thing by its name alone, for references that name something the session does not make."""
        raise NotImplementedError(self.name)


def differing(pairs: Iterable[tuple[str, object, object]]) -> list[Difference]:
    """Differences among (field, expected, actual), leaving out what was not declared (None)."""
    return [
        Difference(name, str(expected), str(actual))
        for name, expected, actual in pairs
        if expected is not None and expected != actual
    ]
