"""Proof that the cloud is usable, by using it: a token, the catalogue, a list of every service, Horizon's login."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stacklab.errors import NotRunning, ServiceFailed
from stacklab.homes.embedded import supervision
from stacklab.homes.embedded.layout import Layout
from stacklab.homes.embedded.services import urls
from stacklab.stages import Progress

# No proxy, whatever the environment says: everything is on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# What a call to a service that is still coming up can end in.
Trouble = (OSError, ValueError, KeyError, http.client.HTTPException)


class NotYet(ValueError):
    """The service answers, but not yet as a usable one; the text says what is missing."""


class Prober:
    """Asks the cloud's services as its admin."""

    def __init__(self, ports: dict[str, int], password: str) -> None:
        self.urls = urls(ports)
        self._password = password
        self._token = ""
        self._project = ""

    def ask(self, url: str, body: object = None, **headers: str) -> tuple[Any, dict[str, str]]:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(url, data)  # noqa: S310 - our own loopback addresses
        request.add_header("Content-Type", "application/json")
        request.add_header("Accept", "application/json")
        if self._token:
            request.add_header("X-Auth-Token", self._token)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        with _opener.open(request, timeout=30) as response:
            text = response.read()
            return (json.loads(text) if text[:1] in (b"{", b"[") else text), {
                name.lower(): value for name, value in response.headers.items()
            }

    def login(self, user: str, password: str) -> None:
        """Whether Keystone lets a user of a service in; no token is kept. Raises HTTPError (401)."""
        login = {"name": user, "domain": {"id": "default"}, "password": password}
        self.ask(
            f"{self.urls['keystone']}/auth/tokens",
            {"auth": {"identity": {"methods": ["password"], "password": {"user": login}}}},
        )

    def volumes(self) -> None:
        """What any user of volumes does first."""
        self.ask(f"{self.urls['cinder']}/{self._project}/volumes?limit=1")

    def keystone(self) -> None:
        user = {"name": "admin", "domain": {"id": "default"}, "password": self._password}
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        self._token = ""
        answer, headers = self.ask(f"{self.urls['keystone']}/auth/tokens", body)
        catalogue = {service["name"] for service in answer["token"]["catalog"]}
        missing = set(self.urls) - {"horizon"} - catalogue
        if missing:
            raise NotYet(f"the catalogue lacks {', '.join(sorted(missing))}")
        self._token, self._project = headers["x-subject-token"], answer["token"]["project"]["id"]
        self.ask(f"{self.urls['keystone']}/projects")

    def glance(self) -> None:
        self.ask(f"{self.urls['glance']}/v2/images?limit=1")

    def placement(self) -> None:
        self.ask(f"{self.urls['placement']}/resource_providers")

    def nova(self) -> None:
        answer, _ = self.ask(f"{self.urls['nova']}/os-services")
        _all_up(answer["services"], ("nova-compute", "nova-conductor", "nova-scheduler"))
        self.ask(f"{self.urls['nova']}/servers?limit=1")
        providers, _ = self.ask(f"{self.urls['placement']}/resource_providers")
        for provider in providers["resource_providers"]:
            inventories, _ = self.ask(f"{self.urls['placement']}/resource_providers/{provider['uuid']}/inventories")
            if inventories["inventories"]:
                return
        raise NotYet("nova-compute has not told placement what its host has")

    def neutron(self) -> None:
        self.ask(f"{self.urls['neutron']}/v2.0/networks?limit=1")

    def cinder(self) -> None:
        answer, _ = self.ask(f"{self.urls['cinder']}/{self._project}/os-services")
        _all_up(answer["services"], ("cinder-volume", "cinder-scheduler"))
        pools, _ = self.ask(f"{self.urls['cinder']}/{self._project}/scheduler-stats/get_pools")
        if not pools["pools"]:
            raise NotYet("cinder-volume has not told the scheduler what its pool has")

    def swift(self) -> None:
        self.ask(self.urls["swift"] % {"project_id": self._project} + "?format=json&limit=1")

    def horizon(self) -> None:
        text, _ = self.ask(f"{self.urls['horizon']}auth/login/", Accept="text/html")
        if b'name="password"' not in text:
            raise NotYet("the login page has no field for a password")


def _all_up(services: list[dict[str, Any]], wanted: tuple[str, ...]) -> None:
    up = {service["binary"] for service in services if service["state"] == "up"}
    missing = [binary for binary in wanted if binary not in up]
    if missing:
        raise NotYet(f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not up")


ORDER = ("keystone", "glance", "placement", "neutron", "cinder", "swift", "horizon", "nova")


def prove(
    layout: Layout, prober: Prober, progress: Progress, *, seconds: float = 120, names: tuple[str, ...] = ORDER
) -> None:
    """Ask each service until it answers as it should. Raises ServiceFailed: which, what it said, its log."""
    deadline = time.monotonic() + seconds
    progress("asking keystone")
    _until(prober.keystone, "keystone", layout, deadline)  # everything else needs its token
    others = [name for name in names if name != "keystone"]
    if others:
        progress(f"asking {', '.join(others)}")
    with ThreadPoolExecutor(max_workers=len(ORDER)) as pool:
        answers = [pool.submit(_until, getattr(prober, name), name, layout, deadline) for name in others]
    for answer in answers:
        answer.result()


def _until(ask: Callable[[], None], name: str, layout: Layout, deadline: float) -> None:
    while True:
        try:
            ask()
            return
        except Trouble as error:
            trouble = explain(error)
        state = next(one for one in supervision.services(layout) if one.name == name)
        if state.state == "stopped":
            raise NotRunning(f"{name} is not running", advice="lab up starts it")
        if state.state == "failed" or time.monotonic() > deadline:
            log = layout.logs / f"{name}.log"
            raise ServiceFailed(
                f"{name} is not usable: {trouble}; its log last said: {supervision.last_line(log)}",
                advice=f"lab logs {name}",
            )
        time.sleep(0.2)


def explain(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"it cannot be reached ({error.reason})"
    return str(error) or type(error).__name__
