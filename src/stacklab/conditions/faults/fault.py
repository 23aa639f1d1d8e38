"""A fault of a machine: what all of them share, breaking and mending as lists of actions, and waiting for what comes of it."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from stacklab.cloud.connection import Connection
from stacklab.conditions.fault import Fault
from stacklab.conditions.faults.kept import Kept
from stacklab.conditions.finding import Finding
from stacklab.conditions.fixes.fix import ASK_EVERY, Action, Fix, sparing
from stacklab.conditions.fixes.repair import masked
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.profile.model import Breakable, Profile
from stacklab.deploy.stack.detached import unfinished
from stacklab.errors import CloudRefused, CloudUnreachable, CommandFailed, HomeUnavailable, NotRunning, ServiceFailed
from stacklab.machines.base import Machine
from stacklab.stages import Progress


@dataclass(frozen=True)
class Ground:
    """Where the faults of one lab happen. Nothing is asked before a fault needs it.

    `deployment`: the machine and its profile. `cloud`: opens the API as administrator; raises NotRunning, CloudUnreachable.
    """

    deployment: Callable[[], Deployment]
    cloud: Callable[[], Connection]


@dataclass(frozen=True)
class Repair:
    """A fix, applied as one action if it finds anything broken."""

    fix: Fix
    profile: Profile

    @property
    def text(self) -> str:
        return f"lab fixes apply {self.fix.id}"

    def run(self, machine: Machine) -> None:
        if self.fix.check(machine, self.profile).state == "broken":
            self.fix.apply(machine, self.profile, lambda _: None)


class MachineFault(Fault):
    """See `stacklab.conditions.fault.Fault`. All methods raise MachineUnreachable and its kin.

    What breaks and what mends is a list of actions: each is announced before it runs, and after a crash at any of them both
    lists can be made and run again. A subclass says what to do (`breaking`, `mending`) and how to see what came of it (`see`).
    """

    patience: float = 180
    """Seconds within which the symptoms, or the repair, must show."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    @cached_property
    def deployment(self) -> Deployment:
        """The machine and what was made of it."""
        return self.ground.deployment()

    @property
    def machine(self) -> Machine:
        """The lab's machine."""
        return self.deployment.machine

    @property
    def profile(self) -> Profile:
        """What this machine's release calls things."""
        return self.deployment.profile

    @property
    def breakable(self) -> Breakable:
        """What the profile says of faults."""
        return self.profile.faults

    @property
    def kept(self) -> Kept:
        """What this fault keeps on the machine for the way back."""
        return Kept(self.machine, self.id)

    def why_not(self) -> str | None:
        left = unfinished(self.machine, self.profile.program)
        return f"{left.said}; {left.todo}" if left else self.lacks()

    def lacks(self) -> str | None:
        """What this machine lacks for it, or None."""
        return None

    def look(self) -> Finding:
        return self._told(self.see)

    def _told(self, see: Callable[[], Finding]) -> Finding:
        try:
            found = see()
        except CommandFailed as error:
            last = (error.said or "").strip().splitlines()[-1:]
            found = Finding("unknown", ": ".join([f"cannot tell: {error.message}", *last]))
        except (CloudRefused, CloudUnreachable, NotRunning) as error:
            found = Finding("unknown", f"cannot tell: {error.message}")
        return replace(found, evidence=self._masked(found.evidence))

    def inflict(self, progress: Progress) -> None:
        if why := self.why_not():
            raise HomeUnavailable(f"the fault '{self.id}' cannot be had here: {why}", advice="lab faults lists others")
        self._do(self.breaking(), progress)
        self._wait("broken", "symptoms", self.shows, progress)

    def mend(self, progress: Progress) -> None:
        self._do(self.mending(), progress)
        self._wait("well", "repair", self.see, progress)
        self.kept.forget()

    def shows(self) -> Finding:
        """What `inflict` waits for to be broken: the cause may be there some time before anything comes of it."""
        return self.see()

    @abstractmethod
    def see(self) -> Finding:
        """What `look` does, except that a probe which cannot be made raises CommandFailed, CloudRefused, CloudUnreachable."""

    @abstractmethod
    def breaking(self) -> Sequence[Action]:
        """What breaks it, from whatever state it is in now. Keeps first what the way back needs. Raises CommandFailed."""

    @abstractmethod
    def mending(self) -> Sequence[Action]:
        """What puts it right, from whatever state it is in now; nothing where there is nothing to do. Raises CommandFailed."""

    def _do(self, actions: Iterable[Action], progress: Progress) -> None:
        for action in actions:
            progress(self._masked(action.text.splitlines()[0]))
            action.run(self.machine)

    def _wait(self, state: str, what: str, see: Callable[[], Finding], progress: Progress) -> None:
        said = sparing(progress)
        until = time.monotonic() + self.patience
        while True:
            found = self._told(see)
            if found.state == state or (state == "well" and found.fine):
                return
            if time.monotonic() > until:
                raise ServiceFailed(
                    f"fault '{self.id}': no {what} within {self.patience:.0f} s; {found.evidence}",
                    advice="lab status and lab logs SERVICE show more",
                )
            said(f"waiting for the {what} (up to {self.patience:.0f} s): {found.evidence.splitlines()[0]}")
            time.sleep(ASK_EVERY)

    def _masked(self, text: str) -> str:
        return masked(self.deployment.lab, text)
