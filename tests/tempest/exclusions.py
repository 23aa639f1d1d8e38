"""Tests that cannot pass on the embedded home, each with a fact about it as the reason."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, TypeAdapter
from ruamel.yaml import YAML

FILE = Path(__file__).parent / "excluded.yaml"


class Exclusion(BaseModel, extra="forbid", frozen=True):
    """`regex` is searched for in a test's id."""

    regex: str
    why: str


def load_exclusions() -> list[Exclusion]:
    """What excluded.yaml says."""
    return TypeAdapter(list[Exclusion]).validate_python(YAML(typ="safe").load(FILE.read_text(encoding="utf-8")) or [])
