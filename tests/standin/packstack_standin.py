"""Bringing the stand-in for PackStack to a machine, and a profile for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stacklab.machines.base import Machine
from tests.standin import API, behave, profile_data

DIRECTORY = Path(__file__).parent / "packstack"
ON_MACHINE = "/opt/standin-packstack"
UNITS = [
    *("openstack-nova-api", "openstack-nova-scheduler", "openstack-nova-conductor", "openstack-nova-compute"),
    *("openstack-glance-api", "neutron-server", "neutron-dhcp-agent", "neutron-l3-agent", "neutron-openvswitch-agent"),
    *("openstack-cinder-api", "openstack-cinder-volume"),
]


def bring(machine: Machine, **settings: str) -> None:
    """The command `packstack` on the machine, and how it shall behave."""
    for path in (DIRECTORY / "packstack", DIRECTORY / "serve.py", API):
        machine.put(f"{ON_MACHINE}/{path.name}", path.read_bytes(), mode=0o755)
    machine.run("ln", "-sf", f"{ON_MACHINE}/packstack", "/usr/local/bin/packstack", user="root")
    behave(machine, **settings)


def packstack_profile_data(**changes: Any) -> dict[str, Any]:
    """A profile for Debian 12 with the stand-in, as the text of a profile's file would hold it."""
    data = profile_data(
        name="standin-packstack",
        title="Debian 12 and a stand-in for PackStack",
        deployed_by="packstack",
        packages={"install": ["python3"]},
        switched={"off": ["NetworkManager"], "on": ["network"]},
        values={
            "ssh_key": "/root/.ssh/id_rsa.pub",
            "api_workers": 1,
            "volume_size": "2G",
            "answers_image_name": "cirros",
            "answers_image": "/var/lib/stacklab/images/cirros.img",
        },
        services={"swift": {"title": "Swift", "values": {"CONFIG_SWIFT_INSTALL": "y"}}},
        cloud={"identity": ":5000/v3", "dashboard": ":5000/dashboard/", "service_project": "services"},
    )
    data["units"] |= {
        "apache": "httpd",
        "devstack": [],
        "openstack": UNITS,
        "network_agent": "neutron-openvswitch-agent",
    }
    return data | changes
