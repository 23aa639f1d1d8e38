"""Doing a step by its requests: what is shown is what is sent, and what is missing is named. The cloud is a list of answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from stacklab.course.load import load_session
from stacklab.course.session import Step
from stacklab.errors import StepFailed
from stacklab.kinds.context import Absent, Context, OfflineContext
from stacklab.replay.assets import PAPER
from stacklab.replay.vias import by_rest, do

SESSION = load_session("session4")


@dataclass
class Answer:
    """What a service answers."""

    value: Any
    content: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})

    def json(self) -> Any:
        """The value."""
        return self.value


class Cloud:
    """Answers one thing after the other, and remembers what it was asked."""

    name = "lab-admin"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, Any]] = []

    def endpoint(self, service: str) -> str:
        """Where a service answers."""
        return f"http://{service}"

    def fetch(self, method: str, url: str, *, json: Any = None, **more: Any) -> Answer:
        """The next answer."""
        self.asked.append((method, url, json))
        return Answer(self.answers.pop(0))


def context_of(step: Step, cloud: Cloud, **ids: str) -> Context:
    """A context at that cloud, in which references have these ids."""

    class Connected(OfflineContext):
        @property
        def user(self) -> Any:
            return cloud

        def thing(self, ref: Any, kind: str) -> dict[str, Any]:
            if self.name_of(ref) not in ids:
                return super().thing(ref, kind)
            return {"id": ids[self.name_of(ref)]}

    return Connected(SESSION, step, PAPER, lambda name: "s3cret")


def test_the_requests_that_are_sent_are_those_that_are_shown() -> None:
    step = next(step for step in SESSION.steps() if step.kind.name == "role")
    user, project = SESSION.learner
    cloud = Cloud({"roles": [{"id": "r-1"}]}, None)
    context = context_of(step, cloud, **{user: "u-1", project: "p-1"})
    shown = [request.text(cloud.endpoint(request.service)) for request in step.kind.requests(context, step.params)]
    assert by_rest(context, step) == []
    assert cloud.asked == [
        ("GET", "http://identity/roles?name=member", None),
        ("PUT", "http://identity/projects/p-1/users/u-1/roles/r-1", None),
    ]
    assert [line.replace("$ROLE_ID", "r-1").split('"')[1] for line in shown] == [url for _, url, _ in cloud.asked]


def test_what_a_step_builds_on_is_named_with_its_step_when_it_is_not_there() -> None:
    step = SESSION.step("subnet")
    with pytest.raises(Absent) as missing:
        do(context_of(step, Cloud()), step, "rest")
    assert missing.value.step == "network"


def test_what_the_service_says_went_wrong_is_told() -> None:
    step = SESSION.step("server")
    ids = {
        SESSION.step(ref.step).params.model_dump().get("name", ref.step): "x" for _, ref, _ in step.params.references()
    }
    broken = {"server": {"id": "s-1", "status": "ERROR", "fault": {"message": "No valid host was found"}}}
    cloud = Cloud({"server": {"id": "s-1"}}, broken)
    with pytest.raises(StepFailed, match=r"status is ERROR .No valid host was found., not ACTIVE"):
        do(context_of(step, cloud, **ids), step, "rest")
    assert cloud.asked[1][:2] == ("GET", "http://compute/servers/s-1")


def test_what_a_look_brought_is_outlined() -> None:
    step = next(step for step in SESSION.steps() if step.kind.name == "look")
    names = {"key": [{"name": "beta"}, {"name": "alpha"}]}
    assert do(context_of(step, Cloud(names)), step, "rest") == ["alpha  beta"]
