"""Telling a step: why, the exact `openstack` commands, the REST requests as curl, the way through Horizon."""

from __future__ import annotations

import textwrap
from typing import Any

from stacklab.course.session import Session, Step
from stacklab.errors import CloudRefused, CloudUnreachable
from stacklab.kinds.kind import Absent
from stacklab.kinds.narration import Command, Request
from stacklab.replay.context import Desk, Paper


def narrate(desk: Desk | None, paper: Paper, step: Step) -> dict[str, Any]:
    """The step in words. With a desk, ids and URLs are those of its cloud; on paper they are shell variables."""
    scene: Any = desk.scene(step) if desk else paper
    try:
        commands = step.kind.commands(scene, step.params)
        requests = step.kind.requests(scene, step.params)
        urls = [_base(desk, step, request) for request in requests]
        more = step.kind.more(scene, step.params)
    except (CloudRefused, CloudUnreachable, Absent):
        if desk is None:
            raise  # a kind that cannot be told on paper either
        # The one who acts cannot log in (yet): then the telling is on paper.
        return narrate(None, paper, step)
    return {
        **named(step),
        "say": step.say,
        "commands": [_as(desk, step, command) for command in commands],
        "requests": [request.text(url) for request, url in zip(requests, urls, strict=True)],
        "horizon": step.kind.horizon(step.params),
        "more": more,
    }


def named(step: Step) -> dict[str, str]:
    """The step in a list of steps."""
    return {
        "id": step.id,
        "exercise": step.exercise,
        "kind": step.kind.name,
        "as": step.who,
        "title": step.title,
    }


def _as(desk: Desk | None, step: Step, command: Command) -> str:
    """The command as the one who acts."""
    line = command.text()
    if command.program != "openstack":
        return line
    who = desk.scene(step).who.name if desk else f"lab-{step.who}"
    return line.replace("openstack ", f"openstack --os-cloud {who} ")


def _base(desk: Desk | None, step: Step, request: Request) -> str:
    """The service's URL, or the variable that stands for it on paper."""
    if request.at:
        return request.at
    if desk is None:
        return "$" + request.service.upper().replace("-", "_")
    return desk.scene(step).who.endpoint(request.service)


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
