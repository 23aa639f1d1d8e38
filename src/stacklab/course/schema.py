"""The JSON Schema of session files, for editors and other programs, and the page on kinds of steps: both from the models."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel

from stacklab.cloud.access import LEARNER
from stacklab.course.load import CLOUDS, SessionDeclared
from stacklab.kinds import KINDS
from stacklab.kinds.kind import Kind

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def session_schema() -> Schema:
    """The schema of `session.yaml`: every key, and for every kind of step what may stand in its `with`."""
    definitions: Schema = {"Variable": _variable()}
    session = _of(SessionDeclared, definitions)
    exercise = _define_items(session, "exercises", "Exercise", definitions)
    _define_items(exercise, "steps", "Step", definitions)
    _define_items(session, "faults", "Fault", definitions)
    _add_kinds(definitions)
    variables = session["properties"].pop("vars")
    whole = {**session, "$defs": definitions}
    _allow_variables(whole)
    whole["properties"]["vars"] = variables
    return {"$schema": DIALECT, "title": "A session of the course", **whole}


def _variable() -> Schema:
    given = ", ".join(f"`{name}`" for name in (*LEARNER, *CLOUDS))
    return {
        "type": "object",
        "description": f"The value of a variable: one of the session's `vars`, or {given}.",
        "properties": {"var": {"type": "string"}},
        "required": ["var"],
        "additionalProperties": False,
    }


def _of(model: type[BaseModel], definitions: Schema) -> Schema:
    """A model's schema; what it refers to goes to the definitions."""
    schema = model.model_json_schema(ref_template="#/$defs/{model}")
    definitions |= schema.pop("$defs", {})
    schema.pop("title", None)
    return schema


def _define_items(schema: Schema, key: str, name: str, definitions: Schema) -> Schema:
    """What that list holds becomes a definition."""
    listed = schema["properties"][key]
    definition: Schema = listed["items"]
    definitions[name] = definition
    definition.pop("title")
    listed["items"] = {"$ref": f"#/$defs/{name}"}
    return definition


def _add_kinds(definitions: Schema) -> None:
    """Each kind's parameters, where a step is of that kind."""
    step = definitions["Step"]
    named, chosen = [], []
    for name, kind in sorted(KINDS.items()):
        params = _of(kind.params, definitions)
        params["description"] = _description(kind)
        definitions[f"with-{name}"] = params
        named.append({"const": name, "description": _description(kind)})
        then: Schema = {"properties": {"with": {"$ref": f"#/$defs/with-{name}"}}}
        if params.get("required"):
            then["required"] = ["with"]
        chosen.append({"if": {"properties": {"kind": {"const": name}}, "required": ["kind"]}, "then": then})
    step["properties"]["kind"] = {"description": step["properties"]["kind"]["description"], "anyOf": named}
    step["properties"]["with"] = {"description": step["properties"]["with"]["description"]}
    step["allOf"] = chosen


def _allow_variables(schema: Any) -> None:
    """Wherever a value may stand, `{var: NAME}` may stand for it."""
    if isinstance(schema, list):
        for part in schema:
            _allow_variables(part)
    if not isinstance(schema, dict):
        return
    for key, part in schema.items():
        if key == "properties":
            for name, value in part.items():
                _allow_variables(value)
                if name not in ("kind", "with", "var", "step", "secret", "asset") and "const" not in value:
                    part[name] = _or_variable(value)
        elif key in ("items", "additionalProperties") and isinstance(part, dict):
            _allow_variables(part)
            schema[key] = _or_variable(part)
        elif key not in ("default", "const", "enum", "if"):
            _allow_variables(part)


def _or_variable(schema: Schema) -> Schema:
    outside: Schema = {key: schema.pop(key) for key in ("description", "default", "title") if key in schema}
    outside.pop("title", None)
    return {**outside, "anyOf": [schema, {"$ref": "#/$defs/Variable"}]}


# --- the page on kinds ---------------------------------------------------------------------------------------------


def kinds_page() -> str:
    """`docs/kinds.md`: every kind of step, and every key of its `with`."""
    definitions: Schema = {}
    lines = [
        "# Kinds of steps",
        "",
        "What may stand in a step's `with:`, by its `kind:`. Made by `lab schema --markdown`; an editor that knows",
        "`session.schema.json` completes and checks the same.",
        "",
        "A `NAME` may also be a reference, `{step: ID}`, where the text says so; `{var: NAME}` stands for any value.",
    ]
    for name, kind in sorted(KINDS.items()):
        schema = _of(kind.params, definitions)
        lines += ["", f"## {name}", "", _description(kind)]
        explained = inspect.cleandoc(kind.params.__doc__ or "") if kind.params.__doc__ else ""
        if explained:
            lines += ["", explained]
        if schema.get("properties"):
            lines += ["", "| key | value | |", "|---|---|---|"]
        for key, value in schema.get("properties", {}).items():
            needed = "required" if key in schema.get("required", ()) else _default(value)
            about = " ".join(value.get("description", "").split())
            lines.append(f"| `{key}` | {_in_words(value, definitions)} | {'. '.join(filter(None, [needed, about]))} |")
    return "\n".join(lines) + "\n"


def _description(kind: Kind[Any]) -> str:
    return " ".join(inspect.cleandoc(type(kind).__doc__ or "").split())


def _default(value: Schema) -> str:
    default = value.get("default")
    return (
        f"default `{str(default).lower() if isinstance(default, bool) else default}`"
        if default not in (None, [], {})
        else ""
    )


def _in_words(value: Schema, definitions: Schema) -> str:
    """What sort of value it is."""
    if "$ref" in value:
        target = definitions[value["$ref"].rpartition("/")[2]]
        keys = target.get("properties", {})
        return f"`{{{', '.join(f'{key}: …' for key in keys)}}}`" if keys else _in_words(target, definitions)
    if "anyOf" in value:
        parts = [_in_words(part, definitions) for part in value["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts))
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return " or ".join(f"`{choice}`" for choice in value["enum"])
    sort = value.get("type", "anything")
    if sort == "array":
        return f"list of {_in_words(value.get('items', {}), definitions)}"
    names = {"string": "text", "integer": "whole number", "boolean": "`true` or `false`", "object": "mapping"}
    return names.get(str(sort), str(sort))
