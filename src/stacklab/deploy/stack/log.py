"""A line of DevStack's log, or of PackStack's: the traced command, the phase that begins with it.

The forms are those of DevStack's tools/outfilter.py ("2026-11-22 10:00:00.123 | ", UTC) and of its PS4 in stackrc, the same at
`pike-eol` and `stable/2026.1`: `+ lib/keystone:start_keystone:555          :   run_process …`, with LOG_COLOR without the
blank and the colon; before stackrc is read bash's own `+ command`. A command in $(…) has a plus sign more.
PackStack (output_messages.py and plugins/puppet_950.py at its pike-eol) says `Installing:`, then a line for each step that it
has done, and `Applying HOST_ROLE.pp` when Puppet sets to work; the times before its lines are ours (`detached`).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \| ?")
_TRACED = re.compile(r"^\++ ?(?P<file>[\w./-]+):(?P<function>[\w./-]+):(?P<number>\d+) +(?:: +)?(?P<command>.*)$")
# A script that DevStack feeds to another bash (wait_for_service) has no place of its own.
_NOWHERE = re.compile(r"^\++ ?:: +(?:: +)?(?P<command>.*)$")
_EARLY = re.compile(r"^\++ (?P<command>.*)$")
_APPLYING = re.compile(r"^Applying \S+_(?P<role>[a-z]+)\.pp$")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Line:
    """`text`: without the time and control characters.

    `command`, where it stands (`file`, `function`, `number`) and how deep (1: not in a subshell) are empty unless the line is a
    traced command.
    """

    text: str
    file: str = ""
    function: str = ""
    number: int = 0
    command: str = ""
    depth: int = 0

    @property
    def phase(self) -> str:
        """The phase that begins here, "" if none does: what stack.sh's main part says through echo_summary."""
        if not self.command:
            applying = _APPLYING.match(self.text.strip())
            if applying:
                return f"Puppet makes the {applying['role']}"
            return "Preparing what Puppet is to make" if self.text.strip() == "Installing:" else ""
        if self.file.removeprefix("./") != "stack.sh" or self.function != "main":
            return ""
        if not self.command.startswith("echo_summary "):
            return ""
        try:
            words = shlex.split(self.command)[1:]
        except ValueError:
            words = self.command.split()[1:]
        phase = " ".join(words)
        # Said of the log itself and of things left out: no part of the work.
        return "" if phase.startswith(("stack.sh ", "SKIPPING ", "Skip ")) else phase

    @property
    def shown(self) -> str:
        """The line as a learner would want it: where it stands and what is done, without trace marks."""
        if not self.command:
            return self.text.strip()
        place = self.file.removeprefix("./") + ": " if self.file else ""
        return f"{place}{self.command}"


def parse(raw: str) -> Line:
    """Take a line apart."""
    raw = _STAMP.sub("", _ESCAPES.sub("", raw.rstrip("\r\n")))
    depth = len(raw) - len(raw.lstrip("+"))
    traced = _TRACED.match(raw)
    if traced:
        number = int(traced["number"])
        return Line(raw, traced["file"], traced["function"], number, traced["command"].strip(), depth)
    early = _NOWHERE.match(raw) or _EARLY.match(raw)
    return Line(raw, command=early["command"].strip(), depth=depth) if early else Line(raw)
