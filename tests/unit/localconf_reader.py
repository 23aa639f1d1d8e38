"""A reader of local.conf of our own, to hold what we write against: a real bash and configparser do the reading.

It follows the documentation of the format, not DevStack's code: test_local_conf_devstack.py does that.
"""

from __future__ import annotations

import configparser
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# What DevStack defines before it sources the section; here they only note what they were called with.
_SHELL = r"""
note() { printf '%s\0' "$#" "$@" >&3; }
enable_plugin() { note enable_plugin "$@"; }
enable_service() { note enable_service "$@"; }
disable_service() { note disable_service "$@"; }
set -eu -a
source "$1"
set +a
env -0
"""


@dataclass
class Reading:
    """`variables`: what localrc sets; `calls`: what it calls, with arguments; `files`: the ini sections, by group|file."""

    variables: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    files: dict[str, configparser.ConfigParser] = field(default_factory=dict)


def sections(text: str) -> dict[str, str]:
    """The text of every [[group|file]]."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        head = re.match(r"\[\[(.+\|.*)\]\]", line)
        if head:
            lines = found.setdefault(head[1], [])
        elif lines is not None:
            lines.append(line)
    return {name: "\n".join(body) + "\n" for name, body in found.items()}


def read(text: str, directory: Path) -> Reading:
    """What a local.conf says. `directory` must be empty: a value that runs as a command may leave its traces there."""
    parts = sections(text)
    localrc, calls = directory / "localrc", directory / "calls"
    localrc.write_text(parts.pop("local|localrc"), encoding="utf-8")
    with calls.open("wb") as noted:
        done = subprocess.run(
            ["bash", "-c", f"exec 3>&{noted.fileno()}\n{_SHELL}", "bash", str(localrc)],
            cwd=directory, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False, pass_fds=[noted.fileno()],
        )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    own = {"PATH", "PWD", "SHLVL", "_", "OLDPWD"}
    pairs = (word.partition("=") for word in done.stdout.decode().split("\0") if word)
    reading = Reading({name: value for name, _, value in pairs if name not in own})
    words = calls.read_bytes().decode().split("\0")[:-1]
    while words:
        count = int(words[0])
        reading.calls.append(tuple(words[1 : count + 1]))
        words = words[count + 1 :]
    localrc.unlink()
    calls.unlink()
    for name, body in parts.items():
        reading.files[name] = configparser.ConfigParser(interpolation=None, strict=True)
        reading.files[name].read_string(body)
    return reading
