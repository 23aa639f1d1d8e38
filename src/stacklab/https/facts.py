"""`facts.yaml`, read once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def facts() -> dict[str, Any]:
    """What the file says."""
    found: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "facts.yaml").read_text(encoding="utf-8"))
    return found


@cache
def template(name: str) -> Any:
    """A Jinja2 template of ours."""
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - Apache's files, not HTML, and every value in them is ours
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
