"""Telling a step: why, the exact `openstack` commands, the REST requests as curl, the way through Horizon."""

from __future__ import annotations

import textwrap
from contextlib import suppress
from dataclasses import replace
from typing import Any

from stacklab.course.session import Session, Step
from stacklab.errors import CloudRefused, CloudUnreachable, NoLab, NotRunning, NotTrusted
from stacklab.kinds.context import Absent, Context, OfflineContext, Workspace
from stacklab.kinds.declaration import shouted
from stacklab.kinds.narration import Request
from stacklab.lab import Lab
from stacklab.replay.assets import PAPER, Assets
from stacklab.replay.current import open_workspace


def narrate(workspace: Workspace | None, offline: OfflineContext, step: Step) -> dict[str, Any]:
    """The step in words. With a workspace, ids and URLs are those of its cloud; offline they are shell variables."""
    if workspace:
        try:
            return _narrated(workspace.context(step), step, online=True)
        except (CloudRefused, CloudUnreachable, Absent):
            pass  # the one who acts cannot log in (yet): then it is narrated offline
    return _narrated(offline, step, online=False)


def _narrated(context: Context, step: Step, *, online: bool) -> dict[str, Any]:
    commands = step.kind.commands(context, step.params)
    requests = [_noting_its_id(step, request) for request in step.kind.requests(context, step.params)]

    def url(request: Request) -> str:
        """The service's URL, or the variable that stands for it offline."""
        return request.at or (context.user.endpoint(request.service) if online else f"${shouted(request.service)}")

    return {
        **named(step),
        "say": step.say,
        "commands": [command.text(context.user.name if online else f"lab-{step.who}") for command in commands],
        "requests": [request.text(url(request)) for request in requests],
        "horizon": step.kind.horizon(step.params),
        "more": step.kind.more(context, step.params),
    }


def _noting_its_id(step: Step, request: Request) -> Request:
    """A request that makes the step's thing also says where its id is: later steps' requests stand on `$NAME_ID`."""
    name, body = getattr(step.params, "name", None), request.body
    if request.saves or request.method != "POST" or not isinstance(body, dict) or len(body) != 1:
        return request
    ((key, made),) = body.items()
    if name is None or not isinstance(made, dict) or made.get("name") != name:
        return request
    return replace(request, saves={shouted(name, "id"): (key, "id")})


def named(step: Step) -> dict[str, str]:
    """The step in a list of steps."""
    about = {"id": step.id, "exercise": step.exercise, "kind": step.kind.name}
    return {**about, "as": step.who, "title": step.title}


def outline(session: Session) -> list[str]:
    """A session's exercises and steps, as lines."""
    lines = [f"{session.name}: {session.title}", "", *textwrap.wrap(session.summary, 100)]
    for exercise in session.exercises:
        lines += ["", f"{session.name}/{exercise.id}: {exercise.title}"]
        lines += [f"    {step.id.ljust(16)} {step.title}  (as {step.who})" for step in exercise.steps]
    if session.faults:
        lines += ["", f"to break on purpose, and repair: lab break {session.name}/NAME"]
        lines += [f"    {fault.id.ljust(16)} {fault.title}" for fault in session.faults]
    return [*lines, "", f"lab show {session.name}/{session.exercises[0].id} shows how each step is done."]


class Narrator:
    """Tells steps with the ids and URLs of the lab's cloud if it is up, else with shell variables."""

    def __init__(self, lab: Lab, session: Session) -> None:
        self._session = session
        # The lab's own files where it has them.
        self._assets = PAPER | (Assets(lab).by_name() if lab.record.image else {})
        self._workspace: Workspace | None = None
        with suppress(NoLab, NotRunning, NotTrusted):
            self._workspace = open_workspace(lab, session, lambda text: None)

    def _offline(self, step: Step) -> OfflineContext:
        return OfflineContext(self._session, step, self._assets, lambda name: "")

    def tell(self, step: Step) -> dict[str, Any]:
        """See `narrate`."""
        return narrate(self._workspace, self._offline(step), step)

    def look(self, step: Step) -> str:
        """The command to look at a step's thing with."""
        return step.kind.show_command(self._offline(step), step.params).text(f"lab-{step.who}")
