"""One summary of several runs of pytest, from the JUnit files that they wrote, in the words of pytest's own."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

WIDTH = 80
OUTCOMES = {"failure": ("FAILED", "failed"), "error": ("ERROR", "errors"), "skipped": ("SKIPPED", "skipped")}


def summary(reports: Sequence[Path], seconds: float) -> str:
    """Each failure with its trace, then a line each, then the counts; a test that fails and whose end fails counts as both."""
    counts: Counter[str] = Counter()
    traces: list[str] = []
    lines: list[str] = []
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest's own file, of this very run
            badly = [child for child in case if child.tag in OUTCOMES]
            counts.update([OUTCOMES[child.tag][1] for child in badly] or ["passed"])
            for child in badly:
                message = " ".join(child.get("message", "").split())
                lines.append(f"{OUTCOMES[child.tag][0]} {node(case)} - {message[:300]}")
                if child.tag != "skipped":
                    traces += [f" {node(case)} ".center(WIDTH, "_"), child.text or ""]
    words = [f"{counts[word]} {word}" for word in ("failed", "passed", "skipped", "errors") if counts[word]]
    span = f"{seconds:.2f}s ({datetime.timedelta(seconds=int(seconds))})"
    ending = f" {', '.join(words) or 'no tests ran'} in {span} ".center(WIDTH, "=")
    return "\n".join(
        [
            *([" FAILURES ".center(WIDTH, "="), *traces] if traces else []),
            *([" short test summary info ".center(WIDTH, "="), *lines] if lines else []),
            ending,
        ]
    )


def node(case: ElementTree.Element) -> str:
    """The test as pytest wants it named: `tests/unit/test_x.py::test_y`."""
    where = case.get("classname", "")
    return f"{where.replace('.', '/')}.py::{case.get('name')}" if where else str(case.get("name"))
