"""`lab up`, `lab reset`, `lab down`, `lab destroy`: what they do, apart from how it is shown."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from stacklab.assets import Assets
from stacklab.course.session import Session
from stacklab.desk import home_of, journal_of
from stacklab.errors import HomeUnavailable
from stacklab.events import Emit, Note
from stacklab.homes import best_home, open_home
from stacklab.homes.base import Home
from stacklab.lab import Lab
from stacklab.progress import ProgressFile
from stacklab.stages import Progress, run_stages

START = "start"
"""The checkpoint that every `lab up` makes before the learner begins."""


def bring_up(lab: Lab, session: Session, home_name: str | None, image: str | None, emit: Emit) -> Home:
    """Bring the lab to a running cloud at the start of a session; a second call on a running lab changes nothing.

    Raises LabBusy, HomeUnavailable (the lab lives elsewhere already), and whatever a stage raises.
    """
    with lab.writing():
        home = _choose(lab, home_name, emit)
        lab.update(session=session.name, home=home.name)
        run_stages(lab, [*home.stages(), *Assets(lab).stages(image)], emit)
        return home


def _choose(lab: Lab, wanted: str | None, emit: Emit) -> Home:
    present = lab.record.get("home")
    if present and wanted and wanted != present:
        raise HomeUnavailable(
            f"lab '{lab.name}' lives on the home '{present}', not on '{wanted}'",
            advice=f"lab --lab OTHER-NAME up … makes a second lab; lab destroy gives '{lab.name}' up",
        )
    if present or wanted:
        return open_home(str(present or wanted), lab)
    name, reason = best_home()
    emit(Note(f"home: {name} ({reason})"))
    return open_home(name, lab)


def reset(lab: Lab, progress: Progress) -> None:
    """Cloud and files back to the session's start, while the services keep running. Raises CheckpointMissing, NotRunning."""
    with lab.writing():
        home_of(lab).restore(START, progress)
        journal_of(lab).clear()
        ProgressFile(lab).forget()


def stop(lab: Lab, progress: Progress) -> None:
    """Stop the cloud; what the learner made stays."""
    with lab.writing():
        home_of(lab).down(progress)


def destroy(lab: Lab, progress: Progress) -> Iterator[str]:
    """Remove the lab and everything of it, yielding each thing removed."""
    with lab.writing():
        if lab.record.get("home"):
            yield from home_of(lab).destroy(progress)
        shutil.rmtree(lab.directory)
        yield f"{lab.directory} (keys, journal, progress)"
