"""Keystone's schema, the admin, the project `service` with a user for each service, and the catalogue.

The passwords and addresses made here are replaced for each cloud by `labcloud.personalise`.
"""

import secrets
import uuid

from labcloud import settings

SERVICES = {  # name of the service (and of its user): type in the catalogue
    "glance": "image",
    "placement": "placement",
    "nova": "compute",
    "neutron": "network",
    "cinder": "block-storage",
    "swift": "object-store",
}


def main():
    from keystone.cmd.bootstrap import Bootstrapper
    from keystone.common import fernet_utils
    from keystone.common.sql import upgrades
    from keystone.server import configure

    configure(config_files=[settings.configuration("keystone.conf")])
    upgrades.offline_sync_database_to_version(None)
    make_keys(fernet_utils)
    bootstrap = Bootstrapper()
    bootstrap.admin_username = bootstrap.project_name = bootstrap.admin_role_name = "admin"
    bootstrap.admin_password = secrets.token_urlsafe(16)
    bootstrap.service_name = "keystone"
    bootstrap.region_id = "RegionOne"
    address = settings.read()["urls"]["keystone"]
    bootstrap.public_url = bootstrap.internal_url = bootstrap.admin_url = address
    bootstrap.bootstrap()
    register(bootstrap)


def make_keys(fernet_utils):
    """Keys for this run only; `personalise` makes each cloud's own."""
    for name, directory in (("fernet_tokens", "fernet"), ("credential", "credential")):
        (settings.HOME / "keys" / directory).mkdir(parents=True, exist_ok=True)
        path = str(settings.HOME / "keys" / directory)
        fernet_utils.FernetUtils(path, 3, name).initialize_key_repository()


def register(bootstrap):
    from keystone.common import provider_api

    providers = provider_api.ProviderAPIs
    project = {
        "id": uuid.uuid4().hex,
        "name": "service",
        "domain_id": "default",
        "enabled": True,
        "is_domain": False,
        "parent_id": "default",
        "description": "The services' own users",
    }
    providers.resource_api.create_project(project["id"], project)
    urls = settings.read()["urls"]
    for name, kind in SERVICES.items():
        user = providers.identity_api.create_user(
            {"name": name, "domain_id": "default", "enabled": True, "password": secrets.token_urlsafe(16)}
        )
        for role in (bootstrap.admin_role_id, bootstrap.service_role_id):
            providers.assignment_api.add_role_to_user_and_project(user["id"], project["id"], role)
        add_to_catalogue(providers, name, kind, urls[name])


def add_to_catalogue(providers, name, kind, url):
    service = {"id": uuid.uuid4().hex, "type": kind, "name": name, "enabled": True}
    providers.catalog_api.create_service(service["id"], service)
    for interface in ("public", "internal", "admin"):
        endpoint = {
            "id": uuid.uuid4().hex,
            "interface": interface,
            "service_id": service["id"],
            "url": url,
            "enabled": True,
            "region_id": "RegionOne",
        }
        providers.catalog_api.create_endpoint(endpoint["id"], endpoint)


if __name__ == "__main__":
    main()
