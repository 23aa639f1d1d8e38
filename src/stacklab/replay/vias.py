"""Two ways to do a step: the very REST requests that are shown, or the very commands. Both must leave the same result."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from stacklab.course.session import Step
from stacklab.errors import CloudRefused, LabError, StepFailed
from stacklab.kinds import client
from stacklab.kinds.context import Absent, Context
from stacklab.kinds.narration import Command, Request, dig
from stacklab.kinds.stream import opened

UNTIL_SECONDS = 600
"""How long a request may be repeated until its answer is as it should be, and how long an upload may take."""


def do(context: Context, step: Step, via: str) -> list[str]:
    """Do a step, and let its kind judge the cloud's answer; what its looks brought, in lines.

    Raises CloudRefused, CloudUnreachable, StepFailed, Absent.
    """
    refusal: CloudRefused | None = None
    outlines: list[str] = []
    try:
        if step.kind.own_way:
            step.kind.run(context, step.params)
        else:
            outlines = VIAS[via](context, step)
    except CloudRefused as error:
        refusal = error
    try:
        step.kind.judge(context, step.params, refusal)
    except LabError as error:
        error.begin_with(f"step {step.id}")
        error.advice = error.advice or f"lab hint {context.session_name}/{step.exercise}/{step.id}"
        raise
    return outlines


def by_rest(context: Context, step: Step) -> list[str]:
    """Through the very requests that are shown as curl; what no API does, the kind does itself."""
    saved: dict[str, str] = {}
    requests = step.kind.requests(context, step.params)
    if not requests:
        step.kind.run(context, step.params)
    outlines = []
    for request in requests:
        _require(context, request, saved)
        answer = _send(context, request, saved)
        for name, place in request.saves.items():
            try:
                saved[name] = str(dig(answer, place))
            except (KeyError, IndexError, TypeError) as error:
                raise StepFailed(
                    f"{request.method} {'/'.join(map(str, request.path))} answered without {place[-1]}"
                ) from error
        if not step.kind.lasting(step.params) and answer is not None:
            outlines.append(_outline(answer))
    return outlines


def by_cli(context: Context, step: Step) -> list[str]:
    """Through the very commands that are narrated; by REST what the client has no command for."""
    saved: dict[str, str] = {}
    commands = step.kind.commands(context, step.params)
    if not commands or any(command.program != "openstack" for command in commands):
        return by_rest(context, step)
    printed = []
    for command in commands:
        _require(context, command, saved)
        result = client.run(command, saved, context.user.clouds_file, context.user.name)
        if result.status != 0:
            raise CloudRefused(_complaint(result), status=_status(result.complaint))
        if command.saves:
            saved[command.saves] = _first_word(command, result.output)
        elif not step.kind.lasting(step.params):
            printed.append(result.output.rstrip())
    return printed


VIAS: dict[str, Callable[[Context, Step], list[str]]] = {"rest": by_rest, "cli": by_cli}


def _require(context: Context, part: Command | Request, saved: dict[str, str]) -> None:
    """Raises Absent for something that the part refers to and that is not there."""
    for name in sorted(part.wants() - set(saved)):
        raise context.absent.get(name) or Absent(name.lower().replace("_", "-"))


def _send(context: Context, request: Request, saved: dict[str, str]) -> Any:
    """Send one request; with `until`, again and again."""
    url = request.url(request.at or context.user.endpoint(request.service), saved)
    headers = request.sent_headers(saved)
    deadline = time.monotonic() + UNTIL_SECONDS
    while True:
        if request.upload:
            with opened(request.upload) as data:
                response = context.user.fetch(request.method, url, headers=headers, data=data, seconds=UNTIL_SECONDS)
        else:
            body = request.content(saved)
            response = context.user.fetch(request.method, url, headers=headers, json=body, token=request.token)
        in_json = response.content and "json" in response.headers.get("Content-Type", "")
        answer = response.json() if in_json else None
        if request.until is None:
            return answer
        place, awaited = request.until
        value = dig(answer, place)
        if value == awaited:
            return answer
        failed = str(value).lower() == "error"
        if failed or time.monotonic() > deadline:
            fault = dig(answer, place[:-1]).get("fault", {}).get("message")  # Nova says what went wrong
            why = f" ({fault})" if fault else ""
            raise StepFailed(
                f"{place[-1]} is {value}{why}, not {awaited}", advice="lab logs shows what the services say"
            )
        time.sleep(1)


def _complaint(result: client.Result) -> str:
    lines = [line for line in result.complaint.splitlines() if line.strip()]
    return lines[-1] if lines else f"the client ended with status {result.status} and said nothing"


def _status(complaint: str) -> int | None:
    """The HTTP status that the client's message carries, if it does: in its own words, or in openstacksdk's."""
    if by_sdk := re.search(r"\b([45]\d\d): (?:Client|Server) Error\b", complaint):
        return int(by_sdk[1])
    words = complaint.replace("(", " ").replace(")", " ").replace(":", " ").split()
    return next((int(after) for word, after in pairwise(words) if word == "HTTP" and after.isdigit()), None)


def _first_word(command: Command, output: str) -> str:
    words = output.split()
    if not words:
        raise StepFailed(f"'{command.text()}' printed nothing")
    return words[0]


def _outline(answer: Any) -> str:
    """An answer in a line: the names in its list, or its text."""
    values = list(answer.values()) if isinstance(answer, dict) else [answer]
    listed = next((value for value in reversed(values) if isinstance(value, list)), None)
    if listed is None:
        return str(values[0]) if values else "(nothing)"
    names = {
        str(item.get("name") or item.get("binary") or item.get("url") or item.get("user", {}).get("name") or "")
        for item in listed
    }
    return "  ".join(sorted(names - {""})) or "(nothing)"
