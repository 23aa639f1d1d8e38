"""Telling a step: why, the exact `openstack` commands, the REST requests as curl, the way through Horizon."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from typing import Any

from stacklab.course.session import Session, Step
from stacklab.errors import CloudRefused, CloudUnreachable, NoLab, NotRunning, NotTrusted
from stacklab.kinds.context import Absent, OfflineContext, Workspace
from stacklab.kinds.declaration import shouted
from stacklab.kinds.narration import Command, Request
from stacklab.lab import Lab
from stacklab.replay.assets import PAPER, Assets
from stacklab.replay.current import open_workspace


def narrate(workspace: Workspace | None, offline: OfflineContext, step: Step) -> dict[str, Any]:
    """The step in words. With a workspace, ids and URLs are those of its cloud; offline they are shell variables."""
    context: Any = workspace.context(step) if workspace else offline
    try:
        commands = step.kind.commands(context, step.params)
        requests = [_noting_its_id(step, request) for request in step.kind.requests(context, step.params)]
        urls = [_base(workspace, step, request) for request in requests]
        more = step.kind.more(context, step.params)
    except (CloudRefused, CloudUnreachable, Absent):
        if workspace is None:
            raise  # a kind that cannot be narrated offline either
        # The one who acts cannot log in (yet): then it is narrated offline.
        return narrate(None, offline, step)
    return {
        **named(step),
        "say": step.say,
        "commands": [_as(workspace, step, command) for command in commands],
        "requests": [request.text(url) for request, url in zip(requests, urls, strict=True)],
        "horizon": step.kind.horizon(step.params),
        "more": more,
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
    return {
        "id": step.id,
        "exercise": step.exercise,
        "kind": step.kind.name,
        "as": step.who,
        "title": step.title,
    }


def _as(workspace: Workspace | None, step: Step, command: Command) -> str:
    """The command as the one who acts."""
    return command.text(workspace.context(step).user.name if workspace else f"lab-{step.who}")


def _base(workspace: Workspace | None, step: Step, request: Request) -> str:
    """The service's URL, or the variable that stands for it offline."""
    if request.at:
        return request.at
    if workspace is None:
        return "$" + request.service.upper().replace("-", "_")
    return workspace.context(step).user.endpoint(request.service)


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
        self._lab = lab
        self._session = session
        self._workspace = self._open()

    def _open(self) -> Workspace | None:
        try:
            return open_workspace(self._lab, self._session, lambda text: None)
        except (NoLab, NotRunning, NotTrusted):
            return None

    def offline(self, step: Step) -> OfflineContext:
        """The step without a cloud, with the lab's own files where it has them."""
        assets = PAPER | (Assets(self._lab).by_name() if self._lab.record.image else {})
        return OfflineContext(self._session, step, assets, lambda name: "")

    def tell(self, step: Step) -> dict[str, Any]:
        """See `stacklab.replay.narrate`."""
        return narrate(self._workspace, self.offline(step), step)

    def look(self, step: Step) -> str:
        """The command to look at a step's thing with."""
        return step.kind.show_command(self.offline(step), step.params).text(f"lab-{step.who}")
