"""Back to a session's start where there is no checkpoint to go back to: what is there is removed, thing by thing.

What the lab's replay made goes by its journal. What the learner made besides goes by openstacksdk's own `project_cleanup`,
which takes whatever the services list for a project. It is run by a user made for it, who has the role `member` on the
learner's project and nothing else: some of its lists (routers) are not limited to the project for somebody who is an
administrator anywhere. It leaves the project's group "default", key pairs (they are the user's), flavors, and what is shared
with the project by others.
"""

from __future__ import annotations

import logging
import queue
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stacklab.cloud.access import LEARNER
from stacklab.cloud.connection import Connection, answered
from stacklab.errors import CloudRefused, StepFailed, UndoIncomplete
from stacklab.homes.base import Home
from stacklab.lab import Lab
from stacklab.machines import scratch
from stacklab.replay.current import journal_of, workspace_at
from stacklab.replay.progress import ProgressFile
from stacklab.replay.undo import recorded_session, session_to_undo, undo
from stacklab.stages import Progress

if TYPE_CHECKING:
    from openstack.connection import Connection as Sdk

DOMAIN = "default"
CLEANER = "stacklab-reset"
PURPOSE = "made by lab reset, to clear the learner's project; gone when that is done"
IDENTITY = ("project", "user", "role")
"""Kinds whose steps are undone last: without them nobody can look into the project."""
ROUNDS = 5
PAUSE = 3.0
"""Seconds between two rounds: a volume is let go some time after its server is gone."""
KEYPAIRS_OF_OTHERS = "2.10"
"""The version of Nova's API since which an administrator may name the user (docs.openstack.org/api-ref/compute)."""


def what_goes(lab: Lab, home: Home) -> list[str]:
    """What `clear` would remove, in words. Raises NotRunning, CloudUnreachable."""
    access = home.access()
    admin = Connection(access.clouds_file, access.admin)
    going = [
        f"{name}/{entry.step}: {entry.kind} {(entry.kept or {}).get('name', '')}".rstrip() + ", made by the lab"
        for name in journal_of(lab).sessions()
        for entry in reversed(journal_of(lab).entries(name).values())
    ]
    project = _find(admin, "projects", LEARNER["learner_project"])
    if project:
        with _cleaner(admin, project) as connection:
            going += [
                f"{thing} in project {LEARNER['learner_project']}" for thing in _clean(connection, project, dry=True)
            ]
    return going + [f"key pair {name} of user {LEARNER['learner']}" for name in _key_pairs(admin)[1]]


def clear(lab: Lab, home: Home, progress: Progress) -> None:
    """Remove it. Whatever interrupts it, the same call goes on. The caller holds the lab's lock.

    Raises UndoIncomplete (what is left, and what the services say of it), CloudUnreachable.
    """
    access = home.access()
    admin = Connection(access.clouds_file, access.admin)
    progress("undoing what the lab's replay made")
    _undo_all(lab, home, progress, last=False)
    project = _find(admin, "projects", LEARNER["learner_project"])
    if project:
        with _cleaner(admin, project) as connection:
            _clean_up(connection, project, progress)
    user, names = _key_pairs(admin)
    for name in names:
        progress(f"key pair {name}")
        admin.delete("compute", "os-keypairs", name, version=KEYPAIRS_OF_OTHERS, user_id=str(user))
    _undo_all(lab, home, progress, last=True)
    site = home.site()
    progress("ending what steps left running, emptying their directory")
    scratch.clear(site.machine, site.scratch, user=None if site.why_not_root else "root")
    journal_of(lab).clear()
    ProgressFile(lab).forget()
    home.prove(progress)


# --- what the lab made ---------------------------------------------------------------------------------------------


def _undo_all(lab: Lab, home: Home, progress: Progress, *, last: bool) -> None:
    """By the journal, the session worked on last first. Before the `last` time, what cannot go yet may stay."""
    journal = journal_of(lab)
    for name in reversed(journal.sessions()):
        workspace = workspace_at(home, lab, replace(session_to_undo(lab, name), agreed=True), progress)
        recorded = recorded_session(journal, name).steps()
        steps = [step for step in recorded if last or step.kind.name not in IDENTITY]
        try:
            undo(workspace, journal, steps, lambda step, detail: progress(f"{step.exercise}/{step.id}: {detail}"))
        except (UndoIncomplete, CloudRefused, StepFailed) as error:
            if last:
                raise
            progress(f"not yet: {error.message}")


# --- what the learner made -----------------------------------------------------------------------------------------


def _clean_up(connection: Sdk, project: str, progress: Progress) -> None:
    complaints: list[str] = []
    for number in range(ROUNDS):
        left = _clean(connection, project, dry=True)
        if not left:
            return
        if number:
            time.sleep(PAUSE)
        progress(f"removing {', '.join(left)}")
        _clean(connection, project, dry=False, complain=complaints.append)
    left = _clean(connection, project, dry=True)
    if left:
        complaint = f": {complaints[-1]}" if complaints else ""
        raise UndoIncomplete(
            f"in project {LEARNER['learner_project']} is left: {', '.join(left)}{complaint}",
            advice="remove it, or unlock what is protected, then run lab reset again",
        )


def _clean(
    connection: Sdk, project: str, *, dry: bool, complain: Callable[[str], None] = lambda text: None
) -> list[str]:
    """One run of project_cleanup; the things that it met, in words."""
    met: queue.Queue[Any] = queue.Queue()
    with answered(), _heard(complain):
        connection.project_cleanup(
            dry_run=dry, status_queue=met, resource_evaluation_fn=lambda thing, filters, others: _is_of(thing, project)
        )
    things: dict[str, None] = {}
    while not met.empty():
        thing = met.get()
        things[f"{_kind(thing)} {getattr(thing, 'name', '') or thing.id}"] = None
    return list(things)


def _is_of(thing: Any, project: str) -> bool:
    """Whether it says that it belongs to the project, or does not say whose it is (an object in the project's account)."""
    owners = [getattr(thing, key, None) for key in ("project_id", "owner_id", "owner", "tenant_id")]
    return all(owner == project for owner in owners if owner)


def _kind(thing: Any) -> str:
    """`FloatingIP` → floating ip."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(thing).__name__).lower()


@contextmanager
def _heard(complain: Callable[[str], None]) -> Iterator[None]:
    """openstacksdk logs what it cannot remove, and goes on."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complain(record.getMessage())

    logger, listener = logging.getLogger("openstack"), Listener(logging.ERROR)
    propagates = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = propagates
        logger.removeHandler(listener)


@contextmanager
def _cleaner(admin: Connection, project: str) -> Iterator[Sdk]:
    """Somebody who may do in the learner's project what its members may, and nothing anywhere else."""
    _remove_cleaner(admin)
    password = secrets.token_urlsafe(24)
    user = {"name": CLEANER, "domain_id": DOMAIN, "description": PURPOSE, "password": password, "enabled": True}
    made = admin.post("identity", "users", body={"user": user})["user"]["id"]
    try:
        roles = admin.get("identity", "roles", name="member")["roles"]
        if not roles:
            raise CloudRefused("there is no role 'member'", advice="openstack role list shows what there is")
        admin.put("identity", "projects", project, "users", made, "roles", roles[0]["id"], body=None)
        with answered():
            connection = admin.sdk.connect_as(
                username=CLEANER, password=password, user_domain_id=DOMAIN, project_id=project, project_domain_id=DOMAIN
            )
        try:
            yield connection
        finally:
            connection.close()
    finally:
        admin.delete("identity", "users", made)


def _remove_cleaner(admin: Connection) -> None:
    """One that a killed run left."""
    for user in admin.get("identity", "users", name=CLEANER, domain_id=DOMAIN)["users"]:
        if user.get("description") == PURPOSE:
            admin.delete("identity", "users", user["id"])


def _key_pairs(admin: Connection) -> tuple[str | None, list[str]]:
    """The learner's user id, and the names of the key pairs; nobody else lists them."""
    user = _find(admin, "users", LEARNER["learner"])
    if user is None:
        return None, []
    rows = admin.get("compute", "os-keypairs", version=KEYPAIRS_OF_OTHERS, user_id=user)["keypairs"]
    return user, [str(pair["keypair"]["name"]) for pair in rows]


def _find(admin: Connection, what: str, name: str) -> str | None:
    """The id of a user or a project of the default domain."""
    rows = admin.get("identity", what, name=name, domain_id=DOMAIN)[what]
    return str(rows[0]["id"]) if rows else None
