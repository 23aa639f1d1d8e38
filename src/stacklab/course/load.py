"""session.yaml → Session, or an error that names file, line, key and what was probably meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from stacklab import places
from stacklab.course.explained import validated
from stacklab.course.session import Exercise, Session, Step
from stacklab.course.yamlfile import Where, YamlFile
from stacklab.errors import UnknownName
from stacklab.kinds import KINDS
from stacklab.kinds.declaration import Id, Params
from stacklab.suggest import closest, closest_of

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Variables = Mapping[str, str | int | bool]

LEARNER = {"learner": "learner", "learner_project": "lab-project"}
"""Variables that every session has: the user and project that `as: learner` means. A home's clouds.yaml logs in as them."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Step(_Strict):
    id: Id
    kind: str
    who: Literal["admin", "learner"] = Field(alias="as")
    say: Text
    hint: Text
    needs: list[Id] = []
    params: dict[str, Any] = Field(alias="with", default={})


class _Exercise(_Strict):
    id: Id
    title: Text
    say: Text
    steps: list[_Step] = Field(min_length=1)


class _Session(_Strict):
    session: Id
    title: Text
    summary: Text
    vars: dict[Id, str | int | bool] = {}
    services: list[Id] = []
    exercises: list[_Exercise] = Field(min_length=1)


def session_names(root: Path | None = None) -> list[str]:
    """Names of the sessions under `root` (the course's own `labs/` if none is given)."""
    base = root or places.course_data() / "labs"
    return sorted(path.parent.name for path in base.glob("*/session.yaml"))


def load_session(name: str, root: Path | None = None, variables: Variables | None = None) -> Session:
    """The session of this name. `variables` replace the file's own. Raises UnknownName, SessionInvalid."""
    base = root or places.course_data() / "labs"
    if name not in session_names(root):
        raise UnknownName(f"there is no session '{name}'", advice=closest(name, session_names(root), "lab list"))
    return read_session(base / name / "session.yaml", variables)


def read_session(path: Path, variables: Variables | None = None) -> Session:
    """The session in one file. Raises SessionInvalid."""
    file = YamlFile(path)
    if not isinstance(file.value, dict):
        raise file.error((), "a session file is a mapping that begins with 'session: NAME'")
    known: dict[str, Any] = dict(LEARNER)
    declared = file.value.get("vars", {})
    if isinstance(declared, dict):
        known |= declared
    for key in variables or {}:
        if key not in known:
            raise file.error(
                ("vars",), f"there is no variable '{key}'", advice=closest_of(key, known, f"the vars of {path}")
            )
    known |= variables or {}
    value = {key: item if key == "vars" else _expand(file, item, (key,), known) for key, item in file.value.items()}
    raw = validated(_Session, value, file, ())
    if raw.session != path.parent.name:
        raise file.error(
            ("session",), f"is '{raw.session}', but the folder is '{path.parent.name}'", advice="give both one name"
        )
    exercises = _Builder(file, value).exercises(raw)
    learner = (str(known["learner"]), str(known["learner_project"]))
    return Session(raw.session, raw.title, raw.summary, exercises, learner, path, tuple(raw.services))


def _expand(file: YamlFile, value: Any, where: Where, known: Mapping[str, Any]) -> Any:
    """`value` with every `{var: NAME}` replaced by the variable's value (whole values only: nothing is pasted)."""
    if isinstance(value, dict):
        if set(value) == {"var"}:
            name = value["var"]
            if not isinstance(name, str) or name not in known:
                raise file.error(
                    (*where, "var"),
                    f"there is no variable '{name}'",
                    advice=closest_of(str(name), known, "those of vars: at the top"),
                )
            return known[name]
        return {key: _expand(file, item, (*where, key), known) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(file, item, (*where, index), known) for index, item in enumerate(value)]
    return value


class _Builder:
    """Raw models → Session's parts, with everything checked that spans more than one step."""

    def __init__(self, file: YamlFile, value: Any) -> None:
        self.file = file
        self.value = value
        self.seen: dict[str, str] = {}  # step id → kind
        self.names: set[str] = set()

    def exercises(self, raw: _Session) -> tuple[Exercise, ...]:
        """All exercises. Raises SessionInvalid."""
        found = []
        for index, exercise in enumerate(raw.exercises):
            where = ("exercises", index)
            if exercise.id in self.names:
                raise self.file.error((*where, "id"), f"there is an exercise '{exercise.id}' already")
            self.names.add(exercise.id)
            steps = tuple(self._step(exercise, step, (*where, "steps", at)) for at, step in enumerate(exercise.steps))
            found.append(Exercise(exercise.id, exercise.title, exercise.say, steps))
        return tuple(found)

    def _step(self, exercise: _Exercise, raw: _Step, where: Where) -> Step:
        if raw.id in self.seen:
            raise self.file.error(
                (*where, "id"), f"there is a step '{raw.id}' already", advice="ids are unique in a session"
            )
        kind = KINDS.get(raw.kind)
        if kind is None:
            raise self.file.error(
                (*where, "kind"), f"there is no kind '{raw.kind}'", advice=closest_of(raw.kind, KINDS, "the kinds")
            )
        params = validated(kind.params, raw.params, self.file, (*where, "with"))
        needs = self._needs(raw, params, where)
        self.seen[raw.id] = raw.kind
        return Step(raw.id, exercise.id, kind, params, raw.who, raw.say, raw.hint, needs)

    def _needs(self, raw: _Step, params: Params, where: Where) -> frozenset[str]:
        for index, name in enumerate(raw.needs):
            self._earlier(name, (*where, "needs", index))
        found = set(raw.needs)
        for key, ref, allowed in params.references():
            place = (*where, "with", key)
            self._earlier(ref.step, place)
            if allowed and self.seen[ref.step] not in allowed:
                kind = self.seen[ref.step]
                raise self.file.error(
                    place, f"step '{ref.step}' is a {kind}, but a {' or '.join(allowed)} belongs here"
                )
            found.add(ref.step)
        return frozenset(found)

    def _earlier(self, name: str, where: Where) -> None:
        if name not in self.seen:
            advice = closest_of(name, self.seen, "a step can only build on earlier ones")
            raise self.file.error(where, f"no earlier step is called '{name}'", advice=advice)
