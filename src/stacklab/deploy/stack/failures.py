"""Why stack.sh or packstack failed: what failed out of its own words, the likely cause out of a catalogue (failures.yaml)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ruamel.yaml import YAML

from stacklab.deploy.profile.model import Part
from stacklab.deploy.stack.log import Line, parse

Retry = Literal["safe", "after-unstack", "no"]

WINDOW = 400
"""Lines before the end in which a cause is looked for: further up, the same words may belong to something that was repaired."""
EXCERPT = 12
_RETRIES: dict[str, str] = {
    "safe": "then run lab up again: stack.sh starts anew",
    "after-unstack": "then run lab up again: it runs unstack.sh first",
    "no": "as it is, the same would happen again",
}
_AGAIN = "then run lab up again: packstack goes over everything once more and changes what is not as it should be"
"""PackStack may be run on what it has left half done: Puppet looks at each thing before it makes it."""
_PACKSTACK_ERROR = re.compile(r"^ERROR : (?P<what>.*)")
_PUPPET_RUN = re.compile(r"^Error appeared during Puppet run: (?P<manifest>\S+)")
_TRAPS = ("exit_trap", "err_trap")
_ENDS = re.compile(r"^(Error on exit|exit_trap: cleaning up child processes|World dumping\.\.\.|[\w.]+\.sh failed)")
_DIE = re.compile(r"^\[ERROR\] (?P<where>\S+:\d+) (?P<what>.*)")
# xtrace lines that lead from the failing command to the trap, not to the failure
_TRIVIAL = re.compile(
    r"^((local|return|exit|set|echo|\[\[|'?\['?|test|time_stop|time_start|die|err|cat)( |$)|\w+=\S*$|\(\(|:$)"
)
_UNTRACED = re.compile(r"^set \+(x|o xtrace)\b")
_ASSIGNMENT = re.compile(r"^\w+=")


class Failure(Part):
    """A known failure: `pattern` is searched line by line (regular expression), the first entry of the file that fits counts.

    `where`: in which part of stack.sh it shows; `source`: where pattern and cause are from; `examples`: lines that programs
    really print. `program`: whose words these are, where they are not those of programs that both run.
    """

    id: str
    pattern: str
    where: str
    cause: str
    remedy: str
    retry: Retry
    source: str
    examples: list[str]
    program: Literal["stack", "packstack"] | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What failed and why.

    `command`: the failing command, or DevStack's own words for it; `line`: where in DevStack (`lib/glance:660`), if it says so;
    `known`: the catalogue's id, "" if nothing there fits. `excerpt`: the last lines before the end.
    """

    command: str
    line: str
    cause: str
    remedy: str
    retry: Retry
    excerpt: list[str]
    known: str = ""
    program: Literal["stack", "packstack"] = "stack"

    @property
    def advice(self) -> str:
        """What to do, in one line."""
        again = _AGAIN if self.program == "packstack" and self.retry != "no" else _RETRIES[self.retry]
        return f"{self.remedy}; {again}"


@cache
def catalogue() -> list[Failure]:
    """All known failures, the more specific first. Raises ValidationError if the file is wrong (a defect of ours)."""
    entries = YAML(typ="safe").load((Path(__file__).parent / "failures.yaml").read_text(encoding="utf-8"))
    return [Failure.model_validate(entry) for entry in entries]


def diagnose(log_text: str, program: Literal["stack", "packstack"] = "stack") -> Diagnosis:
    """Find out from a log what failed. `known` is "", and `cause` says so, when it cannot tell why."""
    lines = [parse(raw) for raw in log_text.splitlines()]
    if program == "packstack":
        lines = _before_the_summary(lines)
        command, where = _puppet(lines)
    else:
        lines = _before_the_end(lines)
        command, where = _failing(lines)
    excerpt = [line.text for line in lines if line.text.strip()][-EXCERPT:]
    failure = _known([line.text for line in lines[-WINDOW:]], program)
    if failure is None:
        last = _last_words(lines)
        return Diagnosis(
            command,
            where,
            "not one of the known causes" + (f"; the last that was said: {last}" if last not in ("", command) else ""),
            "read the end of the log",
            "after-unstack",
            excerpt,
            program=program,
        )
    return Diagnosis(command, where, failure.cause, failure.remedy, failure.retry, excerpt, failure.id, program)


def _known(lines: list[str], program: str) -> Failure | None:
    # A program's own words tell more than those of whatever it ran.
    fitting = [failure for failure in catalogue() if failure.program in (None, program)]
    for failure in sorted(fitting, key=lambda failure: failure.program is None):
        pattern = re.compile(failure.pattern)
        # The command that is traced may quote the words of a failure: only what programs said counts.
        if any(pattern.search(line) for line in lines if not line.startswith("+")):
            return failure
    return None


def _before_the_summary(lines: list[Line]) -> list[Line]:
    """Without the notes that PackStack ends with, whatever came of it."""
    for index, line in enumerate(lines):
        if line.text.startswith(("Please check log file ", "Additional information:")):
            return lines[:index]
    return lines


def _puppet(lines: list[Line]) -> tuple[str, str]:
    """What PackStack says that failed: "ERROR : " and what it was; where it was Puppet, Puppet's own words and the manifest."""
    for index in range(len(lines) - 1, -1, -1):
        match = _PACKSTACK_ERROR.match(lines[index].text)
        if match is None:
            continue
        run = _PUPPET_RUN.match(match["what"])
        after = [line.text.strip() for line in lines[index + 1 :] if line.text.strip()]
        if run and after:
            return after[0], run["manifest"]
        return match["what"], ""
    return _last_words(lines) or "(the log is empty)", ""


def _before_the_end(lines: list[Line]) -> list[Line]:
    """Without what DevStack prints after the failure (its world dump is thousands of lines)."""
    for index in range(len(lines) - 1, -1, -1):
        if _is_trap(lines[index]):
            return lines[: index + 1]
    for index, line in enumerate(lines):
        if _ENDS.match(line.text):
            return lines[:index]
    return lines


def _failing(lines: list[Line]) -> tuple[str, str]:
    """The command that failed, and where it stands."""
    for line in reversed(lines[-WINDOW:]):
        match = _DIE.match(line.text)
        if match:
            return match["what"], _short(match["where"])
    trap = lines[-1] if lines and _is_trap(lines[-1]) else None
    traced = [line for line in lines[-WINDOW:] if line.command and not _is_trap(line)]
    if trap:
        failing = _before_trap(traced, trap)
        if failing:
            return failing.command, f"{failing.file}:{failing.number}" if failing.file else ""
    telling = [line for line in traced if not _TRIVIAL.match(line.command)]
    # After `set +x` nothing is traced: what failed is not what was traced last.
    if telling and not _UNTRACED.match(traced[-1].command):
        return telling[-1].command, f"{telling[-1].file}:{telling[-1].number}" if telling[-1].file else ""
    return _last_words(lines) or (traced[-1].command if traced else "(the log is empty)"), ""


def _last_words(lines: list[Line]) -> str:
    """The last line that a program printed."""
    return next((line.text.strip() for line in reversed(lines) if line.text.strip() and not line.command), "")


def _before_trap(traced: list[Line], trap: Line) -> Line | None:
    """The trap's line names the function that was left; the last command traced in that function is the one that failed."""
    inside = [at for at, line in enumerate(traced) if (line.file, line.function) == (trap.file, trap.function)]
    if inside and _ASSIGNMENT.match(traced[inside[-1]].command):
        # x=$(command): bash traces the command one level deeper, and before the assignment.
        depth, at = traced[inside[-1]].depth, inside[-1]
        deeper = [line for line in _until(traced[:at], depth) if line.depth == depth + 1]
        own = [line for line in deeper if line.function == trap.function] or deeper
        for candidates in (own, deeper):
            telling = [line for line in candidates if not _TRIVIAL.match(line.command)]
            if telling:
                return telling[-1]
    # A command's own substitutions and the other end of its pipe are traced after it, a level deeper.
    own = [traced[at] for at in inside]
    # bash traces a trap on ERR a level deeper than the command that set it off, one on EXIT at the same level.
    level = trap.depth - (1 if trap.command.startswith("err_trap") else 0)
    for candidates in ([line for line in own if line.depth == level], own, traced):
        telling = [line for line in candidates if not _TRIVIAL.match(line.command)]
        if telling:
            return telling[-1]
    return None


def _until(lines: list[Line], depth: int) -> list[Line]:
    """The lines at the end that are deeper than `depth`."""
    at = len(lines)
    while at and lines[at - 1].depth > depth:
        at -= 1
    return lines[at:]


def _is_trap(line: Line) -> bool:
    return line.command.split(" ")[0] in _TRAPS


def _short(where: str) -> str:
    return re.sub(r"^.*/devstack/", "", where)
