"""pydantic's complaints about a document, as an error that names file, line, key and what was probably meant."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from stacklab.course.yamlfile import Where
from stacklab.errors import LabError
from stacklab.suggest import closest

M = TypeVar("M", bound=BaseModel)


class Document(Protocol):
    """Whatever knows where its values stand: one file, or several that were laid over one another."""

    def error(self, where: Where, problem: str, *, advice: str = "") -> LabError:
        """The error to raise for something wrong at `where`."""


def validated(model: type[M], value: Any, document: Document, where: Where) -> M:
    """`value`, which stands at `where` in the document, as a model. Raises what `document.error` makes."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _explained(error, model, value, document, where) from error


def _explained(
    error: ValidationError, model: type[BaseModel], value: Any, document: Document, where: Where
) -> LabError:
    """The first (deepest, where a union was tried) of pydantic's complaints, in an instructor's words."""
    first = max(error.errors(), key=lambda one: (one["type"] == "extra_forbidden", -len(one["loc"])))
    loc = _real(first["loc"], value)
    full = (*where, *loc)
    if first["type"] == "extra_forbidden":
        names = _keys(model, loc[:-1])
        return document.error(
            full, "there is no such key", advice=closest(str(loc[-1]), names, f"known here: {', '.join(names)};")
        )
    if first["type"] == "missing":
        return document.error(full[:-1], f"'{first['loc'][-1]}' is missing", advice=f"add '{first['loc'][-1]}:' there")
    problem = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict | list | BaseModel) else f" (it is {first['input']!r})"
    return document.error(full, problem[0].lower() + problem[1:] + given)


def _real(loc: tuple[int | str, ...], value: Any) -> Where:
    """`loc` without the names of union members that pydantic puts in between; an unknown last key stays."""
    found: list[str | int] = []
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            if last and isinstance(value, dict):
                found.append(part)
            continue
        found.append(part)
    return tuple(found)


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
    inner = [_bare(one) for one in get_args(annotation)]
    return next((one for one in inner if hasattr(one, "model_fields") or get_origin(one) in (dict, list)), None)


def _inside(annotation: Any, part: str | int) -> Any:
    """What a model's, a mapping's or a list's annotation says of the thing at `part`."""
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    if get_origin(annotation) is list:
        return get_args(annotation)[0]
    fields = {field.alias or name: field for name, field in getattr(annotation, "model_fields", {}).items()}
    return fields[part].annotation if part in fields else None
