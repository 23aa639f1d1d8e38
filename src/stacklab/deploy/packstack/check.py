"""Grading an answer file that somebody wrote: as PackStack reads it, and whether it would come to a cloud.

What PackStack does with it: installer/run_setup.py at pike-eol (`_handleAnswerFileParams`: ConfigParser, the section `general`
alone; a key that it does not know is passed over in silence, one that is missing gets its default).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from stacklab.deploy.explained import of_answer_file
from stacklab.deploy.grading import Complaint, Setting, judged, meant

_LINE = re.compile(r"^([A-Za-z0-9_]+)\s*[=:]\s*(.*)$")


def check(text: str, *, addresses: Iterable[str]) -> list[Complaint]:
    """Everything that is wrong, by line. `addresses`: those of the machine that it is for."""
    answers: dict[str, Setting] = {}
    known = of_answer_file()
    complaints = list(_lines(text, answers, known.names))
    return sorted([*complaints, *judged(known.rules, answers, list(addresses))])


def _lines(text: str, answers: dict[str, Setting], names: set[str]) -> Iterator[Complaint]:
    """Line by line; what a line answers is added to `answers`."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        if line.startswith("["):
            inside = True
            if line.strip() != "[general]":
                yield Complaint(number, f"'{line.strip()[:40]}': PackStack reads the section [general] alone")
            continue
        if not inside:
            inside = True
            yield Complaint(number, "stands before [general]: PackStack cannot read the file")
        yield from (Complaint(number, problem) for problem in _line(number, line, answers, names))
    if not inside:
        yield Complaint(0, "there is no section [general]")


def _line(number: int, line: str, answers: dict[str, Setting], names: set[str]) -> Iterator[str]:
    """What is wrong with one line."""
    match = _LINE.match(line)
    if line[0].isspace():
        yield "begins with a blank: PackStack takes it for more of the line above"
    elif match is None:
        yield "an answer is written KEY=value"
    if match is None:
        return
    key, value = match[1].upper(), match[2].strip()  # ConfigParser does not tell large letters from small ones
    if key in answers and answers[key].value != value:
        yield f"{key} stands here a second time (first on line {answers[key].line}); the last one counts"
    answers[key] = Setting(number, value)
    if re.match(r"^(['\"]).*\1$", value):
        yield f"{key}: no quotes; PackStack would take them for a part of the value"
    if "%" in value:
        yield f"{key}: a % begins an interpolation for the program that reads the file"
    if near := meant(key, names):
        yield f"{key} is no key that lab knows, and PackStack passes over what it does not know: is {near} meant?"
    elif not key.startswith(("CONFIG_", "EXCLUDE_SERVERS")):
        yield f"{key} is no key of PackStack's: they begin with CONFIG_"
