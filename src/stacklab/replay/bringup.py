"""`lab up`, `lab reset`, `lab down`, `lab destroy`: what they do, apart from how it is shown."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from stacklab import places
from stacklab.course.session import Session
from stacklab.errors import BrokenOnPurpose, LabDamaged, LabError
from stacklab.events import Emit, Note
from stacklab.files import precious_exists
from stacklab.homes import HOMES, best_home, check_plan, open_home
from stacklab.homes.base import Home
from stacklab.homes.plan import Plan
from stacklab.lab import Lab, all_labs
from stacklab.machines.address import Address
from stacklab.removal import purge as purge_directories
from stacklab.replay.assets import Assets
from stacklab.replay.breaking import broken_faults, in_words, repair_all
from stacklab.replay.current import begin_session, home_of, journal_of
from stacklab.replay.moving import go_back, going_back_stage
from stacklab.stages import Progress, Stage, run_stages


def bring_up(lab: Lab, session: Session, wanted: Plan, image: str | None, emit: Emit) -> Home:
    """Bring the lab to a running cloud at the start of a session; a second call on a running lab changes nothing.

    Raises LabBusy, HomeUnavailable (the lab lives elsewhere already), BrokenOnPurpose, and whatever a stage raises.
    """
    with lab.writing(new=True):
        if lab.remains():
            lab.require()
        journal_of(lab).repair()
        plan = _settle(lab, wanted, emit)
        plan.keep(lab)
        begin_session(lab, session)
        home = home_of(lab)
        _leave_broken(lab, home)
        left = [going_back_stage(lab, home)] if lab.record.restoring else []
        try:
            # An image that cannot be used is said before minutes are spent on the rest.
            run_stages(lab, chain(Assets(lab).stages(image), _repairing(lab, home), left), emit)
        finally:
            replace(plan, used=None).keep(lab)  # consent to a used machine is for this run
        return home


def _leave_broken(lab: Lab, home: Home) -> None:
    """A running cloud in which something is broken on purpose is left as it is: to repair it is the learner's turn."""
    broken = broken_faults(lab)
    if broken and not lab.record.restoring and home.status().state in ("running", "degraded"):
        raise BrokenOnPurpose(
            f"the cloud runs, but this is broken on purpose: {in_words(broken)}; nothing was started or repaired",
            advice="lab hint walks the trail to the cause, lab fix repairs it, lab reset takes everything back",
        )


def _repairing(lab: Lab, home: Home) -> Iterator[Stage]:
    """The home's stages. A cloud that has to be started is started whole: what was broken on purpose is repaired, aloud.

    Some of it can be repaired before the services run, and the rest only then.
    """

    def clear(progress: Progress, *, last: bool) -> str:
        what = in_words(broken_faults(lab))
        repair_all(lab, home, progress, strict=last)
        left = in_words(broken_faults(lab))
        return f"{what}; lab break breaks it again" + (f" (still to come: {left})" if left else "")

    for stage in home.stages():
        if stage.name in ("services", "ready") and broken_faults(lab):
            run = partial(clear, last=stage.name == "ready")
            title = "repairing what was broken on purpose"
            yield Stage(f"faults-before-{stage.name}", title, lambda: None, run, 5)
        yield stage


def _settle(lab: Lab, wanted: Plan, emit: Emit) -> Plan:
    """What was planned before, with what is wanted now; the best home of this machine where nobody named one."""
    if wanted.address:
        Address.parse(wanted.address)  # a wrong one is said before anything is compared or kept
    planned = replace(Plan.of(lab), used=None)
    # As long as nothing was made, a mistaken word of an earlier lab up binds nobody.
    plan = planned.agreed(lab, wanted) if _something_made(lab) else planned.replaced(wanted)
    if not plan.home:
        name, reason = best_home()
        emit(Note(f"home: {name} ({reason})"))
        plan = replace(plan, home=name)
    check_plan(plan)
    return plan


def _something_made(lab: Lab) -> bool:
    """Whether an earlier `lab up` has got as far as making the cloud, or touching the machine that it shall be on."""
    if lab.record.home == "ssh":
        return lab.record.machine is not None
    return lab.home_directory.is_dir() and any(lab.home_directory.iterdir())


def reset(lab: Lab, progress: Progress, session: Session | None = None) -> None:
    """Cloud and files back to the start of the lab's session, or of another one; the services keep running.

    Raises CheckpointMissing, NotRunning, UndoIncomplete.
    """
    with lab.writing():
        if session:
            begin_session(lab, session)
        home = home_of(lab)
        go_back(lab, home, home.checkpoints.start(), progress)


def stop(lab: Lab, progress: Progress) -> None:
    """Stop the cloud; what the learner made stays."""
    with lab.writing():
        home_of(lab).down(progress)


def destroy(lab: Lab, progress: Progress) -> Iterator[str]:
    """Remove the lab and everything of it, yielding each thing removed; also one whose files are damaged."""
    with lab.writing(new=lab.remains()):
        home = _home_to_remove(lab)
        if home == "ssh":
            _leave_well(lab, progress)
        if home:
            yield from open_home(home, lab).destroy(progress)
        shutil.rmtree(lab.directory)
        yield f"{lab.directory} (keys, journal, progress)"


def _leave_well(lab: Lab, progress: Progress) -> None:
    """The machine stays, so what was broken on it is repaired; what cannot be is told, and keeps nobody from leaving."""
    try:
        repair_all(lab, home_of(lab), progress)
    except LabError as error:
        progress(f"what was broken on purpose is not repaired: {error.message}")


def _home_to_remove(lab: Lab) -> str | None:
    """As lab.json says; where that is gone or unreadable, as the files tell."""
    try:
        named = lab.record.home
    except LabDamaged:
        named = None
        lab.forget_record()
    if named:
        return str(named)
    if precious_exists(lab.home_directory / "vm.json"):
        return "libvirt"
    return "embedded" if lab.home_directory.is_dir() else None


def who_else(lab: Lab) -> list[str]:
    """Every other lab that needs what `purge` removes: by name, or by directory where that is not below our state directory."""
    names = {other.name for other in all_labs()} - {lab.name}
    for home in HOMES:
        directories = open_home(home, lab).others()
        names |= {path.name if path.parent == places.state_home() else str(path) for path in directories}
    return sorted(names)


def purge(lab: Lab) -> Iterator[str]:
    """Remove what labs share, when none is left to need it; yields each thing removed and the space that this freed."""
    directories: dict[Path, str] = {}
    for home in HOMES:
        directories |= open_home(home, lab).shares()
    directories[places.cache_home() / "images"] = "images for instances"
    directories[places.cache_home() / "prefetch"] = "what was prefetched"
    yield from purge_directories(directories)
    for parent in (places.data_home(), places.cache_home(), places.state_home()):
        with suppress(OSError):  # something else of ours is in there
            parent.rmdir()
