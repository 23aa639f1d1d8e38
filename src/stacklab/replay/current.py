"""What a lab is at now: its home, its session, and its cloud, opened for working on a session."""

from __future__ import annotations

from collections.abc import Callable

from stacklab.cloud.access import CloudAccess
from stacklab.cloud.connection import Connection
from stacklab.course.load import CLOUDS, Variables, load_session
from stacklab.course.session import Session
from stacklab.errors import NoLab, NotRunning, UnknownName
from stacklab.homes import open_home
from stacklab.homes.base import Home
from stacklab.kinds.context import Workspace
from stacklab.lab import Lab
from stacklab.replay.assets import Assets
from stacklab.replay.journal import Journal
from stacklab.replay.trust import require_trusted


def home_of(lab: Lab) -> Home:
    """The home that `lab up` chose for this lab. Raises NoLab."""
    lab.require()
    name = lab.record.home
    if not name:
        raise NoLab(f"lab '{lab.name}' was never brought up", advice="lab up session4 does it")
    return open_home(str(name), lab)


def open_workspace(lab: Lab, session: Session, say: Callable[[str], None]) -> Workspace:
    """Raises NoLab, NotTrusted, NotRunning (also in the middle of a reset that was interrupted)."""
    home = home_of(lab)
    if interrupted := interruption(lab):
        raise interrupted
    return workspace_at(home, lab, session, say)


def interruption(lab: Lab) -> NotRunning | None:
    """What to say as long as a reset or a goto that was cut short has not been ended."""
    if not lab.record.restoring:
        return None
    if other := lab.other_writer():
        return NotRunning(f"a lab reset or goto (process {other}) is under way", advice="wait for it")
    return NotRunning(
        "a lab reset or goto was interrupted: what is there is half one thing and half another",
        advice="lab reset, or lab up, ends it",
    )


def workspace_at(
    home: Home,
    lab: Lab,
    session: Session,
    say: Callable[[str], None],
    access: CloudAccess | None = None,
) -> Workspace:
    """A session at the cloud of a home; `access`: another way into it. The users connect when they are first needed.

    Raises NotTrusted: whatever runs a session's steps comes by here.
    """
    require_trusted(lab, session)
    access = access or home.access()
    admin, learner = Connection(access.clouds_file, access.admin), Connection(access.clouds_file, access.learner)
    return Workspace(
        session, access, admin, learner, Assets(lab).by_name(), lab.secret, say, home.site, lambda: home.status().services,
        home.faults, home.https, lab.name,
    )  # fmt: skip


def journal_of(lab: Lab) -> Journal:
    """The lab's journal."""
    return Journal(lab.journal_file)


def session_of(lab: Lab, name: str | None) -> Session:
    """The named session, else the one that the lab was last brought up for. Raises NoLab, UnknownName."""
    chosen = name or lab.record.session
    if not chosen:
        raise NoLab("no session is named, and none was brought up before", advice="lab list shows the sessions")
    try:
        return load_session(str(chosen), variables=clouds_variables(lab), also=lab.labs)
    except UnknownName as error:
        if name is None:
            error.message = f"the session '{chosen}', which this lab is at, is not there any more"
            error.advice = "lab reset SESSION goes to another one; lab list shows them"
        raise


def clouds_variables(lab: Lab) -> Variables:
    """What sessions say of the lab's cloud where it is not what they take for granted (`stacklab.course.load.CLOUDS`)."""
    return {name: value for name in CLOUDS if (value := getattr(lab.record, name))}


def begin_session(lab: Lab, session: Session) -> None:
    """From now on it is the lab's session, also for commands that do not say where it lies."""
    labs = str(session.file.parent.parent) if session.foreign else None
    lab.update(session=session.name, labs=labs, services=session.services)
