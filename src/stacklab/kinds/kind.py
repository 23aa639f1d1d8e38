"""What a kind of step is: one declaration, four uses (narrate, apply, check, undo)."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from stacklab.errors import CloudRefused
from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import Params
from stacklab.kinds.narration import Command, Request


@dataclass(frozen=True)
class Difference:
    """One way in which a thing is not what its step declares. Where nothing is `expected`, `actual` says what is wrong."""

    field: str
    expected: str | None
    actual: str

    def __str__(self) -> str:
        if self.expected is None:
            return f"{self.field}: {self.actual}"
        return f"{self.field}: expected {self.expected}, found {self.actual}"


P = TypeVar("P", bound=Params)


class Kind(ABC, Generic[P]):
    """One kind of step. `name` is what session files call it, `params` what its `with:` may hold.

    `leaves`: whether applying it leaves something in the cloud that undo removes.
    """

    name: ClassVar[str]
    params: ClassVar[type[Params]]
    words: ClassVar[str]
    """A few words: what it is about. `{NAME}` stands for the parameter of that name, here and in the next two."""
    menus: ClassVar[str]
    """The way through Horizon's menus."""
    expects: ClassVar[str] = "{title} exists as declared"
    """What a check expects, in words; `{title}` is what the step is about."""
    tells: ClassVar[str] = ""
    """A found thing in words, `{KEY}` for what it has there; where nothing is said here, its name does."""
    leaves: ClassVar[bool] = True
    settle_seconds: ClassVar[float] = 60
    """How long the cloud may take, after it has answered, until it shows what was asked for."""
    settles_first: ClassVar[bool] = False
    """Whether to wait for what is declared before doing it: a log is shown when there is something in it."""

    repeatable: ClassVar[bool] = False
    """Whether doing it again is the way to put right what differs: a script, written so that it may run twice."""

    changes: ClassVar[bool] = False
    """Whether it changes what is there anyway: where that differs and the lab has not done it yet, it is to be done."""

    def lasting(self, p: P) -> bool:
        """Whether this step leaves something: `leaves`, where that does not depend on its parameters."""
        return self.leaves

    own_way: ClassVar[bool] = False
    """Whether `run` does it whatever way was asked for: the way is what the step is about."""

    def title(self, p: P) -> str:
        """A few words: what it is about."""
        return self.words.format_map(vars(p))

    def horizon(self, p: P) -> str:
        """The way through Horizon's menus."""
        return self.menus.format_map(vars(p))

    @abstractmethod
    def commands(self, context: Context, p: P) -> list[Command]:
        """The `openstack` commands that do it."""

    def requests(self, context: Context, p: P) -> list[Request]:
        """The REST requests that do it; none for what no API does."""
        return []

    def more(self, context: Context, p: P) -> list[str]:
        """Lines that belong to the telling of this step beside all that: a file with explanations, say."""
        return []

    def run(self, context: Context, p: P) -> None:
        """Do what no request does. Nothing by default: a look needs no doing, what is to be seen is shown right after."""

    def report(self, thing: Thing) -> str | None:
        """What a look found, in a form of its own; None: an outline of the answers is good enough."""
        return None

    @abstractmethod
    def find_all(self, context: Context, p: P) -> Iterable[Thing]:
        """Everything in the cloud that could be what is declared (same name, same project)."""

    def compare(self, context: Context, p: P, thing: Thing) -> list[Difference]:
        """How `thing` differs from what is declared: what `find_all` has worked out of that already."""
        return list(thing.get("differences", []))

    def remove(self, context: Context, thing: Thing) -> bool:
        """Remove what was made, given what `undo_data` recorded of it; False if it was gone already."""
        raise NotImplementedError(self.name)

    def snapshot(self, context: Context, p: P) -> Thing | None:
        """What `remove` must know to put back what this changes, where that can only be seen before it is done.

        It goes to the journal before anything is changed, in place of what `undo_data` says, so that a step that was cut off
        half-way can be undone, too. None for a step that makes something of its own.
        """
        return None

    def undo_data(self, context: Context, p: P, thing: Thing) -> Thing:
        """What `remove` must know later (goes to the journal: no secrets)."""
        return {key: thing[key] for key in ("id", "name") if key in thing}

    def show_command(self, context: Context, p: P) -> Command:
        """The command to look at it with: of a look, the one that does it."""
        return self.commands(context, p)[0]

    def runs(self, p: P) -> str:
        """What of the session's own making this runs or reads on a machine of the learner's, when applied, checked or undone.

        It is shown, and asked for, before a step of a foreign session; empty for what only asks a cloud.
        """
        return ""

    def applicable(self, context: Context, p: P) -> str | None:
        """Why this step makes no sense on this cloud, or None."""
        return None

    def judge(self, context: Context, p: P, refusal: CloudRefused | None) -> None:
        """What the cloud's answer to applying means; raises unless it is what the step wants."""
        if refusal:
            raise refusal

    def expected(self, p: P) -> str:
        """What a check expects, in words."""
        return self.expects.format(title=self.title(p), **vars(p))

    def shown(self, thing: Thing) -> str:
        """A found thing in words, as a check's `actual`."""
        return self.tells.format_map(thing) if self.tells else str(thing.get("name") or thing.get("id") or "there")

    def find(self, context: Context, p: P) -> tuple[Thing, list[Difference]] | None:
        """The thing in the cloud that comes closest to what is declared, and how it differs."""
        compared = [(thing, self.compare(context, p, thing)) for thing in self.find_all(context, p)]
        return min(compared, key=lambda pair: len(pair[1]), default=None)

    def named(self, context: Context, name: str) -> Thing | None:
        """A thing by its name alone, for references that name something the session does not make."""
        raise NotImplementedError(self.name)


def differing(pairs: Iterable[tuple[str, object, object]]) -> list[Difference]:
    """Differences among (field, expected, actual), leaving out what was not declared (None)."""
    return [
        Difference(name, str(expected), str(actual))
        for name, expected, actual in pairs
        if expected is not None and expected != actual
    ]


def mentions(output: str, text: str) -> bool:
    """Whether an output has a text in it, as words of its own: `app` is neither in `my-app` nor in `apps`."""
    before = r"(?<![\w-])" if re.match(r"\w", text) else ""
    after = r"(?![\w-])" if re.search(r"\w$", text) else ""
    return re.search(f"{before}{re.escape(text)}{after}", output) is not None
