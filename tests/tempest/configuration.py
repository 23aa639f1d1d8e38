"""tempest.conf: where the embedded cloud is, what it has, what it can do. The rest is Tempest's defaults."""

from __future__ import annotations

from configparser import RawConfigParser
from pathlib import Path

from stacklab.files import write_atomic
from tests.tempest.prerequisites import Facts
from tests.tempest.scratch import House

NAME = "tempest.conf"
Sections = dict[str, dict[str, object]]


def write(house: House, facts: Facts) -> None:
    """Write it into the work directory, readable for its owner only: it holds the admin's password."""
    parser = RawConfigParser()
    for part in (_access(house, facts), _things(house, facts), _abilities(facts)):
        parser.read_dict(part)
    path = house.work / NAME
    write_atomic(path, "", mode=0o600)
    with path.open("w", encoding="utf-8") as file:
        parser.write(file)


def _access(house: House, facts: Facts) -> Sections:
    return {
        "DEFAULT": {"log_dir": house.work, "log_file": "tempest.log", "use_stderr": False},
        "oslo_concurrency": {"lock_path": house.work / "locks"},
        "auth": {
            "admin_username": "admin",
            "admin_password": house.lab.secret("admin"),
            "admin_project_name": "admin",
            "admin_domain_name": "Default",
        },
        "identity": {"uri_v3": house.admin.endpoint("identity"), "region": facts.region},
        "dashboard": {"dashboard_url": house.access.dashboard},
        "service_available": dict.fromkeys(("cinder", "glance", "horizon", "neutron", "nova", "swift"), True),
        # every service's policy has oslo.policy's default, which looks at a token's scope
        "enforce_scope": dict.fromkeys(("cinder", "glance", "keystone", "neutron", "nova", "placement"), True),
        # a floating IP leads nowhere here (a port of this machine stands for it), so Tempest cannot log in to instances
        "validation": {"run_validation": False, "image_ssh_user": facts.login, "image_alt_ssh_user": facts.login},
    }


def _things(house: House, facts: Facts) -> Sections:
    return {
        "compute": {
            "image_ref": facts.images[0],
            "image_ref_alt": facts.images[1],
            "flavor_ref": facts.flavors[0],
            "flavor_ref_alt": facts.flavors[1],
            "min_microversion": "2.1",
            "max_microversion": facts.newest["compute"],
        },
        "placement": {"min_microversion": "1.0", "max_microversion": facts.newest["placement"]},
        "network": {"public_network_id": facts.network, "floating_network_name": facts.network_name},
        "object-storage": {"reseller_admin_role": facts.role},
        "scenario": {"img_file": _absolute(facts.image_file), "img_disk_format": facts.image_format},
        "volume": {
            "min_microversion": "3.0",
            "max_microversion": facts.newest["block-storage"],
            "backend_names": ",".join(facts.pools),
            "storage_protocol": "file",
            "vendor_name": "lab",
        },
    }


def _abilities(facts: Facts) -> Sections:
    return {
        "compute-feature-enabled": {
            # one machine: nowhere to go
            "resize": False,
            "cold_migration": False,
            "live_migration": False,
            # the compute driver has none of these
            "suspend": False,
            "rescue": False,
            "attach_encrypted_volume": False,
            "ide_bus": False,
            # a config drive is what guests are told by
            "metadata_service": False,
            "hostname_fqdn_sanitization": True,
        },
        "identity-feature-enabled": {"access_rules": True},
        "network-feature-enabled": {
            "api_extensions": ",".join(facts.network_extensions),
            "ipv6_subnet_attributes": True,
            "port_security": True,
        },
        "object-storage-feature-enabled": {
            "discoverable_apis": ",".join(facts.object_apis),
            # not in the proxy's pipeline
            "container_sync": False,
            "object_versioning": False,
        },
        "volume-feature-enabled": {
            "api_extensions": ",".join(facts.volume_extensions),
            "backup": False,  # no cinder-backup runs
            "extend_attached_volume": True,
        },
    }


def _absolute(path: Path) -> str:
    return str(path.resolve())
