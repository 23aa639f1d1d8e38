"""Whether a cloud is usable is found out by asking it; what it answers decides, not how long it takes."""

from __future__ import annotations

from typing import Any

import pytest

from stacklab.conditions import ready
from stacklab.errors import CloudRefused, ServiceFailed

UP = {"binary": "nova-compute", "host": "one", "state": "up", "status": "enabled"}


class FakeCloud:
    """Answers by service and path; an error is raised once, then the answer behind it counts."""

    verify = True

    def __init__(self) -> None:
        catalogue = [{"type": kind} for kind in ("identity", "image", "compute", "network", "surfing")]
        self.answers: dict[tuple[str, ...], Any] = {
            ("identity", "services"): {"services": [*catalogue, {"type": "dns", "enabled": False}]},
            ("compute", "os-services"): {"services": [UP]},
        }
        self.refused: list[tuple[str, ...]] = []
        self.asked: list[tuple[str, ...]] = []

    def get(self, *path: str) -> Any:
        self.asked.append(path)
        if path in self.refused:
            self.refused.remove(path)
            raise CloudRefused("HTTP 503: not yet", status=503)
        return self.answers.get(path, {})

    def forget(self) -> None:
        """There is no token."""


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A cloud whose login page is there."""
    monkeypatch.setattr(ready, "login_page", lambda dashboard, verify: (True, "HTTP 200, with a login form"))
    return FakeCloud()


def prove(cloud: Any, **more: Any) -> str:
    return ready.prove(cloud, "http://192.0.2.1/dashboard", lambda detail: None, **{"seconds": 0, **more})


def test_every_service_of_the_catalogue_is_asked_for_its_list_and_unknown_ones_are_named(cloud: Any) -> None:
    said = prove(cloud)
    assert "a list from compute, identity, image, network" in said
    assert "unknown here: surfing" in said
    assert ("network", "networks") in cloud.asked
    assert not any(path[0] == "dns" for path in cloud.asked)


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        (("volume", "volumev2", "volumev3"), ["volumev3"]),  # Pike, where the first answers with 404
        (("volumev3", "block-storage"), ["block-storage", "volumev3"]),
        (("volumev2",), ["volumev2"]),
        (("share", "sharev2"), ["sharev2"]),
    ],
)
def test_an_api_that_a_newer_one_supersedes_is_not_asked(cloud: Any, there: tuple[str, ...], asked: list[str]) -> None:
    cloud.answers["identity", "services"]["services"] += [{"type": kind} for kind in there]
    assert "unknown here: surfing)" in prove(cloud)
    assert sorted(path[0] for path in cloud.asked if path[0] in {*there, "volume"}) == asked


def test_what_is_refused_at_first_is_asked_again(cloud: Any) -> None:
    cloud.refused = [("image", "images")]
    prove(cloud, seconds=60)
    assert cloud.asked.count(("image", "images")) == 2


@pytest.mark.parametrize(
    ("services", "says"),
    [
        ([UP | {"state": "down"}], "down: nova-compute on one"),
        ([UP | {"binary": "nova-conductor"}], "no nova-compute has reported yet"),
        (None, "compute does not answer with services"),
    ],
)
def test_a_compute_service_that_is_down_or_silent_is_not_usable(cloud: Any, services: Any, says: str) -> None:
    cloud.answers["compute", "os-services"] = {"services": services} if services else "a proxy's page"
    with pytest.raises(ServiceFailed, match=says):
        prove(cloud)


def test_a_catalogue_without_what_is_needed_is_not_there_yet(cloud: Any) -> None:
    with pytest.raises(ServiceFailed, match="the catalogue holds only compute, identity, image, network, surfing"):
        prove(cloud, needed=("identity", "object-store"))


def test_waiting_ends_at_once_where_it_is_in_vain(cloud: Any) -> None:
    def hopeless(name: str, evidence: str) -> None:
        raise ServiceFailed(f"{name} has crashed: {evidence}")

    cloud.answers["compute", "os-services"] = {"services": []}
    with pytest.raises(ServiceFailed, match="compute services has crashed: no nova-compute"):
        prove(cloud, seconds=60, hopeless=hopeless)
