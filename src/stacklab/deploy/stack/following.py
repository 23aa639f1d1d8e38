"""Following a run of stack.sh or packstack: its log → its phase and what goes on; and coming back to it.

What was read is kept in the lab's directory (`deploy/stack.log`, 0600; DevStack prints passwords, which are asterisks here),
and its length is the place to go on from. So a `lab` that was killed loses nothing and repeats nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.stack.detached import Program, StackRun, called, log_of, state
from stacklab.deploy.stack.failures import diagnose
from stacklab.deploy.stack.log import Line, parse
from stacklab.durations import seconds as spoken
from stacklab.errors import LabBusy, MachineUnreachable, StackFailed
from stacklab.files import disk_error, lock_holder, locked, read_derivable, write_json
from stacklab.lab import Lab
from stacklab.stages import Progress
from stacklab.waiting import NotYet, until

T = TypeVar("T")

CHUNK = 1 << 20
POLL = 0.5
"""Seconds between two looks at the log."""
TELL = 5.0
"""Seconds after which the last line is told, beside every new phase."""
SILENT = 180.0
"""Seconds without a new line, after which that is told."""
RECONNECT = 900.0
"""Seconds for which a lost connection is tried again."""
LEAST_DEADLINE = 3 * 3600.0
"""Seconds that a run may take at least; else three times what it usually takes."""
LOOK = 5.0
"""Seconds after which the machine is asked whether the program still runs; in between only its log is read."""
FIRST_PHASE = "Getting ready"
"""What stack.sh does before it names a phase: checks, repositories of the distribution, the requirements."""
DETAIL = 110
"""How many characters of a log line are shown."""


class LogCopy:
    """The lab's copy of a run's log, and which run it is of."""

    def __init__(self, lab: Lab, program: Program, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        directory = lab.directory / "deploy"
        self.log = directory / f"{program}.log"
        self._note = directory / f"{program}.json"
        self.lock = directory / "following.lock"

    def begin(self, run: str) -> None:
        """Start a copy of this run's log, unless there is one. The log of the run before stays beside it."""
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if read_derivable(self._note).get("run") == run and self.log.exists():
            return
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".previous.log"))
        os.close(os.open(self.log, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        write_json(self._note, {"run": run})

    @property
    def offset(self) -> int:
        """How many bytes of the machine's log are here."""
        return self.log.stat().st_size

    def add(self, lines: bytes) -> None:
        """Append whole lines, without the secrets. Raises NotEnoughSpace."""
        try:
            with self.log.open("ab") as file:
                file.write(starred(lines, self._secrets))
        except OSError as error:
            raise disk_error(error, self.log) from error

    def text(self) -> str:
        """The whole log."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def starred(lines: bytes, secrets: Sequence[str]) -> bytes:
    """`lines` with asterisks for secrets, as long as before: a copy's length says how much of a log was read."""
    for secret in sorted(map(str.encode, filter(None, secrets)), key=len, reverse=True):  # one may be a part of another
        lines = lines.replace(secret, b"*" * len(secret))
    return lines


@dataclass
class StackProgress:
    """Where a run is, by its log."""

    phases: list[str] = field(default_factory=lambda: [FIRST_PHASE])
    last: Line = field(default_factory=lambda: Line(""))

    def feed(self, lines: bytes) -> None:
        """More whole lines of the log."""
        for raw in lines.decode("utf-8", errors="replace").split("\n"):
            line = parse(raw)
            if line.text.strip():
                self.last = line
            if line.phase and line.phase != self.phases[-1]:
                self.phases.append(line.phase)


def usual_seconds(deployment: Deployment) -> float:
    """How long it took here last time; else what the profile says."""
    return deployment.lab.usual_seconds("stack") or deployment.profile.usual_minutes * 60.0


def follow(deployment: Deployment, progress: Progress) -> str:
    """Follow what makes the cloud until it ends; one line on a good end.

    Raises StackFailed with the diagnosis, and what `watch` raises.
    """
    return judge(deployment, watch(deployment, progress, deployment.profile.program))


def watch(deployment: Deployment, progress: Progress, program: Program = "stack") -> StackRun:
    """Follow the run that is under way (or fetch the rest of one that ended) until it ends, and tell how it ended.

    Takes up the log where the last follower of this lab left it. Raises StackFailed when the deadline has passed (the run
    goes on), MachineUnreachable when the connection could not be made again, LabBusy when another `lab` follows it;
    KeyboardInterrupt, whose text tells how to come back.
    """
    copy = LogCopy(deployment.lab, program, deployment.secrets)
    with locked(copy.lock, wait=False) as mine:
        if not mine:
            raise LabBusy(
                f"another lab command (process {lock_holder(copy.lock)}) follows {called(program)} already",
                advice=f"wait for it, or end it: {called(program)} goes on without it",
            )
        try:
            return _Follower(deployment, copy, progress, program).follow()
        except KeyboardInterrupt:
            deployment.machine.close()
            name, back = deployment.machine.name, come_back(deployment)
            raise KeyboardInterrupt(
                f"{called(program)}, where it runs on {name}, goes on; come back with: {back}"
            ) from None


def judge(deployment: Deployment, ended: StackRun) -> str:
    """One line on a run that ended well; else StackFailed, with what failed, why, and what to do."""
    program, took, name = called(ended.program), spoken(ended.seconds), deployment.machine.name
    if ended.state == "done":
        return f"{program} took {took}"
    if ended.state == "absent":
        raise StackFailed(f"{program} was never run on {name}", advice="lab up runs it")
    copy, reached = LogCopy(deployment.lab, ended.program, deployment.secrets), StackProgress()
    reached.feed(copy.log.read_bytes())
    if ended.state == "vanished":
        again = "" if ended.program == "packstack" else ": it runs unstack.sh where that is needed, then stack.sh"
        last = deployment.masked(" ".join(reached.last.shown.split()))
        raise StackFailed(
            f"{program} on {name} ended without an exit status: {ended.why_vanished}; it was in '{reached.phases[-1]}', "
            f"and its last line was: {last}",
            advice=f"lab up again{again}; the log: {copy.log}",
        )
    diagnosis = diagnose(copy.text(), "packstack" if ended.program == "packstack" else "stack")
    where = f" ({diagnosis.line})" if diagnosis.line else ""
    failed = f"{program} failed with exit status {ended.exit_status} after {took}, in '{reached.phases[-1]}'"
    raise StackFailed(
        deployment.masked(f"{failed}: {diagnosis.command}{where}. Likely cause: {diagnosis.cause}"),
        advice=f"{diagnosis.advice}; the log: {copy.log}",
    )


def come_back(deployment: Deployment) -> str:
    """The commands that follow the run again."""
    which = "" if deployment.lab.name == "intro" else f" --lab {deployment.lab.name}"
    return f"lab{which} attach (or the same lab{which} up again)"


class _Follower:
    def __init__(self, deployment: Deployment, copy: LogCopy, progress: Progress, program: Program) -> None:
        self.deployment, self.machine, self.program = deployment, deployment.machine, program
        self.copy, self.progress = copy, progress
        self.usual = usual_seconds(deployment)
        self.reached = StackProgress()
        self.last_told, self.told_phase = 0.0, ""

    def follow(self) -> StackRun:
        now = self._patiently(lambda: state(self.machine, self.program))
        if now.state == "absent":
            return now
        self.copy.begin(now.run)
        self.reached.feed(self.copy.log.read_bytes())
        looked = heard = time.monotonic()
        while True:
            if self._fetch(to_the_end=now.state != "running"):
                heard = time.monotonic()
            if now.state != "running":
                return now
            if min(heard, looked) < time.monotonic() - LOOK:
                now, looked = self._patiently(lambda: state(self.machine, self.program)), time.monotonic()
                if now.state != "running":
                    continue
            took = now.seconds + (time.monotonic() - looked)
            self._check_deadline(took)
            self._tell(took, time.monotonic() - heard)
            time.sleep(POLL)

    def _fetch(self, *, to_the_end: bool) -> bool:
        """Take over what is new in the log, whole lines of it; whether there was anything.

        A short read ends it: a program that always has something more to say would keep us from telling anything.
        """
        log, fetched = log_of(self.program), False
        while True:
            data = self._patiently(lambda: self.machine.read(log, offset=self.copy.offset, limit=CHUNK)) or b""
            is_last = len(data) < CHUNK
            # A secret stands on one line, so no part of one is taken over without the rest.
            lines = data[: data.rfind(b"\n") + 1]
            if (is_last and to_the_end) or (not is_last and not lines):
                lines = data
            if lines:
                self.copy.add(lines)
                self.reached.feed(lines)
                fetched = True
            if is_last:
                return fetched

    def _patiently(self, ask: Callable[[], T]) -> T:
        """The answer; a lost connection is tried again for as long as is reasonable, and said."""

        def look() -> tuple[T] | NotYet:
            try:
                return (ask(),)
            except MachineUnreachable as error:
                return NotYet(f"{error.message}; {called(self.program)} goes on there")

        return until(
            look,
            f"the lost connection to {self.machine.name}",
            seconds=RECONNECT,
            progress=self.progress,
            advice=f"when the machine can be reached again: {come_back(self.deployment)}",
            error=MachineUnreachable,
        )[0]

    def _tell(self, took: float, silent: float) -> None:
        # On a terminal the clock runs by itself; elsewhere each of these is a line, and of silence once a minute is enough.
        phase, now = self.reached.phases[-1], time.monotonic()
        is_silent = silent >= SILENT
        again = min(60.0, SILENT) if is_silent else TELL
        if now - self.last_told < again and (is_silent or phase == self.told_phase):
            return
        self.last_told, self.told_phase = now, phase
        if is_silent:
            self.progress(f"{phase} · nothing new for {spoken(silent)}; the last line was: {self._last_line()}")
        else:
            self.progress(f"{phase} · {spoken(took)}, usually {spoken(self.usual)} in all · {self._last_line()}")

    def _last_line(self) -> str:
        text = self.deployment.masked(" ".join(self.reached.last.shown.split()))
        return text if len(text) <= DETAIL else text[: DETAIL - 1] + "…"

    def _check_deadline(self, took: float) -> None:
        if took > max(LEAST_DEADLINE, 3 * self.usual):
            raise StackFailed(
                f"{called(self.program)} runs for {spoken(took)} now (usually {spoken(self.usual)}) and is in "
                f"'{self.reached.phases[-1]}'; its last line was: {self._last_line()}",
                advice=f"it still runs: {come_back(self.deployment)} follows it, "
                f"systemctl stop lab-{self.program} on {self.machine.name} ends it; the log: {self.copy.log}",
            )
