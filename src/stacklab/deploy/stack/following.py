"""Following a run of stack.sh or packstack: its log → its phase, what goes on, how long it still takes; and coming back to it.

What was read is kept in the lab's directory (`deploy/stack.log`, 0600; DevStack prints passwords, which are asterisks here),
and its length is the place to go on from. So a `lab` that was killed loses nothing and repeats nothing.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from stacklab import places
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.stack.detached import BASE, Program, StackRun, State, called, state
from stacklab.deploy.stack.failures import diagnose
from stacklab.deploy.stack.log import Line, parse
from stacklab.durations import seconds as spoken
from stacklab.errors import LabBusy, MachineUnreachable, StackFailed
from stacklab.files import disk_error, lock_holder, locked, read_derivable, write_json
from stacklab.lab import Lab
from stacklab.stages import Progress

T = TypeVar("T")

CHUNK = 1 << 20
LOOK = 5.0
"""Seconds after which the machine is asked whether the program still runs; in between only its log is read."""
FIRST_PHASE = "Getting ready"
"""What stack.sh does before it names a phase: checks, repositories of the distribution, the requirements."""
DETAIL = 110
"""How many characters of a log line are shown."""


@dataclass(frozen=True)
class Patience:
    """In seconds.

    `tell`: how often the last line is shown, beside every new phase; `silent`: without a new line for so long, it is said;
    `reconnect`: how long a lost connection is tried again; `least_deadline`: a run may take three times what it usually
    takes, but at least this.
    """

    poll: float = 1.0
    tell: float = 5.0
    silent: float = 180
    reconnect: float = 900
    least_deadline: float = 3 * 3600


class LogCopy:
    """The lab's copy of a run's log, and which run it is of."""

    def __init__(self, lab: Lab, program: Program, secrets: Sequence[str]) -> None:
        self._secrets = [secret.encode() for secret in secrets]
        self.directory = lab.directory / "deploy"
        self.log = self.directory / f"{program}.log"
        self._note = self.directory / f"{program}.json"
        self.lock = self.directory / "following.lock"

    def begin(self, run: str) -> None:
        """Start a copy of this run's log, unless there is one. The log of the run before stays beside it."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
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

    def add(self, data: bytes) -> None:
        """Append what was read, without the secrets. Raises NotEnoughSpace."""
        try:
            with self.log.open("r+b") as file:
                # A secret may have been cut in two between the last read and this one.
                begin = max(0, self.offset - max(map(len, self._secrets), default=1) + 1)
                file.seek(begin)
                data = starred(file.read() + data, self._secrets)
                file.seek(begin)
                file.write(data)
        except OSError as error:
            raise disk_error(error, self.log) from error

    def text(self) -> str:
        """The whole log."""
        return self.log.read_text(encoding="utf-8", errors="replace")


@dataclass
class StackProgress:
    """Where a run is: fed with its log, whole lines or not. Times are the machine's, from the log's own stamps."""

    started: float
    phases: list[tuple[str, float]] = field(default_factory=list)
    last: Line = field(default_factory=lambda: Line(""))
    _partial: bytes = b""

    def __post_init__(self) -> None:
        self.phases.append((FIRST_PHASE, self.started))

    def feed(self, data: bytes) -> None:
        """More of the log."""
        *whole, self._partial = (self._partial + data).split(b"\n")
        for raw in whole:
            line = parse(raw.decode("utf-8", errors="replace"))
            if not line.text.strip():
                continue
            self.last = line
            if line.phase and line.phase != self.phase:
                self.phases.append((line.phase, line.at if line.at is not None else self.phases[-1][1]))

    @property
    def phase(self) -> str:
        """The phase that stack.sh is in."""
        return self.phases[-1][0]

    def durations(self, ended: float) -> list[tuple[str, float]]:
        """Seconds by phase, in order."""
        ends = [at for _, at in self.phases[1:]] + [ended]
        return [(name, max(0.0, end - at)) for (name, at), end in zip(self.phases, ends, strict=True)]


class PhaseTimes:
    """How long a profile's phases took when it was last stacked to the end on any machine of this user."""

    def __init__(self, profile: str, usual_minutes: int) -> None:
        self._path = places.cache_home() / "stacking" / f"{profile}.json"
        known = read_derivable(self._path)
        self.measured: list[tuple[str, float]] = [(str(name), float(took)) for name, took in known.get("phases", [])]
        self.total = sum(took for _, took in self.measured) if self.measured else usual_minutes * 60.0

    def remember(self, durations: list[tuple[str, float]]) -> None:
        """A run that ended well."""
        write_json(self._path, {"phases": durations})

    def left(self, reached: StackProgress, now: float) -> float | None:
        """About how many seconds remain, None if it takes longer than ever before."""
        name, since = reached.phases[-1]
        indexes = [index for index, (known, _) in enumerate(self.measured) if known == name]
        if not indexes:
            remains = self.total - (now - reached.started)
            return remains if remains > 0 else None
        # Phases of the same name ("Starting Neutron") may come twice: the one that as many came before.
        times = [known for known, _ in reached.phases].count(name)
        index = indexes[min(times, len(indexes)) - 1]
        rest = sum(took for _, took in self.measured[index + 1 :])
        here = max(0.0, self.measured[index][1] - (now - since))
        return rest + here or None


def follow(deployment: Deployment, progress: Progress, *, patience: Patience | None = None) -> str:
    """Follow what makes the cloud until it ends; one line on a good end.

    Raises StackFailed with the diagnosis, and what `watch` raises.
    """
    return judge(deployment, watch(deployment, progress, deployment.profile.program, patience=patience))


def watch(
    deployment: Deployment, progress: Progress, program: Program = "stack", *, patience: Patience | None = None
) -> StackRun:
    """Follow the run that is under way (or fetch the rest of one that ended) until it ends, and tell how it ended.

    Takes up the log where the last follower of this lab left it. Raises StackFailed when the deadline has passed (the run
    goes on), MachineUnreachable when the connection could not be made again, LabBusy when another `lab` follows it;
    KeyboardInterrupt, whose text tells that the run goes on and how to come back.
    """
    copy = LogCopy(deployment.lab, program, deployment.secrets)
    with locked(copy.lock, wait=False) as mine:
        if not mine:
            raise LabBusy(
                f"another lab command (process {lock_holder(copy.lock)}) follows {called(program)} already",
                advice=f"wait for it, or end it: {called(program)} goes on without it",
            )
        follower = _Follower(deployment, copy, progress, program, patience or Patience())
        try:
            return follower.follow()
        except KeyboardInterrupt:
            deployment.machine.close()
            raise KeyboardInterrupt(follower.detached()) from None


def judge(deployment: Deployment, ended: StackRun) -> str:
    """One line on a run that ended well; else StackFailed, with what failed, why, and what to do."""
    program, took, name = called(ended.program), spoken(ended.seconds), deployment.machine.name
    if ended.state == "done":
        return f"{program} took {took}"
    if ended.state == "absent":
        raise StackFailed(f"{program} was never run on {name}", advice="lab up runs it")
    copy = LogCopy(deployment.lab, ended.program, deployment.secrets)
    reached = StackProgress(ended.started or 0.0)
    reached.feed(copy.log.read_bytes())
    if ended.state == "vanished":
        why = "the machine was restarted while it ran" if ended.rebooted else "its unit was ended from outside"
        again = "" if ended.program == "packstack" else ": it runs unstack.sh where that is needed, then stack.sh"
        last = deployment.masked(" ".join(reached.last.shown.split()))
        raise StackFailed(
            f"{program} on {name} ended without an exit status: {why}; it was in '{reached.phase}', "
            f"and its last line was: {last}",
            advice=f"lab up again{again}; the log: {copy.log}",
        )
    diagnosis = diagnose(copy.text(), "packstack" if ended.program == "packstack" else "stack")
    where = f" ({diagnosis.line})" if diagnosis.line else ""
    failed = f"{program} failed with exit status {ended.exit_status} after {took}, in '{reached.phase}'"
    raise StackFailed(
        deployment.masked(f"{failed}: {diagnosis.command}{where}. Likely cause: {diagnosis.cause}"),
        advice=f"{diagnosis.advice}; the log: {copy.log}",
    )


def starred(data: bytes, secrets: list[bytes]) -> bytes:
    """`data` with asterisks for secrets, as long as before: a copy's length says how much of a log was read.

    An asterisk stands for any byte: where a log was cut within a secret, the beginning may be hidden already, for it was
    another one.
    """
    for secret in sorted(secrets, key=len, reverse=True):  # one may be a part of another
        pattern = b"".join(b"[*%b]" % re.escape(bytes([byte])) for byte in secret)
        data = re.sub(pattern, b"*" * len(secret), data)
    return data


def come_back(deployment: Deployment) -> str:
    """The commands that follow the run again."""
    which = "" if deployment.lab.name == "intro" else f" --lab {deployment.lab.name}"
    return f"lab{which} attach (or the same lab{which} up again)"


class _Follower:
    def __init__(
        self, deployment: Deployment, copy: LogCopy, progress: Progress, program: Program, patience: Patience
    ) -> None:
        self.deployment, self.machine, self.program = deployment, deployment.machine, program
        self.called = called(program)
        self.copy, self.progress, self.patience = copy, progress, patience
        self.usual = PhaseTimes(deployment.profile.name, deployment.profile.usual_minutes)
        self.reached = StackProgress(0.0)
        self.told = self.told_silence = 0.0
        self.told_phase = ""
        self.seen: State | Literal[""] = ""
        """How the program was at the last look at it."""

    def follow(self) -> StackRun:
        now = self._look()
        if now.state == "absent":
            return now
        self.copy.begin(now.run)
        self.reached = StackProgress(now.started or now.now)
        self.reached.feed(self.copy.log.read_bytes())
        run, looked, heard = now.run, time.monotonic(), time.monotonic()
        while True:
            if self._fetch():
                heard = time.monotonic()
            if now.state != "running":  # what was just fetched is the rest
                break
            if min(heard, looked) < time.monotonic() - LOOK:
                now, looked = self._look(), time.monotonic()
                if now.run != run:
                    raise StackFailed(
                        f"{self.called} on {self.machine.name} was started anew by somebody else",
                        advice=f"follow that run: {come_back(self.deployment)}",
                    )
                if now.state != "running":
                    continue
            at = now.now + (time.monotonic() - looked)
            self._check_deadline(at)
            self._tell(at, time.monotonic() - heard)
            time.sleep(self.patience.poll)
        if now.state == "done" and self.program != "unstack":
            self.usual.remember(self.reached.durations(now.ended or now.now))
        return now

    def detached(self) -> str:
        """What becomes of the run when nobody follows it any more."""
        name = self.machine.name
        if self.seen == "running":
            return f"{self.called} goes on on {name}; come back with: {come_back(self.deployment)}"
        if self.seen == "":
            return f"interrupted before it was known whether {self.called} runs on {name}; lab status tells"
        return f"interrupted; {self.called} does not run on {name}"

    def _look(self) -> StackRun:
        now = self._patiently(lambda: state(self.machine, self.program))
        self.seen = now.state
        return now

    def _fetch(self) -> int:
        """What is new in the log; how many bytes that was.

        A short read ends it: a program that always has something more to say would keep us from telling anything.
        """
        log, total = f"{BASE}/{self.program}/log", 0
        while True:
            data = self._patiently(partial(self.machine.read, log, offset=self.copy.offset, limit=CHUNK)) or b""
            if data:
                self.copy.add(data)
                self.reached.feed(data)
                total += len(data)
            if len(data) < CHUNK:
                return total

    def _patiently(self, ask: Callable[[], T]) -> T:
        """The answer; a lost connection is tried again for as long as is reasonable, and said."""
        began, pause = time.monotonic(), 1.0
        while True:
            try:
                return ask()
            except MachineUnreachable as error:
                gone = spoken(time.monotonic() - began)
                if time.monotonic() - began > self.patience.reconnect:
                    raise MachineUnreachable(
                        f"{error.message}; tried again for {gone}. {self.called} does not need the connection",
                        advice=f"when the machine can be reached again: {come_back(self.deployment)}",
                    ) from error
                self.progress(
                    f"the connection is lost ({error.message}); {self.called} goes on there; trying for {gone}"
                )
                time.sleep(pause)
                pause = min(15.0, pause * 2)

    def _tell(self, at: float, silent: float) -> None:
        reached, now = self.reached, time.monotonic()
        if silent >= self.patience.silent:
            # Once a minute is enough: without a terminal every message is a line.
            if now - self.told_silence >= min(60.0, self.patience.silent):
                self.told_silence = now
                self.progress(
                    f"{reached.phase} · nothing new for {spoken(silent)}; the last line was: {self._last_line()}"
                )
            return
        # On a terminal the clock runs by itself; elsewhere each of these is a line.
        if reached.phase == self.told_phase and now - self.told < self.patience.tell:
            return
        self.told, self.told_phase = now, reached.phase
        left = self.usual.left(reached, at)
        rest = f"about {spoken(left)} left" if left else f"longer than the usual {spoken(self.usual.total)}"
        self.progress(f"{reached.phase} · {spoken(at - reached.started)}, {rest} · {self._last_line()}")

    def _last_line(self) -> str:
        text = self.deployment.masked(" ".join(self.reached.last.shown.split()))
        return text if len(text) <= DETAIL else text[: DETAIL - 1] + "…"

    def _check_deadline(self, at: float) -> None:
        took = at - self.reached.started
        if took > max(self.patience.least_deadline, 3 * self.usual.total):
            raise StackFailed(
                f"{self.called} runs for {spoken(took)} now (usually {spoken(self.usual.total)}) and is in "
                f"'{self.reached.phase}'; its last line was: {self._last_line()}",
                advice=f"it still runs: {come_back(self.deployment)} follows it, "
                f"systemctl stop lab-{self.program} on {self.machine.name} ends it; the log: {self.copy.log}",
            )
