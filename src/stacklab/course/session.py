"""What a session is, once its file has been read and found good."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from stacklab.errors import UnknownName
from stacklab.kinds.declaration import Id, Params
from stacklab.kinds.kind import Kind
from stacklab.plain import plain
from stacklab.suggest import closest

Who = Literal["admin", "learner"]
CloudSort = Literal["devstack", "embedded"]
"""How the services run that a learner looks at: as units of a machine, or as processes of the user's own."""
SORTS: tuple[CloudSort, ...] = get_args(CloudSort)
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True), AfterValidator(plain)]
"""For learners to read: without anything that a terminal would obey."""


@dataclass(frozen=True)
class Step:
    """One thing to do. `needs`: ids of the steps that it builds on (references count as needs).

    `until`: the later step that takes away what this one makes; once that one has been done, so has this one.
    """

    id: str
    exercise: str
    kind: Kind[Any]
    params: Params
    who: Who
    say: str
    hint: str
    needs: frozenset[str]
    until: str | None = None

    @property
    def title(self) -> str:
        """A few words on what it is about."""
        return self.kind.title(self.params)


@dataclass(frozen=True)
class Exercise:
    """Steps that belong together."""

    id: str
    title: str
    say: str
    steps: tuple[Step, ...]


class Keys(BaseModel):
    """What stands in a session file and is what it is read as; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class Clue(Keys):
    """One look on the way to a fault's cause. `$NAME` in its texts is one of the machine's names, like `$APACHE`."""

    look: Text
    """A command to look with."""
    shows: Text
    """What it shows."""
    means: Text
    """What that means."""
    on: CloudSort | None = None
    """The only sort of cloud that it is true of, unless it is true of all."""


class Symptoms(Keys):
    """What the learner meets, by the sort of cloud."""

    devstack: Text
    embedded: Text


def _everywhere(value: Any) -> Any:
    """One text stands for the same on every sort of cloud."""
    return dict.fromkeys(SORTS, value) if isinstance(value, str) else value


class FaultCase(Keys):
    """Something that `lab break` breaks on purpose, for the learner to find and repair."""

    id: Id
    """Its name; unique in the session."""
    other_name: Id | None = Field(alias="breaks", default=None)
    """The home's fault that it is, where that has another name."""
    title: Text
    """What it is called in lists."""
    say: Annotated[Symptoms, BeforeValidator(_everywhere, json_schema_input_type=str | Symptoms)]
    """The symptoms; one text, or one for each sort of cloud."""
    on: CloudSort | None = None
    """The only sort of cloud that can have it, unless all can."""
    trail: list[Clue] = Field(min_length=1)
    """The clues, from the symptoms to the cause."""
    step: Id
    """The step, of kind `repair`, that grades the repair."""

    @property
    def breaks(self) -> str:
        """The home's name for it."""
        return self.other_name or self.id

    def symptoms(self, sort: CloudSort) -> str:
        """What the learner meets on such a cloud."""
        return str(getattr(self.say, sort))

    def clues(self, sort: CloudSort) -> list[Clue]:
        """The trail on such a cloud."""
        return [clue for clue in self.trail if clue.on in (None, sort)]


Part = TypeVar("Part", Step, Exercise, FaultCase)


@dataclass(frozen=True)
class Session:
    """A chapter of the course. `learner` is the user, and the project, that `as: learner` means.

    `services`: optional services of OpenStack that it needs, by the names that a profile has for them (`swift`).
    `foreign`: it is not one of the course's: what it would run on a machine is shown and asked for first. `digest`: the hash
    of its file's bytes; `agreed`: somebody agrees to it for this one command.
    `faults`: what can be broken on purpose in it.
    """

    name: str
    title: str
    summary: str
    exercises: tuple[Exercise, ...]
    learner: tuple[str, str]
    file: Path
    services: tuple[str, ...] = ()
    foreign: bool = False
    digest: str = ""
    agreed: bool = False
    faults: tuple[FaultCase, ...] = ()

    def fault(self, fault_id: str) -> FaultCase:
        """The fault of this id. Raises UnknownName with the closest id there is."""
        return _of_id(fault_id, self.faults, f"{self.name} has no fault", f"lab faults {self.name}")

    def steps(self) -> Iterator[Step]:
        """All steps, in order."""
        for exercise in self.exercises:
            yield from exercise.steps

    def step(self, step_id: str) -> Step:
        """The step of this id. Raises UnknownName with the closest id there is."""
        return _of_id(step_id, self.steps(), f"{self.name} has no step", f"lab show {self.name}")

    def step_at(self, text: str) -> Step:
        """The step that ID, EXERCISE/ID or SESSION/EXERCISE/ID names. Raises UnknownName."""
        parts = text.strip("/").split("/")
        if len(parts) == 1:
            return self.step(text)
        if len(parts) == 3 and parts[0] == self.name:
            parts = parts[1:]
        if len(parts) != 2:
            raise UnknownName(f"{self.name} has no step '{text}'", advice=f"lab show {self.name} lists what there is")
        return self.select(*parts)[0]

    def select(self, exercise: str | None = None, step: str | None = None) -> list[Step]:
        """The steps of one exercise, one step, or all. Raises UnknownName."""
        if exercise is None:
            return list(self.steps())
        chosen = _of_id(exercise, self.exercises, f"{self.name} has no exercise", f"lab show {self.name}")
        if step is None:
            return list(chosen.steps)
        place = f"{self.name}/{exercise}"
        return [_of_id(step, chosen.steps, f"{place} has no step", f"lab show {place}")]


def _of_id(wanted: str, parts: Iterable[Part], problem: str, command: str) -> Part:
    """The part of this id. Raises UnknownName, with the closest id and the command that lists them."""
    known = {part.id: part for part in parts}
    if wanted not in known:
        raise UnknownName(f"{problem} '{wanted}'", advice=closest(wanted, known, command))
    return known[wanted]


@dataclass(frozen=True)
class StepAddress:
    """`session4`, `session4/network`, `session4/network/router`: what commands are pointed at."""

    session: str
    exercise: str | None = None
    step: str | None = None

    @classmethod
    def parse(cls, text: str) -> StepAddress:
        """Raises UnknownName if the text has more than three parts or an empty one."""
        parts = text.strip("/").split("/")
        if len(parts) > 3 or not all(parts):
            raise UnknownName(f"'{text}' is not SESSION[/EXERCISE[/STEP]]", advice="lab list shows what there is")
        return cls(*parts)
