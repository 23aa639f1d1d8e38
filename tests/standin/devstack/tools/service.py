#!/usr/bin/env python3
"""A service of the stand-in for DevStack: it runs, and the APIs answer the few requests that lab asks, always the same.

    service.py NAME      be the service NAME
    service.py --paths   what Apache passes on, PATH=PORT

The catalogue's addresses follow the Host header. Passwords are those of the local.conf that stack.sh has read (PASSWORDS).
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# unit: (port, paths)
APIS = {
    "keystone": (18001, ["/identity"]),
    "n-api": (18002, ["/compute"]),
    "placement-api": (18003, ["/placement"]),
    "c-api": (18004, ["/volume"]),
    "g-api": (18005, ["/image"]),
    "neutron-api": (18006, ["/networking"]),
    "horizon": (18007, ["/dashboard"]),
}
TYPES = {
    "identity": "/identity",
    "compute": "/compute/v2.1",
    "placement": "/placement",
    "block-storage": "/volume/v3",
    "image": "/image",
    "network": "/networking",
}
LISTS = {"/identity/v3/projects": "projects", "/image/v2/images": "images", "/compute/v2.1/servers": "servers",
         "/placement/resource_providers": "resource_providers", "/volume/v3/volumes": "volumes",
         "/networking/v2.0/networks": "networks"}  # fmt: skip
PASSWORDS = Path(__file__).resolve().parent / "passwords.json"
BREAK = Path("/run/standin/break")
TOKEN = "standin-token"  # worth nothing: the answers are the same for everybody


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, host = self.path.partition("?")[0].rstrip("/"), f"http://{self.headers.get('Host', '127.0.0.1')}"
        if path.startswith("/dashboard"):
            return self.say(
                200, '<form><input name="username"><input type="password" name="password"></form>', "text/html"
            )
        if path in ("/identity", "/identity/v3"):
            one = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": f"{host}/identity/v3/"}]}
            return self.say(200, {"version": one} if path.endswith("v3") else {"versions": {"values": [one]}})
        if version := self.version(path, host):
            return self.say(200, version)
        if self.headers.get("X-Auth-Token") != TOKEN:
            return self.say(
                401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}
            )
        if path == "/identity/v3/services":
            return self.say(
                200, {"services": [{"id": kind, "type": kind, "name": kind, "enabled": True} for kind in TYPES]}
            )
        if path == "/compute/v2.1/os-services":
            one = {"binary": "nova-compute", "host": "standin", "state": "up", "status": "enabled"}
            return self.say(200, {"services": [one]})
        if path in LISTS:
            return self.say(200, {LISTS[path]: []})
        return self.say(404, {"error": {"code": 404, "message": f"the stand-in knows no {path}"}})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.path.rstrip("/") != "/identity/v3/auth/tokens":
            return self.say(404, {"error": {"code": 404, "message": f"the stand-in knows no {self.path}"}})
        user = asked["auth"]["identity"]["password"]["user"]
        known = json.loads(PASSWORDS.read_text(encoding="utf-8"))
        if user.get("name") != "admin" or user.get("password") != known["ADMIN_PASSWORD"]:
            return self.say(
                401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}
            )
        host = f"http://{self.headers.get('Host', '127.0.0.1')}"
        catalogue = [
            {"id": kind, "type": kind, "name": kind, "endpoints": [
                {"id": kind, "interface": "public", "region": "RegionOne", "region_id": "RegionOne", "url": host + path}
            ]} for kind, path in TYPES.items()
        ]  # fmt: skip
        token = {"methods": ["password"], "expires_at": "2099-01-01T00:00:00.000000Z", "catalog": catalogue,
                 "issued_at": "2026-01-01T00:00:00.000000Z", "roles": [{"id": "admin", "name": "admin"}],
                 "user": {"id": "admin", "name": "admin", "domain": {"id": "default", "name": "Default"}},
                 "project": {"id": "admin", "name": "admin", "domain": {"id": "default", "name": "Default"}}}  # fmt: skip
        return self.say(201, {"token": token}, headers={"X-Subject-Token": TOKEN})

    def version(self, path: str, host: str) -> dict[str, Any] | None:
        """What clients ask first of an API: which versions it has."""
        ids: dict[str, tuple[str, str | None]] = {
            "/compute": ("v2.1", "2.1"),
            "/compute/v2.1": ("v2.1", "2.1"),
            "/image": ("v2.9", None),
            "/image/v2": ("v2.9", None),
            "/networking": ("v2.0", None),
            "/networking/v2.0": ("v2.0", None),
            "/volume": ("v3.0", "3.0"),
            "/volume/v3": ("v3.0", "3.0"),
            "/placement": ("v1.0", "1.0"),
        }
        if path not in ids:
            return None
        name, least = ids[path]
        base = {
            "/image": "/image/v2/",
            "/networking": "/networking/v2.0/",
            "/compute": "/compute/v2.1/",
            "/volume": "/volume/v3/",
        }
        root = "/" + path.split("/")[1]
        one: dict[str, Any] = {
            "id": name,
            "status": "CURRENT",
            "links": [{"rel": "self", "href": host + base.get(root, root)}],
        }
        if least:
            one |= {"version": "2.96" if root == "/compute" else least, "min_version": least, "max_version": least}
        return {"version": one} if path.endswith(("v2.1", "v3")) else {"versions": [one]}

    def say(
        self, status: int, value: Any, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        body = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status)
        for name, text in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    if sys.argv[1] == "--paths":
        print("\n".join(f"{path}={port}" for port, paths in APIS.values() for path in paths))
        return
    name = sys.argv[1]
    served = [name, "horizon"] if name == "keystone" else [name]  # Horizon is no unit of DevStack's
    for one in served:
        if one in APIS:
            server = ThreadingHTTPServer(("127.0.0.1", APIS[one][0]), Answers)
            threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"{name} is ready", flush=True)
    while True:
        time.sleep(2)
        if (BREAK / name).exists():
            sys.exit(
                f"{name}: Could not retrieve schema from tcp:127.0.0.1:6640: Connection refused (the stand-in was told so)"
            )


if __name__ == "__main__":
    main()
