"""Somebody logged in to a cloud: one entry of a clouds.yaml, through openstacksdk, plain HTTP, or the client."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

from stacklab.errors import CloudRefused, CloudUnreachable, LabError, StepFailed

T = TypeVar("T")

VERSIONS = {"identity": "v3", "image": "v2", "network": "v2.0"}
"""API versions that catalogues leave out of their URLs; the other services' URLs carry theirs."""

NO_LOGIN = (
    "whoever acts cannot log in: does the user exist, with the password that `lab password` prints, and a role on the "
    "project? lab check session4/project tells of user and role, lab replay session4/project makes them; a password of "
    "somebody's own becomes the lab's again with lab openstack --admin user set --password-prompt learner"
)

TIMEOUT = 60
"""Seconds that one request may take; booting and deleting are waited for by asking again."""


class Connection:
    """A user of the cloud. Nothing is imported or connected before it is needed."""

    def __init__(self, clouds_file: Path, entry: str) -> None:
        self.clouds_file = clouds_file
        self.name = entry

    @cached_property
    def sdk(self) -> Any:
        """The openstacksdk Connection. Raises CloudUnreachable when there is no such entry."""
        # Half a second of imports that `lab --help` and `lab list` do without.
        import openstack.config
        import openstack.connection
        import openstack.exceptions

        # It warns of every failed discovery; what comes of it is an error of ours, with advice.
        logging.getLogger("keystoneauth").setLevel(logging.ERROR)
        try:
            # OS_* variables of the learner's shell must not leak into what the lab does.
            loader = openstack.config.OpenStackConfig(config_files=[str(self.clouds_file)], load_envvars=False)
            region = loader.get_one(cloud=self.name, api_timeout=TIMEOUT)
        except openstack.exceptions.ConfigException as error:
            raise CloudUnreachable(f"{self.clouds_file}: {error}", advice="lab up writes it anew") from error
        return openstack.connection.Connection(config=region, app_name="stacklab")

    @property
    def project_id(self) -> str:
        """The project of this person's token."""
        with answered():
            return str(self.sdk.session.get_project_id())

    @property
    def user_id(self) -> str:
        """This person's user id."""
        with answered():
            return str(self.sdk.session.get_user_id())

    @property
    def token(self) -> str:
        """A valid token."""
        with answered():
            return str(self.sdk.session.get_token())

    def forget(self) -> None:
        """Drop the connection: after a reset its token and cached catalogue mean nothing."""
        self.__dict__.pop("sdk", None)
        self._endpoints.clear()

    @property
    def _interface(self) -> str:
        return str(self.sdk.config.get_interface() or "public")

    @cached_property
    def _endpoints(self) -> dict[str, str]:
        return {}

    def endpoint(self, service: str) -> str:
        """A service's URL as the catalogue has it, with the API version that we speak. Raises CloudRefused.

        The public one, unless this entry of clouds.yaml says `interface: internal` (session https-endpoints).
        """
        if service not in self._endpoints:
            with answered():
                region = self.sdk.config.get_region_name(service)
                url = self.sdk.session.get_endpoint(service_type=service, interface=self._interface, region_name=region)
            if not url:
                raise CloudRefused(
                    f"the catalogue has no {service} service", advice="openstack catalog list shows what it has"
                )
            base = url.rstrip("/")
            if service in VERSIONS and not re.search(r"/v\d[.\d]*$", base):
                base = f"{base}/{VERSIONS[service]}"
            self._endpoints[service] = base
        return self._endpoints[service]

    def request(
        self,
        method: str,
        service: str,
        path: tuple[str, ...],
        *,
        body: Any = None,
        query: dict[str, str] | None = None,
        version: str | None = None,
    ) -> Any:
        """The JSON answer (None for none). Raises CloudRefused with its status, CloudUnreachable."""
        headers = {"Accept": "application/json"}
        if version:
            headers["OpenStack-API-Version"] = f"{service} {version}"
        answer = self.fetch(method, self.address(service, *path), headers=headers, json=body, query=query)
        return answer.json() if answer.content and "json" in answer.headers.get("Content-Type", "") else None

    @property
    def auth_url(self) -> str:
        """Keystone's address, the only one that a client has to know. Raises CloudUnreachable."""
        return str(self.sdk.config.get_auth_args()["auth_url"]).rstrip("/")

    @property
    def verify(self) -> bool | str:
        """How TLS certificates are checked: True, or the file of the CA that this cloud's are signed by."""
        verify = self.sdk.session.verify
        return True if verify is None else verify

    def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
        json: Any = None,
        data: Any = None,
        token: bool = True,
        seconds: float | None = None,
    ) -> Any:
        """The whole answer (a requests.Response) of any URL, asked with a token. `data`: bytes, or an open file to stream.

        Raises CloudRefused with its status, CloudUnreachable.
        """
        with answered():
            # A stream cannot be sent again: neither with another token nor over another connection.
            again = {"allow_reauth": False} if data is not None else {"connect_retries": 2}
            timeout = {} if seconds is None else {"timeout": seconds}
            answer = self.sdk.session.request(
                url, method, headers=headers or {}, params=query or {}, json=json, data=data, raise_exc=False,
                authenticated=token, **again, **timeout,
            )  # fmt: skip
        if answer.status_code >= 400:
            raise CloudRefused(said_in(answer), status=answer.status_code)
        return answer

    def stream(self, service: str, *path: str) -> Iterator[bytes]:
        """The body of a GET, piece by piece; never the whole of it in memory. Raises CloudRefused, CloudUnreachable."""
        import requests

        with answered():
            answer = self.sdk.session.request(self.address(service, *path), "GET", raise_exc=False, stream=True)
        with answer:
            if answer.status_code >= 400:
                raise CloudRefused(said_in(answer), status=answer.status_code)
            try:
                yield from answer.iter_content(1 << 20)
            except requests.RequestException as error:
                raise CloudUnreachable(f"{service} stopped in the middle of its answer: {error}") from error

    def address(self, service: str, *path: str) -> str:
        """The URL of something of a service's, its path quoted."""
        return "/".join([self.endpoint(service), *(quote(part, safe="") for part in path)])

    def get(self, service: str, *path: str, version: str | None = None, **query: str) -> Any:
        """GET."""
        return self.request("GET", service, path, version=version, query=query)

    def listed(self, service: str, *path: str, key: str, version: str | None = None, **query: str) -> list[Any]:
        """Everything in a collection, however many answers it takes: Glance, say, gives 25 images at a time.

        `key`: what the answer calls its list. The next page is told as `next`, or among the links beside the list.
        """
        everything: list[Any] = []
        while True:
            answer = self.request("GET", service, path, version=version, query=query)
            everything += answer[key]
            links = [link["href"] for link in answer.get(f"{key}_links", []) if link["rel"] == "next"]
            following = answer.get("next") or next(iter(links), None)
            if not following or not answer[key]:
                return everything
            query = query | dict(parse_qsl(urlsplit(following).query))

    def post(self, service: str, *path: str, body: Any) -> Any:
        """POST."""
        return self.request("POST", service, path, body=body)

    def put(self, service: str, *path: str, body: Any) -> Any:
        """PUT."""
        return self.request("PUT", service, path, body=body)

    def patch(self, service: str, *path: str, body: Any) -> Any:
        """PATCH."""
        return self.request("PATCH", service, path, body=body)

    def delete(self, service: str, *path: str, version: str | None = None, **query: str) -> bool:
        """DELETE; False if it was not there any more."""

        def ask() -> bool:
            self.request("DELETE", service, path, version=version, query=query)
            return True

        return unless_absent(ask) or False

    def gone(self, service: str, *path: str) -> bool:
        """Whether a GET answers 404."""
        return unless_absent(lambda: self.fetch("GET", self.address(service, *path))) is None


def unless_absent(ask: Callable[[], T]) -> T | None:
    """What the cloud answers, or None where it says that there is no such thing."""
    try:
        return ask()
    except CloudRefused as error:
        if error.status == 404:
            return None
        raise


def said_in(answer: Any) -> str:
    """What an error answer says: each service wraps its message in another way."""
    try:
        value = answer.json()
    except ValueError:
        text = re.sub(r"<[^>]*>", " ", answer.text)
        return f"HTTP {answer.status_code}: {' '.join(text.split())[:300] or answer.reason}"
    inner = next(iter(value.values()), value) if isinstance(value, dict) and len(value) == 1 else value
    if isinstance(inner, list) and inner:
        inner = inner[0]
    message = inner.get("message") or inner.get("detail") or inner.get("title") if isinstance(inner, dict) else inner
    return f"HTTP {answer.status_code}: {message or value}"


@contextmanager
def answered() -> Iterator[None]:
    """Turn what openstacksdk and keystoneauth raise into our errors."""
    import keystoneauth1.exceptions as ksa
    import openstack.exceptions as sdk

    try:
        yield
    except LabError:
        raise
    except sdk.HttpException as error:
        message = str(error.details or error.message or error)
        raise CloudRefused(f"HTTP {error.status_code}: {message}", status=error.status_code) from error
    except (sdk.ResourceTimeout, sdk.ResourceFailure) as error:
        raise StepFailed(str(error), advice="lab logs shows what the services say") from error
    except ksa.Unauthorized as error:
        raise CloudRefused(f"HTTP 401: {error.message}", status=401, advice=NO_LOGIN) from error
    except ksa.HttpError as error:
        raise CloudRefused(f"HTTP {error.http_status}: {error.message}", status=error.http_status) from error
    except (ksa.ConnectFailure, ksa.DiscoveryFailure, ksa.RetriableConnectionFailure) as error:
        raise CloudUnreachable(
            f"the cloud does not answer: {error}", advice="lab status shows what runs; lab up starts it"
        ) from error
    except (sdk.SDKException, ksa.ClientException) as error:
        raise CloudRefused(str(error)) from error


def floating_ip(admin: Connection, server: str) -> str | None:
    """The first floating IP of a server; None where it has none. Raises CloudRefused, CloudUnreachable."""
    for port in admin.get("network", "ports", device_id=server)["ports"]:
        for address in admin.get("network", "floatingips", port_id=port["id"])["floatingips"]:
            return str(address["floating_ip_address"])
    return None
