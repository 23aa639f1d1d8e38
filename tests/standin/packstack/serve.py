"""A unit of the stand-in for PackStack: it runs, and openstack-nova-api answers for all APIs on port 5000: serve.py NAME

Always the same answers, but for what is told of nova-compute and of Neutron's agents: that is as systemd has their units.
"""

import json
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TYPES = {
    "identity": "/v3",
    "compute": "/compute/v2.1",
    "placement": "/placement",
    "block-storage": "/volume/v3",
    "image": "/image",
    "network": "/networking",
}
LISTS = {
    "/v3/projects": "projects",
    "/image/v2/images": "images",
    "/compute/v2.1/servers": "servers",
    "/placement/resource_providers": "resource_providers",
    "/volume/v3/volumes": "volumes",
    "/networking/v2.0/networks": "networks",
}
VERSIONS: dict[str, tuple[str, str, str]] = {  # by root: id, path below the root, microversion
    "/compute": ("v2.1", "/v2.1", "2.96"),
    "/image": ("v2.9", "/v2", ""),
    "/networking": ("v2.0", "/v2.0", ""),
    "/volume": ("v3.0", "/v3", "3.0"),
    "/placement": ("v1.0", "", "1.0"),
}
AGENTS = ("neutron-dhcp-agent", "neutron-l3-agent", "neutron-openvswitch-agent")
PASSWORDS = Path(__file__).resolve().parent / "passwords.json"
TOKEN = "standin-token"
UNAUTHORIZED = {"error": {"code": 401, "message": "The request you have made requires authentication."}}


def active(unit: str) -> bool:
    """Whether systemd has it running."""
    return subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0


def listed(path: str) -> Any:
    """What a list call is answered with, None for what is not known."""
    if path == "/v3/services":
        return {"services": [{"id": kind, "type": kind, "name": kind, "enabled": True} for kind in TYPES]}
    if path == "/compute/v2.1/os-services":
        state = "up" if active("openstack-nova-compute") else "down"
        return {"services": [{"binary": "nova-compute", "host": "standin", "state": state, "status": "enabled"}]}
    if path == "/volume/v3/os-services":
        state = "up" if active("openstack-cinder-volume") else "down"
        return {"services": [{"binary": "cinder-volume", "host": "standin@lvm", "state": state, "status": "enabled"}]}
    if path == "/networking/v2.0/agents":
        return {"agents": [{"binary": name, "host": "standin", "alive": active(name)} for name in AGENTS]}
    return {LISTS[path]: []} if path in LISTS else None


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, host = self.path.partition("?")[0].rstrip("/"), f"http://{self.headers['Host']}"
        if path.startswith("/dashboard"):
            return self.say(200, '<form><input type="password" name="password"></form>', kind="text/html")
        if path in ("", "/v3"):
            keystone = {"id": "v3.8", "status": "stable", "links": [{"rel": "self", "href": f"{host}/v3/"}]}
            return self.say(200, {"version": keystone} if path else {"versions": {"values": [keystone]}})
        if version := self.version(path, host):
            return self.say(200, version)
        if self.headers.get("X-Auth-Token") != TOKEN:
            return self.say(401, UNAUTHORIZED)
        found = listed(path)
        return self.say(404, {"error": {"code": 404, "message": path}}) if found is None else self.say(200, found)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.path.rstrip("/") != "/v3/auth/tokens":
            return self.say(404, {"error": {"code": 404, "message": self.path}})
        user = asked["auth"]["identity"]["password"]["user"]
        known = json.loads(PASSWORDS.read_text(encoding="utf-8"))
        if user.get("name") != "admin" or user.get("password") != known["ADMIN_PASSWORD"]:
            return self.say(401, UNAUTHORIZED)
        host = f"http://{self.headers['Host']}"
        catalogue = [
            {"id": kind, "type": kind, "name": kind, "endpoints": [
                {"id": kind, "interface": "public", "region": "RegionOne", "region_id": "RegionOne", "url": host + path}
            ]} for kind, path in TYPES.items()
        ]  # fmt: skip
        admin = {"id": "admin", "name": "admin", "domain": {"id": "default", "name": "Default"}}
        token = {
            "methods": ["password"], "expires_at": "2099-01-01T00:00:00.000000Z", "catalog": catalogue,
            "issued_at": "2026-01-01T00:00:00.000000Z", "roles": [{"id": "admin", "name": "admin"}],
            "user": admin, "project": admin,
        }  # fmt: skip
        return self.say(201, {"token": token}, token=TOKEN)

    def version(self, path: str, host: str) -> dict[str, Any] | None:
        """What clients ask first of an API: which versions it has."""
        root = "/" + path.split("/")[1]
        if root not in VERSIONS:
            return None
        name, below, micro = VERSIONS[root]
        if path not in (root, root + below):
            return None
        entry: dict[str, Any] = {"id": name, "status": "CURRENT"}
        entry["links"] = [{"rel": "self", "href": f"{host}{root}{below}/"}]
        if micro:
            entry |= {"version": micro, "min_version": micro, "max_version": micro}
        return {"version": entry} if below and path.endswith(below) else {"versions": [entry]}

    def say(self, status: int, value: Any, *, kind: str = "application/json", token: str = "") -> None:
        body = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status)
        for name, text in (("Content-Type", kind), ("Content-Length", str(len(body))), ("X-Subject-Token", token)):
            if text:
                self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    print(f"{sys.argv[1]} is ready", flush=True)
    if sys.argv[1] == "openstack-nova-api":
        ThreadingHTTPServer(("0.0.0.0", 5000), Answers).serve_forever()  # noqa: S104 - of the test's own machine
    while True:
        time.sleep(60)
