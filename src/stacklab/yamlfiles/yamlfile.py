"""YAML that remembers where everything stands, so that an error can name file, line and key."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError

from stacklab.errors import LabError, SessionInvalid

Where = tuple[str | int, ...]
"""The way to a value: keys and list positions."""

MAX_BYTES = 1 << 20
"""The files that people write for `lab` are a few dozen kilobytes; a larger one is none of them."""


class YamlFile:
    """A YAML file as plain values (dict, list, str, int, float, bool, None) beside the lines they stand on.

    `digest`: the hash of its bytes, those that were read. `invalid`: the error to raise when something is wrong with it;
    `what`: how messages call such a file.
    """

    def __init__(self, path: Path, *, invalid: type[LabError] = SessionInvalid, what: str = "session file") -> None:
        self.path = path
        self._invalid = invalid
        self._what = what
        self._lines: dict[Where, int] = {}
        self.digest = ""
        try:
            self.value: Any = self._plain(self._read(), ())
        except RecursionError as error:
            raise self._invalid(f"{self.path}: holds itself, or is nested far too deeply") from error

    def _bytes(self) -> bytes:
        """What is in the file. A pipe or a device would keep us waiting, or never end."""
        handle = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise self._invalid(f"{self.path}: is no file, so no {self._what}")
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise self._invalid(f"{self.path}: larger than {MAX_BYTES} bytes, which no {self._what} is")
        return content

    def _read(self) -> Any:
        try:
            content = self._bytes()
            self.digest = hashlib.sha256(content).hexdigest()
            text = content.decode("utf-8")
        except OSError as error:
            raise self._invalid(f"{self.path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise self._invalid(
                f"{self.path}: not UTF-8 text (byte {error.start})", advice="save it as UTF-8"
            ) from error
        # Round-trip loading keeps line numbers; it builds no objects from tags, and aliases cannot multiply endlessly
        # because `_plain` counts what it copies.
        reader = YAML(typ="rt", pure=True)
        try:
            return reader.load(text)
        except DuplicateKeyError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise self._invalid(
                f"{self.path}:{line}: this key stands here twice", advice="keep one of the two"
            ) from error
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            problem = error.problem or error.context or "not YAML"
            raise self._invalid(
                f"{self.path}:{line}: {problem}", advice="look at the indentation and quotes there"
            ) from error
        except Exception as error:  # on odd YAML the library trips over itself in many ways (AttributeError, …)
            raise self._invalid(f"{self.path}: not YAML that can be read: {error}") from error

    def _plain(self, value: Any, where: Where) -> Any:
        if len(self._lines) > 100_000:
            raise self._invalid(f"{self.path}: holds far too many values (does an alias contain itself?)")
        if isinstance(value, CommentedMap | CommentedSeq) and value.tag.value:
            raise self.error(where, f"the tag {value.tag.value} has no place in a {self._what}")
        if isinstance(value, CommentedMap):
            self._lines.setdefault(where, value.lc.line + 1)
            marks = {}
            for key, item in value.items():
                # A key that a merge (`<<: *anchor`) brings has no place of its own: it stands where the mapping does.
                line = (value.lc.data or {}).get(key, [value.lc.line])[0] + 1
                if not isinstance(key, str):
                    raise self._invalid(f"{self.path}:{line}: the key {key!r} is not text", advice="put it in quotes")
                self._lines[(*where, key)] = line
                marks[key] = self._plain(item, (*where, key))
            return marks
        if isinstance(value, CommentedSeq):
            self._lines.setdefault(where, value.lc.line + 1)
            for index in range(len(value)):
                self._lines[(*where, index)] = value.lc.item(index)[0] + 1
            return [self._plain(item, (*where, index)) for index, item in enumerate(value)]
        return self._scalar(value, where)

    def _scalar(self, value: Any, where: Where) -> Any:
        for plain in (bool, int, float, str):
            if isinstance(value, plain):
                return plain(value)
        if value is None:
            return None
        raise self.error(where, f"{value!r} is neither text, a number, true or false", advice="put it in quotes")

    def holds(self, where: Where) -> bool:
        """Whether something stands at `where`."""
        return where in self._lines

    def line(self, where: Where) -> int:
        """The line (from 1) of the value at `where`, or of the closest thing around it."""
        while where and where not in self._lines:
            where = where[:-1]
        return self._lines.get(where, 1)

    def error(self, where: Where, problem: str, *, advice: str = "") -> LabError:
        """The error to raise for something wrong at `where`."""
        key = ".".join(str(part) for part in where)
        place = f"{self.path}:{self.line(where)}: "
        return self._invalid(place + (f"{key}: " if key else "") + problem, advice=advice)
