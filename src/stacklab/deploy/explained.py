"""What is known of the lines of a file for a deployment, as data: what each is for, and what has to hold for a setting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from stacklab import places
from stacklab.deploy.grading import Rule, best_fit
from stacklab.deploy.profile.model import Part

_NAME = re.compile(r"^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*\+?=")


class Explanations(Part):
    """A file of explanations: `sections` by head, `calls` by "FUNCTION" or "FUNCTION ARGUMENT", `settings` by name.

    `rules`: what has to hold for a setting. `others`: settings that there are beside, none of which is to be taken for a slip
    of the pen. Names as `grading.best_fit` has them.
    """

    sections: dict[str, str] = {}
    calls: dict[str, str] = {}
    settings: dict[str, str] = {}
    rules: dict[str, Rule] = {}
    others: list[str] = []

    @property
    def names(self) -> set[str]:
        """Every setting that is known by its whole name."""
        return {name for name in (*self.settings, *self.rules, *self.others) if "*" not in name}

    def tell(self, text: str) -> Iterator[tuple[str, str]]:
        """Every line and what it is for, "" for comments and empty ones. Raises KeyError with a line that nothing explains."""
        for line in text.splitlines():
            yield line, self._why(line) if line.strip() and not line.startswith("#") else ""

    def _why(self, line: str) -> str:
        words = line.split()
        calls = [key for key in (" ".join(words[:2]), words[0]) if key in self.calls]
        if line.strip() in self.sections:
            why = self.sections[line.strip()]
        elif (name := _NAME.match(line)) and (key := best_fit(name[1], self.settings)):
            why = self.settings[key]
        elif calls:
            why = self.calls[calls[0]]
        else:
            raise KeyError(line)
        return " ".join(why.split())


def read_explanations(path: Path) -> Explanations:
    """Those in a file (ours, shipped with the package)."""
    return Explanations.model_validate(YAML(typ="safe").load(path.read_text(encoding="utf-8")))


def of_local_conf() -> Explanations:
    """Those of DevStack's local.conf."""
    return read_explanations(places.course_data() / "local.conf.d" / "explained.yaml")


def of_answer_file() -> Explanations:
    """Those of PackStack's answer file."""
    return read_explanations(Path(__file__).parent / "packstack" / "explained.yaml")
