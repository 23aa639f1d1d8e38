"""One option of an OpenStack service's configuration file, read and changed without touching any other line."""

from __future__ import annotations

import re


def get_option(text: str, section: str, option: str) -> str | None:
    """Its value (the last one counts, as in oslo.config); None if it is not set."""
    value, current = None, ""
    for line in text.splitlines():
        if header := _header(line):
            current = header
        elif current == section and (found := re.match(rf"{re.escape(option)}\s*[=:]\s*(.*)$", line)):
            value = found.group(1).strip()
    return value


def set_option(text: str, section: str, option: str, value: str | None) -> str:
    """The text with the option set to a value, or without it (None)."""
    lines, current, last = [], "", None
    for line in text.splitlines(keepends=True):
        if header := _header(line):
            current = header
        elif current == section and re.match(rf"{re.escape(option)}\s*[=:]", line):
            continue
        lines.append(line)
        if current == section and line.strip():
            last = len(lines)
    if value is None:
        return "".join(lines)
    if last is None:
        if lines and not lines[-1].endswith("\n"):
            lines.append("\n")
        lines += [f"\n[{section}]\n"]
        last = len(lines)
    elif not lines[last - 1].endswith("\n"):
        lines[last - 1] += "\n"
    lines.insert(last, f"{option} = {value}\n")
    return "".join(lines)


def _header(line: str) -> str | None:
    found = re.match(r"\[([^\]]+)\]\s*$", line)
    return found.group(1) if found else None
