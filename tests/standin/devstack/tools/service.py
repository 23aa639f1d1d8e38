#!/usr/bin/env python3
"""A service of the stand-in for DevStack: it runs, and the APIs answer the few requests that lab asks, always the same.

    service.py NAME      be the service NAME
    service.py --paths   what Apache passes on, PATH=PORT

The catalogue's addresses follow the Host header. Passwords are those of the local.conf that stack.sh has read; what
can change or break is looked up in things.py.
"""

import json
import sys
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import things  # type: ignore[import-not-found]  # it lies beside this file on the machine

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
NAMES = {
    "identity": "keystone", "compute": "nova", "placement": "placement", "block-storage": "cinder", "image": "glance",
    "network": "neutron",
}  # fmt: skip
LISTS = {"/identity/v3/projects": "projects", "/image/v2/images": "images", "/compute/v2.1/servers": "servers",
         "/compute/v2.1/servers/detail": "servers",
         "/placement/resource_providers": "resource_providers", "/volume/v3/volumes": "volumes",
         "/networking/v2.0/networks": "networks"}  # fmt: skip
BREAK = Path("/run/standin/break")
TOKEN = "standin-token"  # worth nothing: the answers are the same for everybody


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0].rstrip("/")
        root = path.split("/")[1] if "/" in path else ""
        host = things.own_address(
            root, self.headers.get("Host", "127.0.0.1"), self.headers.get("X-Forwarded-Proto", "")
        )
        if path.startswith("/dashboard"):
            return self.say(
                200, '<form><input name="username"><input type="password" name="password"></form>', "text/html"
            )
        if path in ("/identity", "/identity/v3"):
            keystone = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": f"{host}/identity/v3/"}]}
            return self.say(200, {"version": keystone} if path.endswith("v3") else {"versions": {"values": [keystone]}})
        if version := self.version(path, host):
            return self.say(200, version)
        if self.headers.get("X-Auth-Token") != TOKEN:
            return self.say(
                401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}
            )
        if path == "/identity/v3/services":
            return self.say(
                200, {"services": [{"id": kind, "type": kind, "name": NAMES[kind], "enabled": True} for kind in TYPES]}
            )
        if path == "/identity/v3/endpoints":
            rows = [
                endpoint
                for endpoint in self.endpoints().values()
                if endpoint["interface"] in (self.asked("interface") or [endpoint["interface"]])
            ]
            return self.say(200, {"endpoints": rows})
        if path.startswith("/volume") and not things.cinder_logs_in():
            print("Identity server rejected authorization necessary to fetch token data: 401 Unauthorized", flush=True)
            return self.say(503, {"error": {"code": 503, "message": "Service Unavailable"}})
        if path == "/compute/v2.1/os-services":
            state = "up" if things.active("devstack@n-cpu") else "down"
            agent = {"binary": "nova-compute", "host": "standin", "state": state, "status": "enabled"}
            return self.say(200, {"services": [agent]})
        if path == "/identity/v3/users":
            return self.say(200, {"users": [{"id": f"id-of-{name}", "name": name} for name in self.asked_names()]})
        if path == "/networking/v2.0/agents":
            return self.say(200, {"agents": things.agents()})
        if path == "/image/v2/images":
            names = self.asked("name")
            found = [image for image in things.images().values() if not names or image["name"] in names]
            return self.say(200, {"images": found})
        if path.startswith("/image/v2/images/") and (image := things.images().get(path.rsplit("/", 1)[1])):
            return self.say(200, image)
        if path in LISTS:
            return self.say(200, {LISTS[path]: []})
        return self.say(404, {"error": {"code": 404, "message": f"the stand-in knows no {path}"}})

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """As DevStack registers them: public ones alone."""
        host = self.headers.get("Host", "127.0.0.1").partition(":")[0]
        values = {"interface": "public", "region": "RegionOne", "region_id": "RegionOne", "enabled": True}
        there: dict[str, dict[str, Any]] = things.endpoints(
            {
                kind: {"id": kind, "service_id": kind, "url": f"http://{host}{path}", **values}
                for kind, path in TYPES.items()
            }
        )
        return there

    def change_endpoint(self, name: str, values: dict[str, Any] | None) -> None:
        found = self.endpoints()
        if values is None:
            found.pop(name, None)
        else:
            old = found.get(name, {"id": name, "enabled": True, "region": values.get("region_id")})
            found[name] = {**old, **values}
        things.keep_endpoints(found)

    def asked(self, key: str) -> list[str]:
        """The values of one of the query's keys."""
        return urllib.parse.parse_qs(self.path.partition("?")[2]).get(key, [])

    def asked_names(self) -> list[str]:
        return [name for name in things.passwords() if not self.asked("name") or name in self.asked("name")]

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_PUT(self) -> None:
        data = self.body()
        if not self.path.startswith("/image/v2/images/"):
            return self.say(404, {"error": {"code": 404, "message": f"the stand-in knows no {self.path}"}})
        trouble = things.upload(self.path.split("/")[4], data)
        return self.say(413, f"<html>{trouble}</html>", "text/html") if trouble else self.say(204, "")

    def do_PATCH(self) -> None:
        asked = json.loads(self.body())
        if "endpoint" in asked:
            name = self.path.rsplit("/", 1)[1]
            self.change_endpoint(name, asked["endpoint"])
            return self.say(200, {"endpoint": self.endpoints()[name]})
        name = self.path.rsplit("/", 1)[1].removeprefix("id-of-")
        things.set_password(name, asked["user"]["password"])
        return self.say(200, {"user": {"id": f"id-of-{name}", "name": name}})

    def do_DELETE(self) -> None:
        if self.path.startswith("/identity/v3/endpoints/"):
            self.change_endpoint(self.path.rsplit("/", 1)[1], None)
            return self.say(204, "")
        there = self.path.startswith("/image/v2/images/") and things.delete_image(self.path.split("/")[4])
        return self.say(204 if there else 404, "")

    def do_POST(self) -> None:
        asked = json.loads(self.body() or b"{}")
        if self.path.rstrip("/") == "/image/v2/images":
            return self.say(201, things.new_image(asked))
        if self.path.rstrip("/") == "/identity/v3/endpoints":
            name = uuid.uuid4().hex
            self.change_endpoint(name, asked["endpoint"])
            return self.say(201, {"endpoint": self.endpoints()[name]})
        if self.path.rstrip("/") != "/identity/v3/auth/tokens":
            return self.say(404, {"error": {"code": 404, "message": f"the stand-in knows no {self.path}"}})
        user = asked["auth"]["identity"]["password"]["user"]
        if user.get("name") not in things.passwords() or user.get("password") != things.passwords()[user["name"]]:
            return self.say(
                401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}
            )
        known = self.endpoints().values()
        catalogue = [
            {
                "id": kind,
                "type": kind,
                "name": NAMES[kind],
                "endpoints": [endpoint for endpoint in known if endpoint["service_id"] == kind],
            }
            for kind in TYPES
        ]
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
        entry: dict[str, Any] = {
            "id": name,
            "status": "CURRENT",
            "links": [{"rel": "self", "href": host + base[root] if root in base else ""}],
        }
        if least:
            entry |= {"version": "2.96" if root == "/compute" else least, "min_version": least, "max_version": least}
        return {"version": entry} if path.endswith(("v2.1", "v3")) else {"versions": [entry]}

    def say(
        self, status: int, value: Any, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        body = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status)
        if status != 204:  # which has no body
            headers = {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    if sys.argv[1] == "--paths":
        print("\n".join(f"{path}={port}" for port, paths in APIS.values() for path in paths))
        return
    name = sys.argv[1]
    served = [name, "horizon"] if name == "keystone" else [name]  # Horizon is no unit of DevStack's
    for entry in served:
        if entry in APIS:
            server = ThreadingHTTPServer(("127.0.0.1", APIS[entry][0]), Answers)
            threading.Thread(target=server.serve_forever, daemon=True).start()
    if name == "q-agt" and (trouble := things.tunnel_trouble()):
        sys.exit(trouble)
    print(f"{name} is ready", flush=True)
    while True:
        time.sleep(2)
        if (BREAK / name).exists():
            sys.exit(
                f"{name}: Could not retrieve schema from tcp:127.0.0.1:6640: Connection refused (the stand-in was told so)"
            )


if __name__ == "__main__":
    main()
