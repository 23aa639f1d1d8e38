"""What a session file says under `faults:` → what can be broken on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from stacklab.course.session import CloudSort, Clue, FaultCase, Step
from stacklab.kinds.declaration import Id
from stacklab.suggest import closest_of
from stacklab.yamlfiles.yamlfile import Where

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
M = TypeVar("M", bound=BaseModel)
SORTS: tuple[CloudSort, ...] = get_args(CloudSort)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Clue(_Strict):
    look: Text
    shows: Text
    means: Text
    on: CloudSort | None = None


class _Symptoms(_Strict):
    devstack: Text
    embedded: Text


def _everywhere(value: Any) -> Any:
    """One text stands for the same on every sort of cloud."""
    return dict.fromkeys(SORTS, value) if isinstance(value, str) else value


class _Fault(_Strict):
    id: Id
    breaks: Id | None = None
    title: Text
    say: Annotated[_Symptoms, BeforeValidator(_everywhere)]
    on: CloudSort | None = None
    trail: list[_Clue] = Field(min_length=1)
    step: Id


class Reader(Protocol):
    """Whoever reads the file: makes models of its values, and collects what is wrong with it."""

    def model(self, model: type[M], value: Any, where: Where) -> M | None:
        """`value` as a model; None where it is none, which has been complained of."""

    def complain(self, where: Where, problem: str, *, advice: str = "") -> None:
        """Remember what is wrong at a place."""


def read_faults(reader: Reader, listed: list[Any], steps: Mapping[str, Step]) -> tuple[FaultCase, ...]:
    """All that are good; each has a step that grades its repair, a trail on every sort of cloud, and an id of its own."""
    found: dict[str, FaultCase] = {}
    for index, value in enumerate(listed):
        where = ("faults", index)
        fault = reader.model(_Fault, value, where)
        if fault is None:
            continue
        if fault.id in found:
            reader.complain((*where, "id"), f"there is a fault '{fault.id}' already")
        case = _case(fault)
        if problem := _ungraded(case, steps):
            reader.complain((*where, "step"), problem, advice=closest_of(fault.step, steps, "the steps"))
        for sort in (fault.on,) if fault.on else SORTS:
            if not case.clues(sort):
                reader.complain((*where, "trail"), f"nothing of it is said to be true on {sort}", advice="add a clue")
        found[fault.id] = case
    return tuple(found.values())


def _case(fault: _Fault) -> FaultCase:
    trail = tuple(Clue(one.look, one.shows, one.means, (one.on,) if one.on else SORTS) for one in fault.trail)
    said: dict[CloudSort, str] = {"devstack": fault.say.devstack, "embedded": fault.say.embedded}
    return FaultCase(fault.id, fault.breaks or fault.id, fault.title, said, trail, fault.step)


def _ungraded(case: FaultCase, steps: Mapping[str, Step]) -> str:
    """Why its step does not grade its repair; empty if it does."""
    step = steps.get(case.step)
    if step is None:
        return f"no step is called '{case.step}'"
    if step.kind.name != "repair":
        return f"step '{case.step}' is a {step.kind.name}, but a repair belongs here"
    repaired = getattr(step.params, "fault", None)
    return (
        "" if repaired == case.breaks else f"step '{case.step}' grades the repair of '{repaired}', not '{case.breaks}'"
    )
