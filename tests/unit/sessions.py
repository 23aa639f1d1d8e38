"""Session files for tests: a good one, and writing one where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

TABLES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("session_files.yaml").read_text(encoding="utf-8"))
GOOD: str = TABLES["good"]


def written(labs: Path, text: str | bytes, name: str = "demo") -> Path:
    """The file of a session with this text, in a folder of its own below `labs`."""
    path = labs / name / "session.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines_with(text: str, part: str) -> list[int]:
    """The lines (from 1) on which a part of the text stands, or begins."""
    return [number for number, line in enumerate(text.splitlines(), 1) if part.splitlines()[0] in line]
