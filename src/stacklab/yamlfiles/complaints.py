"""pydantic's complaints about a document, as an error that names file, line, key and what was probably meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from stacklab.errors import LabError
from stacklab.suggest import closest_of
from stacklab.yamlfiles.yamlfile import Where

ID_PATTERN = r"^[a-z][a-z0-9-]*$"
VARIABLE_PATTERN = r"^[a-z][a-z0-9_-]*$"

M = TypeVar("M", bound=BaseModel)


WANTED = {
    "dict_type": "a mapping", "model_type": "a mapping", "model_attributes_type": "a mapping", "list_type": "a list",
    "string_type": "text", "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "bool_type": "true or false", "bool_parsing": "true or false",
}  # fmt: skip
"""pydantic's types of errors, and what it wants there in the words of people who write YAML."""
MAPPING = "indent its keys below it, each as KEY: VALUE"
PATTERNS = {
    ID_PATTERN: "lower-case letters, digits and '-', beginning with a letter",
    VARIABLE_PATTERN: "lower-case letters, digits, '-' and '_', beginning with a letter",
}
"""What texts of a pattern look like, in words; of others it is only said that they do not fit."""
LIST = "write it as [a, b], or below it with a line '- a' for each"


class Document(Protocol):
    """Whatever knows where its values stand: one file, or several that were laid over one another."""

    def error(self, where: Where, problem: str, *, advice: str = "") -> LabError:
        """The error to raise for something wrong at `where`."""


@dataclass(frozen=True)
class YamlComplaint:
    """What is wrong with a document: at which key, in words, and what to do about it."""

    where: Where
    problem: str
    advice: str = ""
    missing: bool = False

    @property
    def place(self) -> Where:
        """What to point at: what is missing stands nowhere, so that is what it is missing from."""
        return self.where[:-1] if self.missing else self.where

    def error(self, document: Document) -> LabError:
        """The error to raise for it."""
        return document.error(self.place, self.problem, advice=self.advice)


def validated(model: type[M], value: Any, document: Document, where: Where) -> M:
    """`value`, which stands at `where` in the document, as a model. Raises what `document.error` makes."""
    good, complaints = examined(model, value, where)
    if good is None:
        raise complaints[0].error(document)
    return good


def examined(model: type[M], value: Any, where: Where) -> tuple[M | None, list[YamlComplaint]]:
    """`value` as such a model, or None and everything that is wrong with it."""
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        groups: dict[Where, list[Any]] = {}
        for detail in error.errors():
            groups.setdefault(_settled(detail, value), []).append(detail)
        ranked = sorted(groups.values(), key=lambda group: max(map(_rank, group)), reverse=True)
        complaints = [_explained(group, model, value, where) for group in ranked]
        advised = [complaint.advice for complaint in complaints]
        # A misspelt key is also a missing one: that is one mistake.
        return None, [
            complaint
            for complaint in complaints
            if not (complaint.missing and any(f"'{complaint.where[-1]}'" in advice for advice in advised))
        ]


def _settled(error: Any, value: Any) -> Where:
    """What a complaint is about: where a union was tried, that is the place of the union, whatever its members say."""
    loc = tuple(error["loc"])
    real = _real(loc, value)
    inside: Any = value
    for index, part in enumerate(loc):
        try:
            inside = inside[part]
        except (KeyError, IndexError, TypeError):
            return real if index == len(loc) - 1 else loc[:index]
    return real


def _rank(error: Any) -> tuple[bool, int]:
    return error["type"] == "extra_forbidden", -len(error["loc"])


def _explained(errors: list[Any], model: type[BaseModel], value: Any, where: Where) -> YamlComplaint:
    """The first (deepest, where a union was tried) of pydantic's complaints, in an instructor's words."""
    first = max(errors, key=_rank)
    loc = _real(first["loc"], value)
    full = (*where, *loc)
    if first["type"] == "extra_forbidden":
        names = _keys(model, loc[:-1])
        advice = closest_of(str(loc[-1]), names, "known here")
        return YamlComplaint(full, "there is no such key", advice)
    if first["type"] == "missing":
        problem = f"'{first['loc'][-1]}' is missing"
        return YamlComplaint(full, problem, f"add '{first['loc'][-1]}:' there", missing=True)
    if first["type"] == "too_short":
        least = first["ctx"]["min_length"]
        return YamlComplaint(full, f"has to hold at least {least}", "add what belongs there, or remove it whole")
    given = f" (it is {_shown(first['input'])})"
    if first["type"] == "string_pattern_mismatch":
        form = PATTERNS.get(first["ctx"]["pattern"])
        problem = f"has to be {form}" if form else "holds characters that cannot stand there"
        return YamlComplaint(full, problem + given)
    # Where a union was tried, each of its members has complained of the same place.
    same = [error["type"] for error in errors if _real(error["loc"], value) == loc]
    wanted = list(dict.fromkeys(WANTED[kind] for kind in same if kind in WANTED))
    if wanted and len(wanted) == len(set(same)):
        advice = MAPPING if wanted[0] == WANTED["dict_type"] else LIST if wanted[0] == WANTED["list_type"] else ""
        return YamlComplaint(full, f"has to be {' or '.join(wanted)}{given}", advice)
    problem = first["msg"].removeprefix("Value error, ").replace("Input should be", "has to be", 1)
    return YamlComplaint(full, problem[0].lower() + problem[1:] + given)


def _shown(value: Any) -> str:
    if isinstance(value, dict | BaseModel):
        return "a mapping"
    return "a list" if isinstance(value, list) else "empty" if value is None else repr(value)


def _real(loc: tuple[int | str, ...], value: Any) -> Where:
    """`loc` without the names of union members that pydantic puts in between; an unknown last key stays."""
    way: list[str | int] = []
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            if last and isinstance(value, dict):
                way.append(part)
            continue
        way.append(part)
    return tuple(way)


def _keys(model: type[BaseModel], loc: Where) -> list[str]:
    """The keys that may stand at `loc` of a model."""
    annotation: Any = model
    for part in loc:
        annotation = _inside(_bare(annotation), part)
    fields = getattr(_bare(annotation), "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def _bare(annotation: Any) -> Any:
    """An annotation without `Annotated`, `None` and whatever else it is a union with, if a model or a container is in it."""
    if get_origin(annotation) in (None, dict, list):
        return annotation
    inner = [_bare(arg) for arg in get_args(annotation)]
    return next(
        (
            annotation
            for annotation in inner
            if hasattr(annotation, "model_fields") or get_origin(annotation) in (dict, list)
        ),
        None,
    )


def _inside(annotation: Any, part: str | int) -> Any:
    """What a model's, a mapping's or a list's annotation says of the thing at `part`."""
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    if get_origin(annotation) is list:
        return get_args(annotation)[0]
    fields = {field.alias or name: field for name, field in getattr(annotation, "model_fields", {}).items()}
    return fields[part].annotation if part in fields else None
