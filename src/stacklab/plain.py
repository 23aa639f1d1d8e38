"""Text that somebody else wrote, on its way to a terminal: what could move the cursor, hide or reverse other text goes."""

from __future__ import annotations

import re

# ECMA-48: control sequences (CSI …), control strings (OSC, DCS, … up to their end), and other escapes.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[]PX^_]|[\x9d\x90\x98\x9e\x9f]).*?(?:\x07|\x1b\\|\x9c|$)"
    r"|\x1b[ -/]*[0-~]?",
    re.MULTILINE,
)
_OURS = re.compile(r"\x1b\[(?:0|1|3[0-7]|90)m")
"""The colours that `console` itself puts into a line."""
# C0 (but tab and line end), DEL, C1, and Unicode's controls of direction and invisible characters (UAX #9, UTR #36).
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def plain(text: str, *, coloured: bool = False) -> str:
    """`text` without anything that a terminal would obey, except (in `coloured` text) our own colours."""
    if text.isascii() and text.isprintable():
        return text
    if not coloured:
        return _HIDDEN.sub("", _SEQUENCES.sub("", text))
    parts = _OURS.split(text)
    colours = [*_OURS.findall(text), ""]
    cleaned = (_HIDDEN.sub("", _SEQUENCES.sub("", part)) for part in parts)
    return "".join(part + colour for part, colour in zip(cleaned, colours, strict=True))


def visible(text: str) -> str:
    """`text` with everything that a terminal would obey, or not show, spelled out: for what has to be read before it runs."""
    return _HIDDEN.sub(lambda match: _spelled(match.group()), text)


def _spelled(character: str) -> str:
    return repr(character).strip("'") if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def in_json(text: str) -> str:
    """JSON text with the same characters escaped, so that a terminal may show it and a parser reads what was there."""
    return _HIDDEN.sub(
        lambda match: _json_escaped(match.group()) if match.group() not in "\n\t" else match.group(), text
    )


def _json_escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
