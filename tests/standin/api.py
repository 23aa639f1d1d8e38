"""What the APIs of both stand-ins answer alike. It is brought to the machine, beside the program that serves them."""

import json
import subprocess
from http.server import BaseHTTPRequestHandler
from typing import Any

TYPES = {
    "compute": "/compute/v2.1", "placement": "/placement", "block-storage": "/volume/v3", "image": "/image",
    "network": "/networking",
}  # fmt: skip
"""Where what the catalogue calls so is; Keystone's place is the program's to say."""
LISTS = {
    "/image/v2/images": "images", "/compute/v2.1/servers": "servers", "/compute/v2.1/servers/detail": "servers",
    "/placement/resource_providers": "resource_providers", "/volume/v3/volumes": "volumes",
    "/networking/v2.0/networks": "networks",
}  # fmt: skip
VERSIONS: dict[str, tuple[str, str, str]] = {  # by root: id, path below the root, microversion
    "/compute": ("v2.1", "/v2.1", "2.1"),
    "/image": ("v2.9", "/v2", ""),
    "/networking": ("v2.0", "/v2.0", ""),
    "/volume": ("v3.0", "/v3", "3.0"),
    "/placement": ("v1.0", "", "1.0"),
}
TOKEN = "standin-token"  # worth nothing: the answers are the same for everybody
UNAUTHORIZED = {"error": {"code": 401, "message": "The request you have made requires authentication."}}


def active(unit: str) -> bool:
    """Whether systemd has it running."""
    return subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0


class Api(BaseHTTPRequestHandler):
    """The parts that an API is made of."""

    def public(self, path: str, host: str, keystone: str) -> tuple[int, Any] | None:
        """The answer where it takes no token: versions (Keystone's are at the path `keystone`), or that there is none."""
        if path in (keystone, f"{keystone}/v3"):
            link = [{"rel": "self", "href": f"{host}{keystone}/v3/"}]
            version = {"id": "v3.14", "status": "stable", "links": link}
            return 200, {"version": version} if path.endswith("v3") else {"versions": {"values": [version]}}
        if answer := self._versions(path, host):
            return 200, answer
        return None if self.headers.get("X-Auth-Token") == TOKEN else (401, UNAUTHORIZED)

    def _versions(self, path: str, host: str) -> dict[str, Any] | None:
        """What clients ask first of an API: which versions it has."""
        root = "/" + path.split("/")[1] if "/" in path else ""
        if root not in VERSIONS or path not in (root, root + VERSIONS[root][1]):
            return None
        name, below, least = VERSIONS[root]
        link = [{"rel": "self", "href": f"{host}{root}{below}/" if below else ""}]  # Placement's own is empty
        entry: dict[str, Any] = {"id": name, "status": "CURRENT", "links": link}
        if least:
            entry |= {"version": "2.96" if root == "/compute" else least, "min_version": least, "max_version": least}
        return {"version": entry} if path.endswith(("v2.1", "v3")) else {"versions": [entry]}

    def login(self, passwords: dict[str, str], endpoints: list[dict[str, Any]]) -> None:
        """POST …/auth/tokens: the answer, a token with the catalogue if the password is that of the user."""
        user = self.body()["auth"]["identity"]["password"]["user"]
        if user.get("name") not in passwords or user.get("password") != passwords[user["name"]]:
            return self.say(401, UNAUTHORIZED)
        catalogue = [
            {
                "id": kind,
                "type": kind,
                "name": kind,
                "endpoints": [row for row in endpoints if row["service_id"] == kind],
            }
            for kind in ("identity", *TYPES)
        ]
        admin = {"id": "admin", "name": "admin", "domain": {"id": "default", "name": "Default"}}
        token = {
            "methods": ["password"], "expires_at": "2099-01-01T00:00:00.000000Z", "catalog": catalogue,
            "issued_at": "2026-01-01T00:00:00.000000Z", "roles": [{"id": "admin", "name": "admin"}],
            "user": admin, "project": admin,
        }  # fmt: skip
        return self.say(201, {"token": token}, headers={"X-Subject-Token": TOKEN})

    def endpoint(self, kind: str, url: str) -> dict[str, Any]:
        """As DevStack and PackStack register them, as far as anybody asks."""
        values = {"interface": "public", "region": "RegionOne", "region_id": "RegionOne", "enabled": True}
        return {"id": kind, "service_id": kind, "url": url, **values}

    def content(self) -> bytes:
        """What was sent."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def body(self) -> Any:
        """What was sent, as JSON."""
        return json.loads(self.content() or b"{}")

    def unknown(self) -> None:
        """The answer to what a stand-in does not know."""
        self.say(404, {"error": {"code": 404, "message": f"the stand-in knows no {self.path}"}})

    def say(
        self, status: int, value: Any, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        """Answer."""
        body = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status)
        if status != 204:  # which has no body
            headers = {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)
