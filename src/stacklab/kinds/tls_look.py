"""Looking at what is public from outside, by the commands that are shown: which they are, and how answers are read, is data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from stacklab.errors import MissingProgram
from stacklab.https.apache import filled
from stacklab.https.authority import is_ip
from stacklab.https.logins import BY_TLS
from stacklab.kinds import client
from stacklab.kinds.context import Context
from stacklab.kinds.kind import Difference
from stacklab.kinds.narration import shell_lines


class Address(BaseModel):
    """Something public: its name, and where it answers. `path`: below which it does; `public`: what its URLs begin with."""

    name: str = ""
    host: str = "HOST"
    port: str = "PORT"
    path: str = "/"
    public: str = ""

    @property
    def at(self) -> str:
        """For openssl and URLs."""
        return f"{self.host}:{self.port}"


class Answer(BaseModel):
    """One way to read what a command said; see tls_looks.yaml."""

    model_config = ConfigDict(extra="forbid")
    pattern: str
    shows: str
    expected: str | None = None


class Look(BaseModel):
    """One property that a command shows; see tls_looks.yaml."""

    model_config = ConfigDict(extra="forbid")
    title: str
    line: str
    login: str | None = None
    answers: list[Answer]

    def command(self, address: Address, directory: Path) -> str:
        """The line for one address. `directory`: of the lab's authority."""
        values = {
            "at": address.at, "host": address.host, "path": address.path, "public": address.public,
            "option": "-checkip" if is_ip(address.host) else "-checkhost", "directory": str(directory),
        }  # fmt: skip
        return filled(self.line, {name: shlex.quote(value) for name, value in values.items()})

    def read(self, address: Address, result: client.Result) -> tuple[str, str | None]:
        """What the command showed, and what it should have shown if that is something else."""
        text = f"{result.status}\n{result.output}{result.complaint}".replace("\r", "")
        values = {"host": address.host, "path": address.path, "public": address.public, "last": _last(result)}
        quoted = {name: re.escape(value) for name, value in values.items()}
        for answer in self.answers:
            if match := re.search(filled(answer.pattern, quoted), text, re.MULTILINE | re.IGNORECASE):
                expected = None if answer.expected is None else filled(answer.expected, values)
                return filled(match.expand(answer.shows), values), expected
        raise AssertionError(f"nothing reads: {text}")  # the last pattern of each takes anything

    def ask(self, context: Context, address: Address) -> tuple[str, str | None]:
        """Run the command, with the lab's logins; how its answer is read. Raises MissingProgram."""
        https = context.https()
        line = self.command(address, https.directory)
        result = client.run(shell_lines(line), {}, https.clouds_file, self.login or BY_TLS)
        if result.status == 127:
            raise MissingProgram(_last(result), advice="install it: the step is done with that program")
        return self.read(address, result)


def wrong(context: Context, asked: Iterable[tuple[str, Address]]) -> list[Difference]:
    """What is otherwise than it should be, of these looks (by name) at these addresses."""
    differences = []
    for name, address in asked:
        look = looks()[name]
        shown, expected = look.ask(context, address)
        if expected:
            differences.append(
                Difference(filled(look.title, {"host": address.host, "at": address.at}), expected, shown)
            )
    return differences


@cache
def looks() -> dict[str, Look]:
    """What tls_looks.yaml says, by name."""
    text = Path(__file__).with_name("tls_looks.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Look]).validate_python(yaml.safe_load(text))


def _last(result: client.Result) -> str:
    """What it said last. Of a long line the end counts most: that is where an error of Python's names its cause."""
    lines = (result.complaint + result.output).strip().splitlines() or [f"it ended with status {result.status}"]
    return lines[-1] if len(lines[-1]) <= 300 else f"{lines[-1][:80]} … {lines[-1][-220:]}"
