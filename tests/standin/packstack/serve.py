"""A unit of the stand-in for PackStack: it runs, and openstack-nova-api answers for all APIs on port 5000: serve.py NAME

Always the same answers, but for what is told of nova-compute and of Neutron's agents: that is as systemd has their units.
"""

# ruff: noqa: N802 - the names of http.server

import json
import sys
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.standin import api
else:
    import api  # it lies beside this file on the machine


AGENTS = ("neutron-dhcp-agent", "neutron-l3-agent", "neutron-openvswitch-agent")
PASSWORDS = Path(__file__).resolve().parent / "passwords.json"
WORKERS = {
    "/compute/v2.1/os-services": ("nova-compute", "openstack-nova-compute"),
    "/volume/v3/os-services": ("cinder-volume", "openstack-cinder-volume"),
}


def listed(path: str) -> Any:
    """What a list call is answered with, None for what is not known."""
    lists = {**api.LISTS, "/v3/projects": "projects"}
    if path == "/v3/services":
        kinds = ("identity", *api.TYPES)
        return {"services": [{"id": kind, "type": kind, "name": kind, "enabled": True} for kind in kinds]}
    if path in WORKERS:
        binary, unit = WORKERS[path]
        state = "up" if api.active(unit) else "down"
        return {"services": [{"binary": binary, "host": "standin", "state": state, "status": "enabled"}]}
    if path == "/networking/v2.0/agents":
        return {"agents": [{"binary": name, "host": "standin", "alive": api.active(name)} for name in AGENTS]}
    return {lists[path]: []} if path in lists else None


class Answers(api.Api):
    def do_GET(self) -> None:
        path, host = self.path.partition("?")[0].rstrip("/"), f"http://{self.headers['Host']}"
        if path.startswith("/dashboard"):
            return self.say(200, '<form><input type="password" name="password"></form>', kind="text/html")
        if answer := self.public(path, host, ""):
            return self.say(*answer)
        answer = listed(path)
        return self.unknown() if answer is None else self.say(200, answer)

    def do_POST(self) -> None:
        if self.path.rstrip("/") != "/v3/auth/tokens":
            return self.unknown()
        host, stacked = f"http://{self.headers['Host']}", json.loads(PASSWORDS.read_text(encoding="utf-8"))
        places = {"identity": "/v3", **api.TYPES}
        endpoints = [self.endpoint(kind, f"{host}{path}") for kind, path in places.items()]
        return self.login({"admin": stacked["ADMIN_PASSWORD"]}, endpoints)


if __name__ == "__main__":
    print(f"{sys.argv[1]} is ready", flush=True)
    if sys.argv[1] == "openstack-nova-api":
        ThreadingHTTPServer(("0.0.0.0", 5000), Answers).serve_forever()  # noqa: S104 - of the test's own machine
    while True:
        time.sleep(60)
