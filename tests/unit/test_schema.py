"""The JSON Schema of session files agrees with what reads them, and what is made from it is fresh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from stacklab.cli.main import run
from stacklab.course.load import session_names
from stacklab.course.schema import session_schema
from stacklab.course.search import own_labs
from stacklab.kinds import KINDS

ROOT = Path(__file__).parents[2]
VALIDATOR = Draft202012Validator(session_schema())


def session(name: str = "session4") -> Any:
    """A session of the course as plain data."""
    return YAML(typ="safe").load((own_labs() / name / "session.yaml").read_text(encoding="utf-8"))


def test_it_is_a_schema_and_has_every_kind_and_key_with_a_description() -> None:
    schema = session_schema()
    Draft202012Validator.check_schema(schema)
    definitions = schema["$defs"]
    for name in KINDS:
        params = definitions[f"with-{name}"]
        assert params["description"], name
        assert all(value.get("description") for value in params.get("properties", {}).values()), name
    for name in ("Exercise", "Step", "Fault", "Clue"):
        assert all(value.get("description") for value in definitions[name]["properties"].values()), name
    assert all(value.get("description") for value in schema["properties"].values())


@pytest.mark.parametrize("name", session_names())
def test_every_session_of_the_course_is_valid_and_tells_editors_where_the_schema_is(name: str) -> None:
    errors = [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in VALIDATOR.iter_errors(session(name))
    ]
    assert errors == []
    file = own_labs() / name / "session.yaml"
    first = file.read_text(encoding="utf-8").splitlines()[0]
    begin, _, path = first.partition("$schema=")
    assert begin == "# yaml-language-server: "
    assert (ROOT / "labs" / name / path).resolve() == ROOT / "docs/session.schema.json"


@pytest.mark.parametrize("place", ["session", "exercise", "step", "with", "kind", "as", "hint"])
def test_what_lab_refuses_is_refused(place: str) -> None:
    value = session()
    step = next(step for exercise in value["exercises"] for step in exercise["steps"] if step["kind"] == "subnet")
    if place == "kind":
        step["kind"] = "netwrok"
    elif place == "as":
        step["as"] = "lerner"
    elif place == "hint":
        del step["hint"]
    else:
        target = {"session": value, "exercise": value["exercises"][0], "step": step, "with": step["with"]}[place]
        target["surprise"] = 1
    assert not VALIDATOR.is_valid(value)


@pytest.mark.parametrize(
    ("words", "file"), [(["schema"], "docs/session.schema.json"), (["schema", "--markdown"], "docs/kinds.md")]
)
def test_what_is_made_from_it_is_fresh(words: list[str], file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 0
    made = capsys.readouterr().out
    assert (ROOT / file).read_text(encoding="utf-8") == made, f"lab {' '.join(words)} >{file}"
    if file.endswith(".json"):
        json.loads(made)
