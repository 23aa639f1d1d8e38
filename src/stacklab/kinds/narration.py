"""A step's `openstack` commands and REST requests, as values: the same object is shown and run, so they cannot differ."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

Service = Literal["identity", "image", "compute", "network", "block-storage", "object-store"]


@dataclass(frozen=True)
class Later:
    """A value that is known only when the step runs: shown as the shell variable `$NAME`."""

    name: str


@dataclass(frozen=True)
class Hidden:
    """A secret: shown as the shell variable `$NAME`, sent as it is."""

    name: str
    value: str = field(repr=False)


Word = str | Later
END = "LAB"
"""The line after a script that is shown."""
PAPER = Path("LAB-DIRECTORY/https")
"""Stands for the lab's directory of certificates where there is no lab."""
Saved = Mapping[str, str]


def _fill(value: Any, saved: Saved) -> Any:
    """`value` with every Later and Hidden in it replaced by what it stands for."""
    if isinstance(value, Later):
        return saved[value.name]
    if isinstance(value, Hidden):
        return value.value
    if isinstance(value, dict):
        return {key: _fill(item, saved) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fill(item, saved) for item in value]
    return value


def _laters(value: Any) -> set[str]:
    if isinstance(value, Later):
        return {value.name}
    if isinstance(value, dict):
        return set().union(*(_laters(item) for item in value.values())) if value else set()
    if isinstance(value, list | tuple):
        return set().union(*(_laters(item) for item in value)) if value else set()
    return set()


@dataclass(frozen=True)
class Command:
    """One command line. `words` leave out the program, which nearly always is `openstack`.

    `feed`: commands whose output is piped in. `typed`: what the command asks for at a prompt. `saves`: the variable that
    the command's only output, the column `column`, is kept in.
    """

    words: tuple[Word, ...]
    feed: tuple[tuple[str, ...], ...] = ()
    typed: Hidden | None = None
    saves: str | None = None
    column: str = "id"
    program: Literal["openstack", "ssh", "lab", "mkdir", "vi", "sh"] = "openstack"

    def argv(self, saved: Saved) -> list[str]:
        """The words to run after the program."""
        extra = ["-f", "value", "-c", self.column] if self.saves else []
        return [*_fill(self.words, saved), *extra]

    def text(self, cloud: str = "") -> str:
        """The line a learner types into a shell. `cloud`: the entry of clouds.yaml that the client acts as."""
        who = ("--os-cloud", cloud) if cloud and self.program == "openstack" else ()
        words = [self.program, *(_shell(word) for word in (*who, *self.words))]
        if self.saves:
            words += ["-f", "value", "-c", self.column]
        line = " | ".join([*(shlex.join(part) for part in self.feed), " ".join(words)])
        if self.saves:
            line = f"{self.saves}=$({line})"
        return f"{line}   # asks for the password: ${self.typed.name}" if self.typed else line

    def wants(self) -> set[str]:
        """Variables that must be known before it runs."""
        return _laters(self.words)


@dataclass(frozen=True)
class Script(Command):
    """Lines of shell for the machine that the cloud runs on: what is shown is what `sh -eu` is given there, to the letter."""

    script: str = ""
    machine: str = "the machine that the cloud runs on"
    root: bool = False

    def text(self, cloud: str = "") -> str:
        """What a learner types into a shell there; an `exit` in it does not end that shell."""
        return f"# on {self.machine}\n{'sudo ' if self.root else ''}sh -eu <<'{END}'\n{self.script}\n{END}"


@dataclass(frozen=True)
class Lines(Command):
    """Lines of shell for the learner's own machine, shown as they are: `words` give them to sh."""

    def text(self, cloud: str = "") -> str:
        """The lines."""
        return str(self.words[1])


def shell_lines(*lines: str) -> Lines:
    """See Lines."""
    return Lines(("-c", "\n".join(lines)), program="sh")


def _shell(word: Word) -> str:
    return f'"${word.name}"' if isinstance(word, Later) else shlex.quote(word)


@dataclass(frozen=True)
class Upload:
    """A request's body that is a stream of bytes: a file, or what a pipeline of commands prints."""

    pipeline: tuple[tuple[str, ...], ...] = ()
    file: Path | None = None


@dataclass(frozen=True)
class Request:
    """One REST request. `path` is below the service's endpoint of the API version that we speak, or below the URL `at`.

    `saves` maps a variable to the way to its value in the answer. `until`: (way, value): repeat the GET until it holds.
    `extra`: headers beside the usual ones. `token`: False for a request that is sent without one. `saves_header`: a variable,
    and the header of the answer that it is kept in; nothing else is wanted of the answer then.
    """

    method: str
    service: Service
    path: tuple[Word, ...]
    body: Any = None
    query: Mapping[str, Word] = field(default_factory=dict)
    version: str | None = None
    upload: Upload | None = None
    saves: Mapping[str, tuple[str | int, ...]] = field(default_factory=dict)
    until: tuple[tuple[str | int, ...], str] | None = None
    at: str | None = None
    extra: Mapping[str, Word] = field(default_factory=dict)
    token: bool = True
    saves_header: tuple[str, str] | None = None

    def url(self, base: str, saved: Saved) -> str:
        """The full URL to send to."""
        path = "/".join(quote(word, safe="") for word in _fill(self.path, saved))
        query = urlencode(_fill(dict(self.query), saved))
        below = f"{self.at or base}/{path}" if self.path else self.at or base
        return below + (f"?{query}" if query else "")

    def content(self, saved: Saved) -> Any:
        """The JSON body to send (None for none)."""
        return _fill(self.body, saved)

    def headers(self) -> dict[str, str]:
        """Headers beside the token."""
        headers = {"Accept": "application/json"}
        if self.version:
            headers["OpenStack-API-Version"] = f"{self.service} {self.version}"
        if self.upload:
            headers["Content-Type"] = "application/octet-stream"
        elif self.body is not None:
            headers["Content-Type"] = "application/json"
        return headers

    def sent_headers(self, saved: Saved) -> dict[str, str]:
        """All headers but the token's, with what their variables stand for."""
        return self.headers() | {key: str(_fill(value, saved)) for key, value in self.extra.items()}

    def wants(self) -> set[str]:
        """Variables that must be known before it is sent."""
        return _laters((self.path, dict(self.query), self.body, dict(self.extra)))

    def text(self, base: str) -> str:
        """The request as curl, one line for a shell; the token is `$TOKEN`."""
        path = "/".join(f"${word.name}" if isinstance(word, Later) else quote(word, safe="") for word in self.path)
        query = "&".join(
            f"{key}=${value.name}" if isinstance(value, Later) else urlencode({key: value})
            for key, value in self.query.items()
        )
        below = f"{self.at or base}/{path}" if self.path else self.at or base
        url = f'"{below}' + (f'?{query}"' if query else '"')
        method = ["-I"] if self.method == "HEAD" else ["-X", self.method]  # with -X HEAD, curl waits for a body
        words = ["curl", "-sS", *(["-D", "-", "-o", "/dev/null"] if self.saves_header else []), *method, url]
        words += ["-H", '"X-Auth-Token: $TOKEN"'] if self.token else []
        for key, value in {**self.headers(), **self.extra}.items():
            words += ["-H", f'"{key}: ${value.name}"' if isinstance(value, Later) else shlex.quote(f"{key}: {value}")]
        if self.upload:
            words += ["-T", shlex.quote(str(self.upload.file)) if self.upload.file else "-"]
        elif self.body is not None:
            words += ["-d", _shown(self.body)]
        line = " ".join(words)
        if self.upload and not self.upload.file:
            line = " | ".join([*(shlex.join(part) for part in self.upload.pipeline), line])
        if self.saves_header:
            name, header = self.saves_header
            line = f"{name}=$({line} | sed -n 's/\\r$//; s/^{header}: //Ip')"
        if self.until:
            line += f"   # again until {self.until[0][-1]} is {self.until[1]}"
        for name, way in self.saves.items():
            line += f"   # {name} = .{'.'.join(str(part) for part in way)}"
        return line


def _shown(body: Any) -> str:
    """`body` as a shell word: variables stay variables inside the quoted JSON."""
    names: list[str] = []

    def mark(value: object) -> object:
        if isinstance(value, Later | Hidden):
            names.append(value.name)
            return f"\x00{len(names) - 1}\x00"
        raise TypeError(f"cannot send {value!r}")

    text = shlex.quote(json.dumps(body, default=mark))
    for index, name in enumerate(names):
        text = text.replace(f"\\u0000{index}\\u0000", f"'\"${name}\"'")
    return text


def dig(answer: Any, way: tuple[str | int, ...]) -> Any:
    """The value at `way` in a JSON answer."""
    for part in way:
        answer = answer[part]
    return answer
