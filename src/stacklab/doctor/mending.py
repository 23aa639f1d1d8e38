"""`lab doctor --fix`: the commands that need no decision are shown, run, and the probe has the last word."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field

from stacklab.doctor.examine import Progress, Subject, examine
from stacklab.doctor.probe import Command, Finding, Probe

ROUNDS = 4
"""What was mended may show the next thing that is wrong: a daemon that runs, a pool that is off."""
COMMAND_SECONDS = 1800.0


@dataclass(frozen=True)
class Ran:
    """A command and how it ended: `status` None if it was not run; `said`: why not, or its last words."""

    line: str
    status: int | None
    said: str = ""


@dataclass(frozen=True)
class Mended:
    """What was done about a finding, and what its probe then saw."""

    before: Finding
    after: Finding
    ran: list[Ran] = field(default_factory=list)

    @property
    def better(self) -> bool:
        """Whether the new look says so."""
        rank = {"good": 0, "warning": 1, "unknown": 2, "bad": 2}
        return rank[self.after.state] < rank[self.before.state]

    def document(self) -> dict[str, object]:
        """For --json."""
        return {
            "id": self.before.id, "before": self.before.state, "after": self.after.state, "evidence": self.after.evidence,
            "mended": self.better, "commands": [vars(one) for one in self.ran],
        }  # fmt: skip


@dataclass(frozen=True)
class Telling:
    """Who hears what goes on: of a command before it runs, of its end, and of what came of it."""

    begins: Callable[[Finding], None] = lambda _: None
    runs: Callable[[str], None] = lambda _: None
    ran: Callable[[Ran], None] = lambda _: None
    ended: Callable[[Mended], None] = lambda _: None
    looks: Progress = lambda _: None


def mend(subject: Subject, findings: list[Finding], telling: Telling) -> tuple[list[Finding], list[Mended]]:
    """Mend what can be mended safely. Returns findings made anew after all of it, and what was done."""
    tried: dict[Command, Ran] = {}
    log: list[Mended] = []
    probes = {one.id: one for one in subject.probes}
    for _ in range(ROUNDS):
        todo = [one for one in findings if one.safe and _is_new(_commands(one), tried)]
        if not todo:
            break
        for finding in todo:
            done = _mended(probes[finding.id], finding, tried, telling)
            telling.ended(done)
            log.append(done)
        findings = list(examine(subject, telling.looks))
    return findings, log


def _commands(finding: Finding) -> list[Command]:
    return [one for one in finding.mend if isinstance(one, Command)]


def _is_new(commands: list[Command], tried: dict[Command, Ran]) -> bool:
    """Whether a command is left to run before one that has failed."""
    for command in commands:
        if command not in tried:
            return True
        if tried[command].status != 0 and not command.optional:
            return False
    return False


def _mended(probe: Probe, finding: Finding, tried: dict[Command, Ran], telling: Telling) -> Mended:
    telling.begins(finding)
    now = probe.run()  # what was done for another one may have mended it
    ran: list[Ran] = []
    for command in _commands(now) if now.state != "good" else []:
        if command not in tried:
            telling.runs(str(command))
            tried[command] = run(command)
            telling.ran(tried[command])
            ran.append(tried[command])
        if tried[command].status != 0 and not command.optional:
            break  # now, and in a later round
    return Mended(finding, probe.run() if ran else now, ran)


def run(command: Command) -> Ran:
    """Run it if it may be run here."""
    line = str(command)
    if command.installs and os.environ.get("NO_SYSTEM"):
        return Ran(line, None, "NO_SYSTEM is set, so nothing is installed")
    if command.root and os.geteuid() != 0 and not _may_sudo():
        return Ran(line, None, "it takes root, and sudo wants a password: run it yourself")
    # Into a file, not a pipe: a daemon that the command starts would hold a pipe open.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        try:
            status = subprocess.run(
                command.full, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                timeout=COMMAND_SECONDS, cwd="/", check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            return Ran(line, None, f"it did not end within {COMMAND_SECONDS / 60:.0f} minutes and was ended")
        except OSError as error:
            return Ran(line, None, f"it cannot be run: {error}")
        output.seek(0)
        last = [one.strip() for one in output.readlines() if one.strip()][-3:]
    return Ran(line, status, " / ".join(last) if status else "")


def _may_sudo() -> bool:
    if shutil.which("sudo") is None:
        return False
    done = subprocess.run(
        ["sudo", "-n", "true"], capture_output=True, stdin=subprocess.DEVNULL, timeout=20, check=False
    )
    return done.returncode == 0
