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
    lines = lines[: _end(lines, program)]
    command, where = _puppet(lines) if program == "packstack" else _failing(lines[-WINDOW:])
    excerpt = [line.text for line in lines if line.text.strip()][-EXCERPT:]
    failure = _known([line.text for line in lines[-WINDOW:]], program)
    if failure:
        return Diagnosis(
            command, where, failure.cause, failure.remedy, failure.retry, excerpt, known=failure.id, program=program
        )
    last = _last_words(lines)
    cause = "not one of the known causes" + (f"; the last that was said: {last}" if last not in ("", command) else "")
    return Diagnosis(command, where, cause, "read the end of the log", "after-unstack", excerpt, program=program)


def _known(lines: list[str], program: str) -> Failure | None:
    # A program's own words tell more than those of whatever it ran.
    fitting = [failure for failure in catalogue() if failure.program in (None, program)]
    for failure in sorted(fitting, key=lambda failure: failure.program is None):
        pattern = re.compile(failure.pattern)
        # The command that is traced may quote the words of a failure: only what programs said counts.
        if any(pattern.search(line) for line in lines if not line.startswith("+")):
            return failure
    return None


def _end(lines: list[Line], program: str) -> int:
    """Where what is printed after the end begins: PackStack's notes, DevStack's world dump of thousands of lines."""
    if program == "packstack":
        notes = ("Please check log file ", "Additional information:")
        return next((at for at, line in enumerate(lines) if line.text.startswith(notes)), len(lines))
    traps = [at for at, line in enumerate(lines) if _is_trap(line)]
    ends = [at for at, line in enumerate(lines) if _ENDS.match(line.text)]
    return traps[-1] + 1 if traps else ends[0] if ends else len(lines)


def _puppet(lines: list[Line]) -> tuple[str, str]:
    """What PackStack says that failed: "ERROR : " and what it was; where it was Puppet, Puppet's own words and the manifest."""
    for index in range(len(lines) - 1, -1, -1):
        match = _PACKSTACK_ERROR.match(lines[index].text)
        if match is None:
            continue
        run = _PUPPET_RUN.match(match["what"])
        after = [line.text.strip() for line in lines[index + 1 :] if line.text.strip()]
        return (after[0], run["manifest"]) if run and after else (match["what"], "")
    return _last_words(lines) or "(the log is empty)", ""


def _failing(lines: list[Line]) -> tuple[str, str]:
    """The command that failed, and where it stands."""
    for line in reversed(lines):
        if match := _DIE.match(line.text):
            return match["what"], re.sub(r"^.*/devstack/", "", match["where"])
    traced = [line for line in lines if line.command and not _is_trap(line)]
    candidates = _before_trap(traced, lines[-1]) if lines and _is_trap(lines[-1]) else []
    # After `set +x` nothing is traced: what failed is not what was traced last.
    if not candidates and traced and not _UNTRACED.match(traced[-1].command):
        candidates = _telling(traced)
    if candidates:
        failing = candidates[-1]
        return failing.command, f"{failing.file}:{failing.number}" if failing.file else ""
    return _last_words(lines) or (traced[-1].command if traced else "(the log is empty)"), ""


def _before_trap(traced: list[Line], trap: Line) -> list[Line]:
    """The trap's line names the function that was left; the last command traced in that function is the one that failed."""
    inside = [at for at, line in enumerate(traced) if (line.file, line.function) == (trap.file, trap.function)]
    own = [traced[at] for at in inside]
    # bash traces a trap on ERR a level deeper than the command that set it off, one on EXIT at the same level.
    level = trap.depth - (1 if trap.command.startswith("err_trap") else 0)
    # A command's own substitutions and the other end of its pipe are traced after it, a level deeper.
    choices = [[line for line in own if line.depth == level], own, traced]
    if own and _ASSIGNMENT.match(own[-1].command):
        # x=$(command): bash traces the command one level deeper, and before the assignment.
        before, depth = traced[: inside[-1]], own[-1].depth
        shallow = [at for at, line in enumerate(before) if line.depth <= depth]
        deeper = [line for line in before[shallow[-1] + 1 if shallow else 0 :] if line.depth == depth + 1]
        choices = [[line for line in deeper if line.function == trap.function], deeper, *choices]
    return next(filter(None, map(_telling, choices)), [])


def _telling(lines: list[Line]) -> list[Line]:
    return [line for line in lines if not _TRIVIAL.match(line.command)]


def _last_words(lines: list[Line]) -> str:
    """The last line that a program printed."""
    return next((line.text.strip() for line in reversed(lines) if line.text.strip() and not line.command), "")


def _is_trap(line: Line) -> bool:
    return line.command.split(" ")[0] in _TRAPS
