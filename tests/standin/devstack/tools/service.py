#!/usr/bin/env python3
"""A service of the stand-in for DevStack: it runs, and the APIs answer the few requests that lab asks, always the same.

    service.py NAME      be the service NAME
    service.py --paths   what Apache passes on, PATH=PORT

The catalogue's addresses follow the Host header. Passwords are those of the local.conf that stack.sh has read; what
can change or break is looked up in things.py.
"""

# ruff: noqa: N802 - the names of http.server

import sys
import threading
import time
import urllib.parse
import uuid
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import things  # type: ignore[import-not-found]  # likewise

if TYPE_CHECKING:
    from tests.standin import api
else:
    import api  # it lies beside this file on the machine


APIS = {
    "keystone": (18001, "/identity"),
    "n-api": (18002, "/compute"),
    "placement-api": (18003, "/placement"),
    "c-api": (18004, "/volume"),
    "g-api": (18005, "/image"),
    "neutron-api": (18006, "/networking"),
    "horizon": (18007, "/dashboard"),
}
"""By unit: port, path."""
NAMES = {
    "identity": "keystone", "compute": "nova", "placement": "placement", "block-storage": "cinder", "image": "glance",
    "network": "neutron",
}  # fmt: skip
LISTS = {**api.LISTS, "/identity/v3/projects": "projects"}
BREAK = Path("/run/standin/break")
LOGIN_PAGE = '<form><input name="username"><input type="password" name="password"></form>'


class Answers(api.Api):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0].rstrip("/")
        root = path.split("/")[1] if "/" in path else ""
        forwarded = self.headers.get("X-Forwarded-Proto", "")
        host = things.own_address(root, self.headers.get("Host", "127.0.0.1"), forwarded)
        if path.startswith("/dashboard"):
            return self.say(200, LOGIN_PAGE, "text/html")
        if answer := self.public(path, host, "/identity"):
            return self.say(*answer)
        if path.startswith("/volume") and not things.cinder_logs_in():
            print("Identity server rejected authorization necessary to fetch token data: 401 Unauthorized", flush=True)
            return self.say(503, {"error": {"code": 503, "message": "Service Unavailable"}})
        if path.startswith("/image/v2/images/") and (image := things.images().get(path.rsplit("/", 1)[1])):
            return self.say(200, image)
        rows = self.listed(path)
        return self.unknown() if rows is None else self.say(200, rows)

    def listed(self, path: str) -> dict[str, Any] | None:
        """What a list call is answered with, None for what is not known."""
        if path == "/identity/v3/services":
            rows = [{"id": kind, "type": kind, "name": name, "enabled": True} for kind, name in NAMES.items()]
            return {"services": rows}
        if path == "/identity/v3/endpoints":
            interfaces = self.asked("interface")
            rows = list(self.endpoints().values())
            return {"endpoints": [row for row in rows if not interfaces or row["interface"] in interfaces]}
        if path == "/compute/v2.1/os-services":
            state = "up" if api.active("devstack@n-cpu") else "down"
            return {"services": [{"binary": "nova-compute", "host": "standin", "state": state, "status": "enabled"}]}
        if path == "/identity/v3/users":
            names = self.asked("name")
            users = [{"id": f"id-of-{name}", "name": name} for name in things.passwords() if not names or name in names]
            return {"users": users}
        if path == "/networking/v2.0/agents":
            return {"agents": things.agents()}
        if path == "/image/v2/images":
            names = self.asked("name")
            return {"images": [image for image in things.images().values() if not names or image["name"] in names]}
        return {LISTS[path]: []} if path in LISTS else None

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """As DevStack registers them: public ones alone."""
        host = self.headers.get("Host", "127.0.0.1").partition(":")[0]
        places = {"identity": "/identity", **api.TYPES}
        defaults = {kind: self.endpoint(kind, f"http://{host}{path}") for kind, path in places.items()}
        there: dict[str, dict[str, Any]] = things.endpoints(defaults)
        return there

    def change_endpoint(self, name: str, values: dict[str, Any] | None) -> None:
        endpoints = self.endpoints()
        if values is None:
            endpoints.pop(name, None)
        else:
            old = endpoints.get(name, {"id": name, "enabled": True, "region": values.get("region_id")})
            endpoints[name] = {**old, **values}
        things.keep_endpoints(endpoints)

    def asked(self, key: str) -> list[str]:
        """The values of one of the query's keys."""
        return urllib.parse.parse_qs(self.path.partition("?")[2]).get(key, [])

    def do_PUT(self) -> None:
        data = self.content()
        if not self.path.startswith("/image/v2/images/"):
            return self.unknown()
        trouble = things.upload(self.path.split("/")[4], data)
        return self.say(413, f"<html>{trouble}</html>", "text/html") if trouble else self.say(204, "")

    def do_PATCH(self) -> None:
        asked, name = self.body(), self.path.rsplit("/", 1)[1]
        if "endpoint" in asked:
            self.change_endpoint(name, asked["endpoint"])
            return self.say(200, {"endpoint": self.endpoints()[name]})
        user = name.removeprefix("id-of-")
        things.set_password(user, asked["user"]["password"])
        return self.say(200, {"user": {"id": name, "name": user}})

    def do_DELETE(self) -> None:
        if self.path.startswith("/identity/v3/endpoints/"):
            self.change_endpoint(self.path.rsplit("/", 1)[1], None)
            return self.say(204, "")
        there = self.path.startswith("/image/v2/images/") and things.delete_image(self.path.split("/")[4])
        return self.say(204 if there else 404, "")

    def do_POST(self) -> None:
        path = self.path.rstrip("/")
        if path == "/identity/v3/auth/tokens":
            return self.login(things.passwords(), list(self.endpoints().values()))
        if path == "/image/v2/images":
            return self.say(201, things.new_image(self.body()))
        if path == "/identity/v3/endpoints":
            name = uuid.uuid4().hex
            self.change_endpoint(name, self.body()["endpoint"])
            return self.say(201, {"endpoint": self.endpoints()[name]})
        return self.unknown()


def main() -> None:
    name = sys.argv[1]
    if name == "--paths":
        print("\n".join(f"{path}={port}" for port, path in APIS.values()))
        return
    for unit in [name, "horizon"] if name == "keystone" else [name]:  # Horizon is no unit of DevStack's
        if unit in APIS:
            server = ThreadingHTTPServer(("127.0.0.1", APIS[unit][0]), Answers)
            threading.Thread(target=server.serve_forever, daemon=True).start()
    if name == "q-agt" and (trouble := things.tunnel_trouble()):
        sys.exit(trouble)
    print(f"{name} is ready", flush=True)
    while not (BREAK / name).exists():
        time.sleep(2)
    sys.exit(
        f"{name}: Could not retrieve schema from tcp:127.0.0.1:6640: Connection refused (the stand-in was told so)"
    )


if __name__ == "__main__":
    main()
