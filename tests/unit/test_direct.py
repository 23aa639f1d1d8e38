"""A proxy of the environment is for the internet, not for clouds on this machine."""

from __future__ import annotations

import os

import pytest
import requests

from stacklab.cloud.direct import LOOPBACK, past_the_proxy

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        for spelt in (name, name.upper()):
            monkeypatch.setenv(spelt, "")  # so that what is set here is taken back
            monkeypatch.delenv(spelt)


def proxies(url: str) -> dict[str, str]:
    return dict(requests.utils.get_environ_proxies(url))


@pytest.mark.parametrize(
    "before", [{}, {"NO_PROXY": "intra.net, .example.org"}, {"no_proxy": "intra.net,.example.org"}]
)
def test_the_labs_own_clouds_are_reached_past_it_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, str]
) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    past_the_proxy(*LOOPBACK)
    past_the_proxy("192.0.2.10")
    past_the_proxy("192.0.2.10")
    for host in ("127.0.0.1:5000", "localhost:5000", "192.0.2.10", *(["intra.net", "a.example.org"] if before else [])):
        assert proxies(f"http://{host}/") == {}, host
    assert proxies("http://opendev.org/")["http"] == "http://192.0.2.1:3128"
    assert os.environ["no_proxy"].count("192.0.2.10") == 1


def test_without_a_proxy_the_environment_stays_as_it_is() -> None:
    past_the_proxy(*LOOPBACK)
    assert "no_proxy" not in os.environ


def test_what_needs_no_proxy_at_all_goes_on_without() -> None:
    os.environ.update(http_proxy="http://192.0.2.1:3128", no_proxy="*")
    past_the_proxy(*LOOPBACK)
    assert proxies("http://127.0.0.1/") == {}
