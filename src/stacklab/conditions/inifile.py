"""One value in an INI file of oslo.config's kind, read and changed, with every other byte left as it is."""

from __future__ import annotations

import re

HEAD = re.compile(r"\s*\[([^]]+)\]")


def value_of(text: str, section: str, key: str) -> str | None:
    """The value of a key; where it is set twice the last one counts, as for oslo.config. None if it is not there."""
    found = _lines(text, section, key)
    return found[-1][1]["value"].strip() if found else None


def with_value(text: str, section: str, key: str, value: str) -> str:
    """The text with another value of a key; a key, or a section, that is not there is added."""
    lines = text.splitlines(keepends=True)
    if found := _lines(text, section, key):
        number, match = found[-1]
        lines[number] = f"{match['before']}{value}{match['after']}"
        return "".join(lines)
    heads = [number for number, line in enumerate(lines) if (head := HEAD.match(line)) and head[1] == section]
    if not heads:
        return f"{text.rstrip()}\n\n[{section}]\n{key} = {value}\n"
    lines.insert(heads[0] + 1, f"{key} = {value}\n")
    return "".join(lines)


def _lines(text: str, section: str, key: str) -> list[tuple[int, re.Match[str]]]:
    """The lines that give a key of a section its value."""
    wanted = re.compile(rf"(?P<before>{re.escape(key)}\s*[=:][ \t]*)(?P<value>[^\r\n]*?)(?P<after>[ \t]*\r?\n?)$")
    found, within = [], False
    for number, line in enumerate(text.splitlines(keepends=True)):
        if head := HEAD.match(line):
            within = head[1] == section
        elif within and (match := wanted.match(line)):
            found.append((number, match))
    return found
