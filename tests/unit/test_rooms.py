"""The plan of the house: a room imports rooms beside and below it, never one above."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import stacklab

SOURCE = Path(stacklab.__file__).parent
LEVELS = (
    {"ground", "yamlfiles"},
    {"cloud", "machines"},
    {"conditions", "deploy", "https", "prefetch", "images"},
    {"course", "kinds", "homes", "doctor"},
    {"replay"},
    {"cli", "console"},
)
"""From the ground up. A module at the top of the package is ground, but for `console`, which shows things."""


def room(module: str) -> str:
    """The room of `stacklab.room.module`."""
    first = module.split(".")[1] if "." in module else "ground"
    return first if (SOURCE / first).is_dir() or first == "console" else "ground"


def imports() -> Iterator[tuple[str, str, str]]:
    """(importing room, imported room, where), types only needed by mypy included. Not what runs inside the cloud."""
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if "inside" in parts:
            continue
        here = room(".".join(("stacklab", *parts)))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for module in (f"{node.module}.{alias.name}" for alias in node.names):
                    if module.startswith("stacklab.") and room(module) != here:
                        yield here, room(module), f"{'/'.join(parts)}.py:{node.lineno} imports {module}"


def test_no_room_imports_one_above_it() -> None:
    level = {name: number for number, rooms in enumerate(LEVELS) for name in rooms}
    assert [where for here, there, where in imports() if level[there] > level[here]] == []
