"""What of the stand-in's cloud can change, and break: users' passwords, images in a store, what is told of agents.

Everything is looked up when it is asked for, in files and in systemd, so that what is broken there shows here.
"""

import configparser
import errno
import json
import subprocess
import urllib.error
import urllib.request
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.standin import api
else:
    import api  # it lies beside this file on the machine


HERE = Path(__file__).resolve().parent
PASSWORDS = HERE / "passwords.json"
"""Of the local.conf that stack.sh has read."""
USERS = HERE / "users.json"
"""Passwords that were set since, by user."""
IMAGES = HERE / "images.json"
CINDER, GLANCE, ML2 = "/etc/cinder/cinder.conf", "/etc/glance/glance-api.conf", "/etc/neutron/plugins/ml2/ml2_conf.ini"
ENDPOINTS = HERE / "endpoints.json"
FILES = {
    "identity": "/etc/keystone/keystone.conf", "image": GLANCE, "volume": CINDER, "compute": "/etc/nova/nova.conf",
    "networking": "/etc/neutron/neutron.conf",
}  # fmt: skip
"""By the path that Apache passes on."""
SERVICE_USERS = ("cinder", "glance")


def setting(file: str, section: str, key: str) -> str:
    """A value of a service's file; empty if there is none."""
    parser = configparser.RawConfigParser(strict=False)
    parser.read(file)
    return parser.get(section, key, fallback="")


def passwords() -> dict[str, str]:
    """By user."""
    stacked = json.loads(PASSWORDS.read_text(encoding="utf-8"))
    users = {"admin": stacked["ADMIN_PASSWORD"], **dict.fromkeys(SERVICE_USERS, stacked["SERVICE_PASSWORD"])}
    return users | (json.loads(USERS.read_text(encoding="utf-8")) if USERS.exists() else {})


def set_password(user: str, password: str) -> None:
    """As PATCH /v3/users does it."""
    changed = json.loads(USERS.read_text(encoding="utf-8")) if USERS.exists() else {}
    USERS.write_text(json.dumps(changed | {user: password}), encoding="utf-8")


def endpoints(defaults: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Keystone's endpoints by id: these, until one of them is changed."""
    return json.loads(ENDPOINTS.read_text(encoding="utf-8")) if ENDPOINTS.exists() else defaults


def keep_endpoints(rows: dict[str, dict[str, Any]]) -> None:
    """As the API was asked to."""
    ENDPOINTS.write_text(json.dumps(rows), encoding="utf-8")


def own_address(service: str, host: str, forwarded: str) -> str:
    """What a service's own links begin with: as its file fixes it, else as it was asked, by way of which proxy.

    (oslo.middleware's http_proxy_to_wsgi; public_endpoint in Keystone and Glance)
    """
    file = FILES.get(service, "")
    fixed = setting(file, "DEFAULT", "public_endpoint") if service in ("identity", "image") else ""
    if fixed:
        return fixed.removesuffix(f"/{service}")
    believes = setting(file, "oslo_middleware", "enable_proxy_headers_parsing").lower() == "true"
    return f"{forwarded if believes and forwarded else 'http'}://{host}"


def cinder_logs_in() -> bool:
    """Whether Keystone takes the password that cinder.conf had when this process read it, as for each check of a token."""
    body = {"methods": ["password"], "password": {"user": {"name": "cinder", "password": CINDER_PASSWORD}}}
    request = urllib.request.Request(
        "http://127.0.0.1:18001/identity/v3/auth/tokens",
        json.dumps({"auth": {"identity": body}}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
    except urllib.error.HTTPError:
        return False
    return True


CINDER_PASSWORD = setting(CINDER, "keystone_authtoken", "password")


def agents() -> list[dict[str, Any]]:
    """Neutron's, as far as the machine has them: OVN's controller is the real one."""
    rows = []
    if Path("/usr/bin/ovn-appctl").exists():
        asked = ["sudo", "ovn-appctl", "-t", "ovn-controller", "connection-status"]
        status = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        rows.append(_agent("OVN Controller agent", "ovn-controller", status == "connected"))
    if Path("/etc/systemd/system/devstack@q-agt.service").exists():
        rows.append(_agent("Open vSwitch agent", "neutron-openvswitch-agent", api.active("devstack@q-agt")))
    return rows


def _agent(kind: str, binary: str, alive: bool) -> dict[str, Any]:
    row = {"id": binary, "agent_type": kind, "binary": binary, "host": "standin"}
    return {**row, "alive": alive, "admin_state_up": True}


def tunnel_trouble() -> str:
    """What Neutron's agent for Open vSwitch says of local_ip when it starts, and ends with; empty if it has nothing to say."""
    local_ip = setting(ML2, "ovs", "local_ip")
    own = subprocess.run(["ip", "-o", "-4", "addr", "show"], capture_output=True, text=True, check=True).stdout
    if not local_ip or f" {local_ip}/" in own:
        return ""
    return f"Tunneling can't be enabled with invalid local_ip '{local_ip}'. IP couldn't be found on this host's interfaces."


def images() -> dict[str, dict[str, Any]]:
    """By id."""
    rows: dict[str, dict[str, Any]] = json.loads(IMAGES.read_text(encoding="utf-8")) if IMAGES.exists() else {}
    return rows


def keep_image(image: dict[str, Any]) -> dict[str, Any]:
    """Add it or change it."""
    IMAGES.write_text(json.dumps(images() | {image["id"]: image}), encoding="utf-8")
    return image


def new_image(asked: dict[str, Any]) -> dict[str, Any]:
    """As POST /v2/images does it."""
    made = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return keep_image({"id": str(uuid.uuid4()), "status": "queued", "created_at": made, **asked})


def upload(image: str, data: bytes) -> str:
    """Into the store that glance-api.conf names; what is wrong, or nothing."""
    file = Path(setting(GLANCE, "glance_store", "filesystem_store_datadir"), image)
    try:
        file.write_bytes(data)
    except OSError as error:
        file.unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # Glance's own words.
        return "Image storage media is full: There is not enough disk space on the image storage media."
    keep_image(images()[image] | {"status": "active", "size": len(data)})
    return ""


def delete_image(image: str) -> bool:
    """And what the store has of it."""
    left = images()
    if left.pop(image, None) is None:
        return False
    IMAGES.write_text(json.dumps(left), encoding="utf-8")
    Path(setting(GLANCE, "glance_store", "filesystem_store_datadir"), image).unlink(missing_ok=True)
    return True
