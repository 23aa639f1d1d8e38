"""What a lab's cloud has broken on purpose: recorded before anything is changed, forgotten when it is well again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from stacklab.conditions.condition import Fault
from stacklab.course.session import CloudSort, FaultCase, Session
from stacklab.errors import BrokenOnPurpose, LabDamaged, LabError, NotServed, ServiceFailed, UnknownName
from stacklab.files import read_precious, remove_precious, write_precious
from stacklab.homes.base import Home
from stacklab.lab import Lab
from stacklab.replay.current import home_of
from stacklab.stages import Progress
from stacklab.suggest import closest

FILE = "broken.json"


@dataclass(frozen=True)
class Broken:
    """A fault of a lab. `state`: whether breaking it was seen to its end. `breaks`: the home's name for it.

    `surprise`: chosen at random, so nobody is told which one it is. `clues`: how many of its trail were shown.
    """

    session: str
    fault: str
    breaks: str
    state: Literal["breaking", "broken"]
    surprise: bool = False
    clues: int = 0
    at: float = 0.0

    @property
    def address(self) -> str:
        """As `lab break` takes it."""
        return f"{self.session}/{self.fault}"


# broken.json of a lab. A writer holds the lab's lock, except for noting a clue or a repair that was seen.


def broken_faults(lab: Lab) -> list[Broken]:
    """What was broken on purpose and not seen well since, in the order in which it was. Asks nobody. Raises LabDamaged."""
    path = lab.directory / FILE
    try:
        return [Broken(**values) for values in read_precious(path) or []]
    except TypeError as error:
        raise LabDamaged(f"{path} cannot be read: {error}", advice="lab reset takes back whatever is broken") from error


def record(lab: Lab, entry: Broken) -> None:
    """Add it at the end, or replace what is known of it where that stands."""
    known = broken_faults(lab)
    names = [other.breaks for other in known]
    at = names.index(entry.breaks) if entry.breaks in names else len(known)
    _save(lab, [*known[:at], entry, *known[at + 1 :]])


def forget(lab: Lab, breaks: Iterable[str]) -> None:
    """Those of these names are well again."""
    gone = set(breaks)
    _save(lab, [entry for entry in broken_faults(lab) if entry.breaks not in gone])


def _save(lab: Lab, entries: list[Broken]) -> None:
    if entries:
        write_precious(lab.directory / FILE, [asdict(entry) for entry in entries])
    else:
        remove_precious(lab.directory / FILE)


def still_broken(home: Home, entries: Iterable[Broken]) -> list[Broken]:
    """Those that are not repaired yet."""
    faults = home.faults()
    return [entry for entry in entries if entry.breaks not in faults or not faults[entry.breaks].look().fine]


def in_words(broken: Iterable[Broken]) -> str:
    """What is broken on purpose, for a message; one that shall surprise has no name."""
    known = list(broken)
    names = [entry.address for entry in known if not entry.surprise]
    secret = sum(entry.surprise for entry in known)
    what = "something" if secret == 1 else f"{secret} things"
    return ", ".join([*names, *([f"{what} chosen at random"] if secret else [])])


def sort_of(home: Home) -> CloudSort:
    """Which of a session's clues are true of this home's cloud."""
    return "embedded" if home.name == "embedded" else "devstack"


def fault_of(home: Home, case: FaultCase) -> Fault:
    """The home's fault. Raises NotServed where it has none of this name, or cannot have it now."""
    fault = home.faults().get(case.breaks)
    if fault is None:
        raise NotServed(
            f"the home '{home.name}' knows no fault '{case.breaks}'", advice="lab faults shows what it can have"
        )
    why = fault.why_not()
    if why:
        raise NotServed(f"'{case.id}' cannot be broken here: {why}", advice="lab faults shows what can")
    return fault


# --- breaking ------------------------------------------------------------------------------------------------------


def inject(lab: Lab, session: Session, case: FaultCase, progress: Progress, *, surprise: bool = False) -> Broken:
    """Break it; returns when its symptoms show. What is going to be done is on disk before it is begun.

    Raises NoLab, NotRunning, NotServed, BrokenOnPurpose (it is broken already), ServiceFailed (it is not well to begin with).
    """
    with lab.writing():
        home = home_of(lab)
        home.access()  # raises NotRunning
        fault = fault_of(home, case)
        known = next((entry for entry in broken_faults(lab) if entry.breaks == case.breaks), None)
        if known and known.state == "breaking":
            progress("an earlier lab break was interrupted; repairing what it left")
            fault.clear(progress)
            forget(lab, [case.breaks])
        _must_be_well(fault, known)
        entry = Broken(session.name, case.id, case.breaks, "breaking", surprise, at=time.time())
        record(lab, entry)
        fault.inject(progress)
        entry = replace(entry, state="broken")
        record(lab, entry)
        return entry


def _must_be_well(fault: Fault, known: Broken | None) -> None:
    finding = fault.look()
    if finding.fine:
        return
    if known and known.state == "broken":
        what = "something that was broken at random" if known.surprise else known.address
        raise BrokenOnPurpose(
            f"{what} is broken already" + ("" if known.surprise else f": {finding.evidence}"),
            advice="lab hint walks the trail to the cause; lab fix repairs it",
        )
    if finding.state == "unknown":
        raise ServiceFailed(
            f"whether it is well now cannot be told: {finding.evidence}", advice="lab status shows what runs"
        )
    raise ServiceFailed(f"it is not well, and lab did not break it: {finding.evidence}", advice="lab status; lab reset")


# --- repairing -------------------------------------------------------------------------------------------------------


def repair(lab: Lab, chosen: Mapping[str, str], progress: Progress) -> None:
    """Repair the home's faults of these names (→ what messages call them), whatever the record says of them.

    Raises NoLab, NotRunning, UnknownName, and what a fault that cannot be repaired raises.
    """
    with lab.writing():
        home = home_of(lab)
        faults = home.faults()
        for name, called in chosen.items():
            if name not in faults:
                raise UnknownName(f"there is no fault '{name}' here", advice=closest(name, faults, "lab faults"))
            progress(f"repairing {called}")
            faults[name].clear(progress)
            forget(lab, [name])


def repair_all(lab: Lab, home: Home, progress: Progress, *, strict: bool = False) -> None:
    """Repair whatever is recorded as broken, also half-way, and forget it. The caller holds the lab's lock.

    What cannot be repaired now is told and stays recorded; `strict`: it is raised, after all others were repaired.
    """
    entries = broken_faults(lab)
    if not entries:
        return
    faults = home.faults()
    trouble: LabError | None = None
    for entry in entries:
        called = "what was broken at random" if entry.surprise else f"{entry.address}, broken on purpose"
        progress(f"repairing {called}")
        try:
            if entry.breaks in faults:
                faults[entry.breaks].clear(progress)
            forget(lab, [entry.breaks])
        except LabError as error:
            progress(f"{called}: not repaired: {error.message}")
            trouble = trouble or error
    if strict and trouble:
        raise trouble


def forget_all(lab: Lab) -> None:
    """The cloud has been put back to a checkpoint, in which nothing was broken."""
    broken_faults(lab)  # what cannot be read is said, not removed
    _save(lab, [])


def noticed(lab: Lab, session: Session, passed: Iterable[str]) -> None:
    """These steps of a session have passed: what they grade the repair of is well again, so forget that it was broken."""
    done = set(passed)
    well = {case.breaks for case in session.faults if case.step in done}
    gone = (
        [entry.breaks for entry in broken_faults(lab) if entry.breaks in well and entry.state == "broken"]
        if well
        else []
    )
    if gone:
        forget(lab, gone)


# --- the trail -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShownClue:
    """A clue as it is shown: its number (from 1) of how many, with the site's names in it. `last`: the trail ends here."""

    number: int
    of: int
    look: str
    shows: str
    means: str
    last: bool


def trail(home: Home, case: FaultCase) -> list[ShownClue]:
    """All clues of a fault on this home."""
    names = {f"${name.upper()}": value for name, value in home.site().names.items()}
    known = re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or r"(?!)")

    def fill(text: str) -> str:
        return known.sub(lambda match: names[match[0]], text)

    clues = case.clues(sort_of(home))
    last = len(clues)
    return [
        ShownClue(number, last, fill(clue.look), fill(clue.shows), fill(clue.means), number == last)
        for number, clue in enumerate(clues, 1)
    ]


def next_clue(lab: Lab, home: Home, case: FaultCase, entry: Broken) -> ShownClue | None:
    """The next clue; the last one again, once the trail was walked to its end. None where nobody has written one."""
    clues = trail(home, case)
    if not clues:
        return None
    clue = clues[min(entry.clues, len(clues) - 1)]
    if entry.clues != clue.number:
        record(lab, replace(entry, clues=clue.number))
    return clue
