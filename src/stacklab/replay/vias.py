"""Three ways to do a step: openstacksdk, the `openstack` client, plain REST. All three must leave the same result."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import requests

from stacklab.cloud import client
from stacklab.cloud.connection import answered, said_in
from stacklab.course.session import Step
from stacklab.errors import CloudRefused, CloudUnreachable, StepFailed
from stacklab.kinds.context import Absent, Context
from stacklab.kinds.narration import Command, Request, dig
from stacklab.kinds.stream import opened

UNTIL_SECONDS = 600
TIMEOUT = 60


def by_sdk(context: Context, step: Step) -> None:
    """Through openstacksdk. Raises CloudRefused, CloudUnreachable, StepFailed."""
    with answered():
        step.kind.create(context, step.params)


def by_cli(context: Context, step: Step) -> None:
    """Through the very commands that are narrated."""
    saved: dict[str, str] = {}
    commands = step.kind.commands(context, step.params)
    if not commands:  # nothing that the client could do: something on a machine
        by_sdk(context, step)
    for command in commands:
        if command.program != "openstack":
            # A guest that still boots refuses connections; waiting for it is the kind's business either way.
            by_sdk(context, step)
            return
        _known(command, saved)
        result = client.run(command, saved, context.user.clouds_file, context.user.name)
        if result.status != 0:
            raise CloudRefused(_complaint(result), status=_status(result.complaint))
        if command.saves:
            saved[command.saves] = _only_line(command, result.output)
        elif not step.kind.lasting(step.params):
            context.say(result.output.rstrip())


def by_rest(context: Context, step: Step) -> None:
    """Through the very requests that are shown as curl."""
    saved: dict[str, str] = {}
    sent = step.kind.requests(context, step.params)
    if not sent:  # nothing in OpenStack's API does it: a login is SSH in every way of doing it
        by_sdk(context, step)
    for request in sent:
        _known(request, saved)
        answer = _send(context, request, saved)
        for name, way in request.saves.items():
            try:
                saved[name] = str(dig(answer, way))
            except (KeyError, IndexError, TypeError) as error:
                raise StepFailed(
                    f"{request.method} {'/'.join(map(str, request.path))} answered without {way[-1]}"
                ) from error
        if not step.kind.lasting(step.params) and answer is not None:
            context.say(_outline(answer))


VIAS: dict[str, Callable[[Context, Step], None]] = {"sdk": by_sdk, "cli": by_cli, "rest": by_rest}


def _known(part: Command | Request, saved: dict[str, str]) -> None:
    """Raises Absent for something that the part refers to and that is not there."""
    if missing := part.wants() - set(saved):
        raise Absent(", ".join(sorted(missing)).lower().replace("_", "-"))


def _send(context: Context, request: Request, saved: dict[str, str]) -> Any:
    """Send one request; with `until`, again and again."""
    deadline = time.monotonic() + UNTIL_SECONDS
    while True:
        answer = _once(context, request, saved)
        if request.until is None:
            return answer
        way, wanted = request.until
        value = dig(answer, way)
        if value == wanted:
            return answer
        if str(value).lower() == "error" or time.monotonic() > deadline:
            raise StepFailed(f"{way[-1]} is {value}, not {wanted}", advice="lab logs shows what the services say")
        time.sleep(1)


def _once(context: Context, request: Request, saved: dict[str, str]) -> Any:
    url = request.url(request.at or context.user.endpoint(request.service), saved)
    headers = request.sent_headers(saved) | ({"X-Auth-Token": context.user.token} if request.token else {})
    asked: dict[str, Any] = {"headers": headers, "verify": context.user.verify}
    try:
        if request.upload:
            with opened(request.upload) as data:
                answer = requests.request(request.method, url, data=data, timeout=UNTIL_SECONDS, **asked)
        else:
            body = request.content(saved)
            answer = requests.request(request.method, url, json=body, timeout=TIMEOUT, **asked)
    except requests.RequestException as error:
        raise CloudUnreachable(f"{request.method} {url}: {error}", advice="lab status shows what runs") from error
    if answer.status_code >= 400:
        raise CloudRefused(said_in(answer), status=answer.status_code)
    return answer.json() if answer.content and "json" in answer.headers.get("Content-Type", "") else None


def _complaint(result: client.Result) -> str:
    lines = [line for line in result.complaint.splitlines() if line.strip()]
    return lines[-1] if lines else f"the client ended with status {result.status} and said nothing"


def _status(complaint: str) -> int | None:
    """The HTTP status that the client's message carries, if it does: in its own words, or in openstacksdk's."""
    if told := re.search(r"\b([45]\d\d): (?:Client|Server) Error\b", complaint):
        return int(told[1])
    words = complaint.replace("(", " ").replace(")", " ").replace(":", " ").split()
    return next((int(after) for word, after in pairwise(words) if word == "HTTP" and after.isdigit()), None)


def _only_line(command: Command, output: str) -> str:
    lines = output.split()
    if not lines:
        raise StepFailed(f"'{command.text()}' printed nothing")
    return lines[0]


def _outline(answer: Any) -> str:
    """An answer in a line: the names in its list, or its text."""
    value = next(iter(answer.values()), None) if isinstance(answer, dict) else answer
    for candidate in answer.values() if isinstance(answer, dict) else ():
        if isinstance(candidate, list):
            value = candidate
    if isinstance(value, list):
        names = [
            str(item.get("name") or item.get("binary") or item.get("url") or item.get("user", {}).get("name") or "")
            for item in value
        ]
        return "  ".join(sorted({name for name in names if name})) or "(nothing)"
    return str(value)
