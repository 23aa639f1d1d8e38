"""What the lines of a rendered file are for: explanations are data, found by section and by the name of a setting."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from stacklab import places

_NAME = re.compile(r"^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*\+?=")


@dataclass(frozen=True)
class ExplainedLine:
    """A line of the file and what it is for; `why` is empty for a comment or an empty line, which explain themselves."""

    number: int
    line: str
    why: str


class Explanations:
    """A file of explanations: `sections` by head, `calls` by "FUNCTION" or "FUNCTION ARGUMENT", `settings` by name.

    `values`: what a setting may be, a list of words or the name of a form.

    A name that ends in `*` stands for all that begin so, one that begins with it for all that end so. The longest one that
    fits counts.
    """

    def __init__(self, path: Path) -> None:
        document = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        self._sections: dict[str, str] = document.get("sections", {})
        self._calls: dict[str, str] = document.get("calls", {})
        self._settings: dict[str, str] = document.get("settings", {})
        self.values: dict[str, list[str] | str] = document.get("values", {})

    @property
    def names(self) -> list[str]:
        """Every setting that is explained by its whole name."""
        return [name for name in self._settings if "*" not in name]

    def tell(self, text: str) -> list[ExplainedLine]:
        """Every line with what it is for. Raises KeyError, with the line, for one that nothing explains."""
        return [ExplainedLine(number, line, self._why(line)) for number, line in enumerate(text.splitlines(), 1)]

    def _why(self, line: str) -> str:
        if not line.strip() or line.startswith("#"):
            return ""
        why = self._of_section(line) or self._of_setting(line) or self._of_call(line)
        if why is None:
            raise KeyError(line)
        return " ".join(why.split())

    def _of_section(self, line: str) -> str | None:
        return self._sections.get(line.strip()) if line.startswith("[") else None

    def _of_setting(self, line: str) -> str | None:
        name = _NAME.match(line)
        if name is None:
            return None
        fits = [key for key in self._settings if _fits(key, name[1])]
        return self._settings[max(fits, key=lambda key: len(key.strip("*")))] if fits else None

    def _of_call(self, line: str) -> str | None:
        words = line.split()
        for key in (" ".join(words[:2]), words[0]):
            if key in self._calls:
                return self._calls[key]
        return None


def _fits(key: str, name: str) -> bool:
    if key.endswith("*"):
        return name.startswith(key[:-1])
    return name.endswith(key[1:]) if key.startswith("*") else key == name


def of_local_conf() -> Explanations:
    """Those of DevStack's local.conf."""
    return Explanations(places.course_data() / "local.conf.d" / "explained.yaml")
