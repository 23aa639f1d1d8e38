"""session.yaml → Session, or an error that names file, line, key and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, SkipValidation, StringConstraints

from stacklab.cloud.access import LEARNER
from stacklab.course.search import all_sessions, find_session
from stacklab.course.session import SORTS, Exercise, FaultCase, Keys, Session, Step, Text
from stacklab.kinds import KINDS
from stacklab.kinds.declaration import Id, Params
from stacklab.suggest import closest_of
from stacklab.yamlfiles.complaints import VARIABLE_PATTERN, YamlComplaint, examined
from stacklab.yamlfiles.yamlfile import Where, YamlFile

VariableName = Annotated[str, StringConstraints(pattern=VARIABLE_PATTERN, max_length=60)]
M = TypeVar("M", bound=BaseModel)
Variables = Mapping[str, str | int | bool]

CLOUDS = {"service_project": "service"}
"""The same for what another deployer may name otherwise: the project that the services' own accounts are in."""


class StepDeclared(Keys):
    """One thing to do, by the learner or for them."""

    id: Id
    """Its name; unique in the session."""
    kind: str
    """What sort of step it is; that says what may stand in `with`."""
    who: Literal["admin", "learner"] = Field(alias="as")
    """Who does it: the learner, or the cloud's administrator."""
    say: Text
    """Why it is done, for whoever reads it before doing it."""
    hint: Text
    """What to look at when a check says that it is not done, and what that has to show."""
    needs: list[Id] = []
    """Earlier steps that it builds on, beside those that `with` refers to."""
    until: Id | None = None
    """The later step that takes away what this one makes; once that one is done, so is this one."""
    params: dict[str, Any] = Field(alias="with", default={})
    """What exactly shall be there."""


class ExerciseDeclared(Keys):
    """Steps that belong together."""

    id: Id
    """Its name; unique in the session."""
    title: Text
    """What it is called in lists."""
    say: Text
    """Its introduction."""
    steps: list[SkipValidation[StepDeclared]] = Field(min_length=1)
    """The steps, in the order in which they are done."""


class SessionDeclared(Keys):
    """A session of the course: `session.yaml` in a folder of the same name."""

    session: Id
    """The folder's name."""
    title: Text
    """What it is called in lists."""
    summary: Text
    """What it is about, in a sentence or two."""
    vars: dict[VariableName, str | int | bool] = {}
    """Values that are named once: `{var: NAME}` stands for one wherever a value may stand. `learner` and `learner_project` are
    the user and the project that `as: learner` means."""
    services: list[Id] = []
    """Optional services of OpenStack that it needs, like `swift`."""
    exercises: list[SkipValidation[ExerciseDeclared]] = Field(min_length=1)
    """Its exercises, in order."""
    faults: list[SkipValidation[FaultCase]] = []
    """What can be broken on purpose in it."""


def session_names() -> list[str]:
    """Names of the course's sessions, and of those on the search path."""
    return sorted(all_sessions())


def load_session(name: str, variables: Variables | None = None, also: Iterable[str] = ()) -> Session:
    """The session of this name, from the search path and `also`. `variables` replace the file's own.

    Raises UnknownName, SessionInvalid.
    """
    place = find_session(name, also)
    return read_session(place.file, variables, foreign=place.foreign)


def read_session(path: Path, variables: Variables | None = None, *, foreign: bool = False) -> Session:
    """The session in one file. Raises SessionInvalid."""
    examined = Examined(path, variables, foreign=foreign)
    if examined.session is None:
        raise examined.problems[0].error(examined.file)
    return examined.session


class Examined:
    """A session file that was read to its end: the session if nothing is wrong, else everything that is.

    Each part is read apart, so that a mistake in one hides none in another. `places`: where each step stands, by id.
    """

    def __init__(self, path: Path, variables: Variables | None = None, *, foreign: bool = False) -> None:
        """Raises SessionInvalid for what is no YAML, or no mapping."""
        self.file = YamlFile(path)
        if not isinstance(self.file.value, dict):
            raise self.file.error((), "a session file is a mapping that begins with 'session: NAME'")
        self.problems: list[YamlComplaint] = []
        self.places: dict[str, Where] = {}
        self._kinds: dict[str, str] = {}  # of each step that was read, by its id; "" where that is wrong
        self._known: dict[str, Any] = {**LEARNER, **CLOUDS}
        self._used: set[str] = {*LEARNER, *CLOUDS}
        self._declare(variables or {})
        self.session = self._read(foreign)

    def _declare(self, variables: Variables) -> None:
        """Take note of the file's variables, and of others' values for them."""
        declared = self.file.value.get("vars", {})
        if isinstance(declared, dict):
            self._known |= declared
        for key in variables:
            if key not in self._known:
                advice = closest_of(key, self._known, f"the vars of {self.file.path}")
                self.complain(("vars",), f"there is no variable '{key}'", advice=advice)
        self._known |= variables

    def _read(self, foreign: bool) -> Session | None:
        items = self.file.value.items()
        value = {key: item if key == "vars" else self._expand(item, (key,)) for key, item in items}
        raw = self.model(SessionDeclared, value, ())
        path, name = self.file.path, value.get("session")
        if isinstance(name, str) and name != path.parent.name:
            problem = f"is '{name}', but the folder is '{path.parent.name}'"
            self.complain(("session",), problem, advice="give both one name")
        exercises = self._exercises(_listed(value, "exercises"))
        steps = {step.id: step for exercise in exercises for step in exercise.steps}
        self._check_endings(steps)
        faults = self._faults(_listed(value, "faults"), steps)
        if raw is None or self.problems:
            return None
        learner = (str(self._known["learner"]), str(self._known["learner_project"]))
        return Session(
            raw.session, raw.title, raw.summary, exercises, learner, path, tuple(raw.services),
            foreign=foreign, digest=self.file.digest, faults=faults,
        )  # fmt: skip

    def complain(self, where: Where, problem: str, *, advice: str = "") -> None:
        """Remember what is wrong at a place, unless something inside it is known to be wrong already."""
        self._add(YamlComplaint(where, problem, advice))

    def _add(self, complaint: YamlComplaint) -> None:
        where = complaint.where
        if not any(known.where[: len(where)] == where and known.where != () for known in self.problems):
            self.problems.append(complaint)

    def model(self, model: type[M], value: Any, where: Where) -> M | None:
        """`value` as a model; None where it is none, which has been complained of."""
        good, complaints = examined(model, value, where)
        for complaint in complaints:
            self._add(complaint)
        return good

    @property
    def unused(self) -> list[str]:
        """Variables that nothing mentions."""
        return [name for name in self._known if name not in self._used]

    # --- variables -------------------------------------------------------------------------------------------------

    def _expand(self, value: Any, where: Where) -> Any:
        """`value` with every `{var: NAME}` replaced by the variable's value (whole values only: nothing is pasted)."""
        if isinstance(value, dict):
            if set(value) == {"var"}:
                name = value["var"]
                if isinstance(name, str) and name in self._known:
                    self._used.add(name)
                    return self._known[name]
                advice = closest_of(str(name), self._known, "those of vars: at the top")
                self.complain((*where, "var"), f"there is no variable '{name}'", advice=advice)
                return value
            return {key: self._expand(item, (*where, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._expand(item, (*where, index)) for index, item in enumerate(value)]
        return value

    # --- exercises and steps ---------------------------------------------------------------------------------------

    def _exercises(self, listed: list[Any]) -> tuple[Exercise, ...]:
        """All that are good."""
        exercises: list[Exercise] = []
        names: set[str] = set()
        for index, value in enumerate(listed):
            where = ("exercises", index)
            raw = self.model(ExerciseDeclared, value, where)
            name = str(value.get("id", "")) if isinstance(value, dict) else ""
            if name and name in names:
                self.complain((*where, "id"), f"there is an exercise '{name}' already")
            names.add(name)
            steps = [self._step(name, step, (*where, "steps", at)) for at, step in enumerate(_listed(value, "steps"))]
            if raw:
                exercises.append(Exercise(raw.id, raw.title, raw.say, tuple(step for step in steps if step)))
        return tuple(exercises)

    def _step(self, exercise: str, value: Any, where: Where) -> Step | None:
        raw = self.model(StepDeclared, value, where)
        if raw is None:
            if isinstance(value, dict) and isinstance(value.get("id"), str):
                self._kinds.setdefault(value["id"], "")  # so that what refers to it is not wrong, too
            return None
        if raw.id in self._kinds:
            advice = "ids are unique in a session"
            self.complain((*where, "id"), f"there is a step '{raw.id}' already", advice=advice)
        kind = KINDS.get(raw.kind)
        if kind is None:
            advice = closest_of(raw.kind, KINDS, "the kinds")
            self.complain((*where, "kind"), f"there is no kind '{raw.kind}'", advice=advice)
        params = self.model(kind.params, raw.params, (*where, "with")) if kind else None
        needs = self._needs(raw, params, where)
        self._kinds[raw.id] = raw.kind if kind and params else ""
        self.places[raw.id] = where
        if kind is None or params is None:
            return None
        return Step(raw.id, exercise, kind, params, raw.who, raw.say, raw.hint, needs, raw.until)

    def _check_endings(self, steps: dict[str, Step]) -> None:
        """Check what `until:` names: a later step."""
        order = list(self.places)
        for step in steps.values():
            later = order[order.index(step.id) + 1 :]
            if step.until and step.until not in later:
                advice = closest_of(step.until, later, "it is a later step that takes away what this one makes")
                self.complain(
                    (*self.places[step.id], "until"), f"no later step is called '{step.until}'", advice=advice
                )

    def _needs(self, raw: StepDeclared, params: Params | None, where: Where) -> frozenset[str]:
        for index, name in enumerate(raw.needs):
            self._earlier(name, (*where, "needs", index))
        needs = set(raw.needs)
        for key, ref, allowed in params.references() if params else ():
            place = (*where, "with", key)
            needs.add(ref.step)
            if not self._earlier(ref.step, place):
                continue
            kind = self._kinds[ref.step]
            if allowed and kind and kind not in allowed:
                self.complain(place, f"step '{ref.step}' is a {kind}, but a {' or '.join(allowed)} belongs here")
        return frozenset(needs)

    def _earlier(self, name: str, where: Where) -> bool:
        if name in self._kinds:
            return True
        advice = closest_of(name, self._kinds, "a step can only build on earlier ones")
        self.complain(where, f"no earlier step is called '{name}'", advice=advice)
        return False

    # --- faults ----------------------------------------------------------------------------------------------------

    def _faults(self, listed: list[Any], steps: Mapping[str, Step]) -> tuple[FaultCase, ...]:
        """All that are good; each has a step that grades its repair, a trail on every sort of cloud, and an id of its own."""
        cases: dict[str, FaultCase] = {}
        for index, value in enumerate(listed):
            where = ("faults", index)
            case = self.model(FaultCase, value, where)
            if case is None:
                continue
            if case.id in cases:
                self.complain((*where, "id"), f"there is a fault '{case.id}' already")
            if problem := _ungraded(case, steps):
                self.complain((*where, "step"), problem, advice=closest_of(case.step, steps, "the steps"))
            for sort in (case.on,) if case.on else SORTS:
                if not case.clues(sort):
                    self.complain((*where, "trail"), f"nothing of it is said to be true on {sort}", advice="add a clue")
            cases[case.id] = case
        return tuple(cases.values())


def _listed(value: Any, key: str) -> list[Any]:
    """The list that stands there, if one does."""
    listed = value.get(key) if isinstance(value, dict) else None
    return listed if isinstance(listed, list) else []


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
