"""session.yaml → Session, or an error that names file, line, key and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from stacklab.course.faults import read_faults
from stacklab.course.search import FILE, all_sessions, find_session, sessions_in
from stacklab.course.session import Exercise, Session, Step
from stacklab.errors import LabError, UnknownName
from stacklab.kinds import KINDS
from stacklab.kinds.declaration import Id, Params
from stacklab.suggest import closest, closest_of
from stacklab.yamlfiles.complaints import complaints
from stacklab.yamlfiles.yamlfile import Where, YamlFile

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
M = TypeVar("M", bound=BaseModel)
Variables = Mapping[str, str | int | bool]

LEARNER = {"learner": "learner", "learner_project": "lab-project"}
"""Variables that every session has: the user and project that `as: learner` means. A home's clouds.yaml logs in as them."""

CLOUDS = {"service_project": "service"}
"""The same for what another deployer may name otherwise: the project that the services' own accounts are in."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Step(_Strict):
    id: Id
    kind: str
    who: Literal["admin", "learner"] = Field(alias="as")
    say: Text
    hint: Text
    needs: list[Id] = []
    until: Id | None = None
    params: dict[str, Any] = Field(alias="with", default={})


class _Exercise(_Strict):
    id: Id
    title: Text
    say: Text
    steps: list[Any] = Field(min_length=1)


class _Session(_Strict):
    session: Id
    title: Text
    summary: Text
    vars: dict[Id, str | int | bool] = {}
    services: list[Id] = []
    exercises: list[Any] = Field(min_length=1)
    faults: list[Any] = []


def session_names(root: Path | None = None) -> list[str]:
    """Names of the sessions under `root` (if none is given: the course's, and those on the search path)."""
    if root is None:
        return sorted(all_sessions())
    return [one.name for one in sessions_in(root, foreign=False)]


def load_session(
    name: str, root: Path | None = None, variables: Variables | None = None, also: Iterable[str] = ()
) -> Session:
    """The session of this name, from `root` or else from the search path and `also`. `variables` replace the file's own.

    Raises UnknownName, SessionInvalid.
    """
    if root is None:
        found = find_session(name, also)
        return read_session(found.file, variables, foreign=found.foreign)
    if name not in session_names(root):
        raise UnknownName(f"there is no session '{name}'", advice=closest(name, session_names(root), "lab list"))
    return read_session(root / name / FILE, variables)


def read_session(path: Path, variables: Variables | None = None, *, foreign: bool = False) -> Session:
    """The session in one file. Raises SessionInvalid."""
    examined = examine(path, variables, foreign=foreign)
    if examined.session is None:
        raise examined.problems[0][1]
    return examined.session


@dataclass(frozen=True)
class Examined:
    """A session file that was read to its end: the session if nothing is wrong, else everything that is.

    `places`: where each step stands, by id. `unused`: variables that nothing mentions.
    """

    file: YamlFile
    session: Session | None
    problems: list[tuple[Where, LabError]]
    places: dict[str, Where]
    unused: list[str]


def examine(path: Path, variables: Variables | None = None, *, foreign: bool = False) -> Examined:
    """Read a session file as far as it can be read. Raises SessionInvalid for what is no YAML, or no mapping."""
    file = YamlFile(path)
    if not isinstance(file.value, dict):
        raise file.error((), "a session file is a mapping that begins with 'session: NAME'")
    builder = _Builder(file, variables or {})
    value = builder.expanded()
    raw = builder.model(_Session, value, ())
    if isinstance(name := value.get("session"), str) and name != path.parent.name:
        builder.complain(
            ("session",), f"is '{name}', but the folder is '{path.parent.name}'", advice="give both one name"
        )
    listed = value.get("exercises")
    exercises = builder.exercises(listed if isinstance(listed, list) else [])
    steps = {step.id: step for exercise in exercises for step in exercise.steps}
    builder.endings(steps)
    broken = value.get("faults")
    faults = read_faults(builder, broken if isinstance(broken, list) else [], steps)
    session = None
    if raw and not builder.problems:
        learner = (str(builder.known["learner"]), str(builder.known["learner_project"]))
        session = Session(
            raw.session,
            raw.title,
            raw.summary,
            exercises,
            learner,
            path,
            tuple(raw.services),
            foreign=foreign,
            faults=faults,
        )
    return Examined(file, session, builder.problems, builder.places, builder.unused())


class _Builder:
    """Raw values → Session's parts, with everything checked that spans more than one step. What is wrong is collected."""

    def __init__(self, file: YamlFile, variables: Variables) -> None:
        self.file = file
        self.problems: list[tuple[Where, LabError]] = []
        self.seen: dict[str, str] = {}  # step id → kind
        self.names: set[str] = set()
        self.places: dict[str, Where] = {}
        self.known: dict[str, Any] = {**LEARNER, **CLOUDS}
        self._used: set[str] = {*LEARNER, *CLOUDS}
        declared = file.value.get("vars", {})
        if isinstance(declared, dict):
            self.known |= declared
        for key in variables:
            if key not in self.known:
                advice = closest_of(key, self.known, f"the vars of {file.path}")
                self.complain(("vars",), f"there is no variable '{key}'", advice=advice)
        self.known |= variables

    def complain(self, where: Where, problem: str, *, advice: str = "") -> None:
        """Remember what is wrong at a place, unless something inside it is known to be wrong already."""
        self._add(where, self.file.error(where, problem, advice=advice))

    def _add(self, where: Where, problem: LabError) -> None:
        if not any(place[: len(where)] == where and place != () for place, _ in self.problems):
            self.problems.append((where, problem))

    def model(self, model: type[M], value: Any, where: Where) -> M | None:
        """`value` as a model; None where it is none, which has been complained of."""
        found = complaints(model, value, self.file, where)
        for place, problem in found:
            self._add(place, problem)
        return None if found else model.model_validate(value)

    def unused(self) -> list[str]:
        """Variables that nothing has mentioned."""
        return [name for name in self.known if name not in self._used]

    # --- variables -------------------------------------------------------------------------------------------------

    def expanded(self) -> dict[str, Any]:
        """The whole file with its variables replaced by what they hold."""
        items = self.file.value.items()
        return {key: item if key == "vars" else self._expand(item, (key,)) for key, item in items}

    def _expand(self, value: Any, where: Where) -> Any:
        """`value` with every `{var: NAME}` replaced by the variable's value (whole values only: nothing is pasted)."""
        if isinstance(value, dict):
            if set(value) == {"var"}:
                name = value["var"]
                if isinstance(name, str) and name in self.known:
                    self._used.add(name)
                    return self.known[name]
                advice = closest_of(str(name), self.known, "those of vars: at the top")
                self.complain((*where, "var"), f"there is no variable '{name}'", advice=advice)
                return value
            return {key: self._expand(item, (*where, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._expand(item, (*where, index)) for index, item in enumerate(value)]
        return value

    # --- exercises and steps ---------------------------------------------------------------------------------------

    def exercises(self, listed: list[Any]) -> tuple[Exercise, ...]:
        """All that are good."""
        found = [self._exercise(value, ("exercises", index)) for index, value in enumerate(listed)]
        return tuple(one for one in found if one)

    def _exercise(self, value: Any, where: Where) -> Exercise | None:
        raw = self.model(_Exercise, value, where)
        name = value.get("id") if isinstance(value, dict) else None
        if isinstance(name, str):
            if name in self.names:
                self.complain((*where, "id"), f"there is an exercise '{name}' already")
            self.names.add(name)
        listed = value.get("steps") if isinstance(value, dict) else None
        steps = listed if isinstance(listed, list) else []
        found = [self._step(str(name), step, (*where, "steps", at)) for at, step in enumerate(steps)]
        return Exercise(raw.id, raw.title, raw.say, tuple(one for one in found if one)) if raw else None

    def _step(self, exercise: str, value: Any, where: Where) -> Step | None:
        raw = self.model(_Step, value, where)
        if raw is None:
            if isinstance(value, dict) and isinstance(value.get("id"), str):
                self.seen.setdefault(value["id"], "")  # so that what refers to it is not wrong, too
            return None
        if raw.id in self.seen:
            advice = "ids are unique in a session"
            self.complain((*where, "id"), f"there is a step '{raw.id}' already", advice=advice)
        kind = KINDS.get(raw.kind)
        if kind is None:
            advice = closest_of(raw.kind, KINDS, "the kinds")
            self.complain((*where, "kind"), f"there is no kind '{raw.kind}'", advice=advice)
        params = self.model(kind.params, raw.params, (*where, "with")) if kind else None
        needs = self._needs(raw, params, where)
        self.seen[raw.id] = raw.kind if kind and params else ""
        self.places[raw.id] = where
        if kind is None or params is None:
            return None
        return Step(raw.id, exercise, kind, params, raw.who, raw.say, raw.hint, needs, raw.until)

    def endings(self, steps: dict[str, Step]) -> None:
        """Check what `until:` names: a later step."""
        order = list(self.places)
        for step in steps.values():
            if step.until and step.until not in order[order.index(step.id) + 1 :]:
                later = order[order.index(step.id) + 1 :]
                advice = closest_of(step.until, later, "it is a later step that takes away what this one makes")
                self.complain(
                    (*self.places[step.id], "until"), f"no later step is called '{step.until}'", advice=advice
                )

    def _needs(self, raw: _Step, params: Params | None, where: Where) -> frozenset[str]:
        for index, name in enumerate(raw.needs):
            self._earlier(name, (*where, "needs", index))
        found = set(raw.needs)
        for key, ref, allowed in params.references() if params else ():
            place = (*where, "with", key)
            found.add(ref.step)
            if not self._earlier(ref.step, place):
                continue
            kind = self.seen[ref.step]
            if allowed and kind and kind not in allowed:
                self.complain(place, f"step '{ref.step}' is a {kind}, but a {' or '.join(allowed)} belongs here")
        return frozenset(found)

    def _earlier(self, name: str, where: Where) -> bool:
        if name in self.seen:
            return True
        advice = closest_of(name, self.seen, "a step can only build on earlier ones")
        self.complain(where, f"no earlier step is called '{name}'", advice=advice)
        return False
