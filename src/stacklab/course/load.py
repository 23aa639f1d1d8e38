"""session.yaml → Session, or an error that names file, line, key and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from stacklab.cloud.access import LEARNER
from stacklab.course.search import FILE, all_sessions, find_session, sessions_in
from stacklab.course.session import CloudSort, Clue, Exercise, FaultCase, Session, Step
from stacklab.errors import UnknownName
from stacklab.kinds import KINDS
from stacklab.kinds.declaration import Id, Params
from stacklab.plain import plain
from stacklab.suggest import closest, closest_of
from stacklab.yamlfiles.complaints import VARIABLE_PATTERN, YamlComplaint, examined
from stacklab.yamlfiles.yamlfile import Where, YamlFile

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True), AfterValidator(plain)]
"""For learners to read: without anything that a terminal would obey."""
VariableName = Annotated[str, StringConstraints(pattern=VARIABLE_PATTERN, max_length=60)]
SORTS: tuple[CloudSort, ...] = get_args(CloudSort)
M = TypeVar("M", bound=BaseModel)
Variables = Mapping[str, str | int | bool]

CLOUDS = {"service_project": "service"}
"""The same for what another deployer may name otherwise: the project that the services' own accounts are in."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class StepDeclared(_Strict):
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


class ExerciseDeclared(_Strict):
    """Steps that belong together."""

    id: Id
    """Its name; unique in the session."""
    title: Text
    """What it is called in lists."""
    say: Text
    """Its introduction."""
    steps: list[Any] = Field(min_length=1)
    """The steps, in the order in which they are done."""


class ClueDeclared(_Strict):
    """One look on the way to a fault's cause. `$NAME` in its texts is one of the machine's names, like `$APACHE`."""

    look: Text
    """A command to look with."""
    shows: Text
    """What it shows."""
    means: Text
    """What that means."""
    on: CloudSort | None = None
    """The only sort of cloud that it is true of, unless it is true of all."""


class Symptoms(_Strict):
    """What the learner meets, by the sort of cloud."""

    devstack: Text
    embedded: Text


def _everywhere(value: Any) -> Any:
    """One text stands for the same on every sort of cloud."""
    return dict.fromkeys(SORTS, value) if isinstance(value, str) else value


class FaultDeclared(_Strict):
    """Something that `lab break` breaks on purpose, for the learner to find and repair."""

    id: Id
    """Its name; unique in the session."""
    breaks: Id | None = None
    """The home's fault that it is, where that has another name."""
    title: Text
    """What it is called in lists."""
    say: Annotated[Symptoms, BeforeValidator(_everywhere)]
    """The symptoms; one text, or one for each sort of cloud."""
    on: CloudSort | None = None
    """The only sort of cloud that can have it, unless all can."""
    trail: list[ClueDeclared] = Field(min_length=1)
    """The clues, from the symptoms to the cause."""
    step: Id
    """The step, of kind `repair`, that grades the repair."""


class SessionDeclared(_Strict):
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
    exercises: list[Any] = Field(min_length=1)
    """Its exercises, in order."""
    faults: list[Any] = []
    """What can be broken on purpose in it."""


def session_names(root: Path | None = None) -> list[str]:
    """Names of the sessions under `root` (if none is given: the course's, and those on the search path)."""
    if root is None:
        return sorted(all_sessions())
    return [session.name for session in sessions_in(root, foreign=False)]


def load_session(
    name: str, root: Path | None = None, variables: Variables | None = None, also: Iterable[str] = ()
) -> Session:
    """The session of this name, from `root` or else from the search path and `also`. `variables` replace the file's own.

    Raises UnknownName, SessionInvalid.
    """
    if root is None:
        place = find_session(name, also)
        return read_session(place.file, variables, foreign=place.foreign)
    if name not in session_names(root):
        raise UnknownName(f"there is no session '{name}'", advice=closest(name, session_names(root), "lab list"))
    return read_session(root / name / FILE, variables)


def read_session(path: Path, variables: Variables | None = None, *, foreign: bool = False) -> Session:
    """The session in one file. Raises SessionInvalid."""
    examined = examine(path, variables, foreign=foreign)
    if examined.session is None:
        raise examined.problems[0].error(examined.file)
    return examined.session


@dataclass(frozen=True)
class Examined:
    """A session file that was read to its end: the session if nothing is wrong, else everything that is.

    `places`: where each step stands, by id. `unused`: variables that nothing mentions.
    """

    file: YamlFile
    session: Session | None
    problems: list[YamlComplaint]
    places: dict[str, Where]
    unused: list[str]


def examine(path: Path, variables: Variables | None = None, *, foreign: bool = False) -> Examined:
    """Read a session file as far as it can be read. Raises SessionInvalid for what is no YAML, or no mapping."""
    file = YamlFile(path)
    if not isinstance(file.value, dict):
        raise file.error((), "a session file is a mapping that begins with 'session: NAME'")
    builder = _Builder(file, variables or {})
    value = builder.expanded()
    raw = builder.model(SessionDeclared, value, ())
    if isinstance(name := value.get("session"), str) and name != path.parent.name:
        builder.complain(
            ("session",), f"is '{name}', but the folder is '{path.parent.name}'", advice="give both one name"
        )
    listed = value.get("exercises")
    exercises = builder.exercises(listed if isinstance(listed, list) else [])
    steps = {step.id: step for exercise in exercises for step in exercise.steps}
    builder.endings(steps)
    broken = value.get("faults")
    faults = builder.faults(broken if isinstance(broken, list) else [], steps)
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
            digest=file.digest,
            faults=faults,
        )
    return Examined(file, session, builder.problems, builder.places, builder.unused())


class _Builder:
    """Raw values → Session's parts, with everything checked that spans more than one step. What is wrong is collected."""

    def __init__(self, file: YamlFile, variables: Variables) -> None:
        self.file = file
        self.problems: list[YamlComplaint] = []
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
        exercises = [self._exercise(value, ("exercises", index)) for index, value in enumerate(listed)]
        return tuple(exercise for exercise in exercises if exercise)

    def _exercise(self, value: Any, where: Where) -> Exercise | None:
        raw = self.model(ExerciseDeclared, value, where)
        name = value.get("id") if isinstance(value, dict) else None
        if isinstance(name, str):
            if name in self.names:
                self.complain((*where, "id"), f"there is an exercise '{name}' already")
            self.names.add(name)
        listed = value.get("steps") if isinstance(value, dict) else None
        steps = listed if isinstance(listed, list) else []
        loaded = [self._step(str(name), step, (*where, "steps", at)) for at, step in enumerate(steps)]
        return Exercise(raw.id, raw.title, raw.say, tuple(step for step in loaded if step)) if raw else None

    def _step(self, exercise: str, value: Any, where: Where) -> Step | None:
        raw = self.model(StepDeclared, value, where)
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

    def _needs(self, raw: StepDeclared, params: Params | None, where: Where) -> frozenset[str]:
        for index, name in enumerate(raw.needs):
            self._earlier(name, (*where, "needs", index))
        needs = set(raw.needs)
        for key, ref, allowed in params.references() if params else ():
            place = (*where, "with", key)
            needs.add(ref.step)
            if not self._earlier(ref.step, place):
                continue
            kind = self.seen[ref.step]
            if allowed and kind and kind not in allowed:
                self.complain(place, f"step '{ref.step}' is a {kind}, but a {' or '.join(allowed)} belongs here")
        return frozenset(needs)

    def _earlier(self, name: str, where: Where) -> bool:
        if name in self.seen:
            return True
        advice = closest_of(name, self.seen, "a step can only build on earlier ones")
        self.complain(where, f"no earlier step is called '{name}'", advice=advice)
        return False

    # --- faults ----------------------------------------------------------------------------------------------------

    def faults(self, listed: list[Any], steps: Mapping[str, Step]) -> tuple[FaultCase, ...]:
        """All that are good; each has a step that grades its repair, a trail on every sort of cloud, and an id of its own."""
        cases: dict[str, FaultCase] = {}
        for index, value in enumerate(listed):
            where = ("faults", index)
            fault = self.model(FaultDeclared, value, where)
            if fault is None:
                continue
            if fault.id in cases:
                self.complain((*where, "id"), f"there is a fault '{fault.id}' already")
            case = _case(fault)
            if problem := _ungraded(case, steps):
                self.complain((*where, "step"), problem, advice=closest_of(fault.step, steps, "the steps"))
            for sort in (fault.on,) if fault.on else SORTS:
                if not case.clues(sort):
                    self.complain((*where, "trail"), f"nothing of it is said to be true on {sort}", advice="add a clue")
            cases[fault.id] = case
        return tuple(cases.values())


def _case(fault: FaultDeclared) -> FaultCase:
    trail = tuple(Clue(clue.look, clue.shows, clue.means, (clue.on,) if clue.on else SORTS) for clue in fault.trail)
    symptoms: dict[CloudSort, str] = {"devstack": fault.say.devstack, "embedded": fault.say.embedded}
    return FaultCase(fault.id, fault.breaks or fault.id, fault.title, symptoms, trail, fault.step)


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
