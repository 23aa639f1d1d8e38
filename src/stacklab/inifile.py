"""One value in an INI file of oslo.config's kind, read and changed, with every other byte left as it is.

As oslo.config reads it: the last of several values counts, and lines that begin with a blank go on with the value before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEAD = re.compile(r"\s*\[([^]]+)\]")
_KEY = re.compile(r"(?P<before>(?P<key>[^\s#;=:][^=:]*?)\s*[=:][ \t]*)(?P<value>.*?)(?P<after>[ \t]*\r?\n?)$")


@dataclass(frozen=True)
class _Place:
    """Where a value stands: its first line, and the one after its last; `line`: the first one, taken apart."""

    first: int
    end: int
    line: re.Match[str]


def value_of(text: str, section: str, key: str) -> str | None:
    """The value of a key, its lines joined with newlines; None if it is not set."""
    places = _places(text, section, key)
    if not places:
        return None
    more = [line.strip() for line in text.splitlines()[places[-1].first + 1 : places[-1].end]]
    return "\n".join([places[-1].line["value"].strip(), *more]).strip()


def with_value(text: str, section: str, key: str, value: str | None) -> str:
    """The text with another value of a key (None: without it); a key, or a section, that is not there is added."""
    lines = text.splitlines(keepends=True)
    places = _places(text, section, key)
    if value is None:
        for place in reversed(places):
            del lines[place.first : place.end]
        return "".join(lines)
    value = value.replace("\n", "\n    ")
    if places:
        last = places[-1]
        lines[last.first : last.end] = [f"{last.line['before']}{value}{last.line['after']}"]
        return "".join(lines)
    heads = [number for number, line in enumerate(lines) if (head := _HEAD.match(line)) and head[1] == section]
    if not heads:
        return f"{text.rstrip()}\n\n[{section}]\n{key} = {value}\n"
    if not lines[heads[0]].endswith("\n"):
        lines[heads[0]] += "\n"
    lines.insert(heads[0] + 1, f"{key} = {value}\n")
    return "".join(lines)


def _places(text: str, section: str, key: str) -> list[_Place]:
    lines = text.splitlines(keepends=True)
    places, within, number = [], False, 0
    while number < len(lines):
        first, number = number, number + 1
        if head := _HEAD.match(lines[first]):
            within = head[1] == section
        elif match := _KEY.match(lines[first]):
            while number < len(lines) and lines[number][:1] in " \t" and lines[number].strip():
                number += 1
            if within and match["key"] == key:
                places.append(_Place(first, number, match))
    return places
