"""Neutron's schema and the external network `public`, as DevStack names and numbers it.

Neutron's migrations alter constraints, which SQLite cannot; so the tables are made from the models of the newest
release, the rows that a migration brings are written, and the migrations are recorded as done.
"""

import os
import sqlite3
import sys
import time

from labcloud import settings


def main():
    os.environ["OS_NEUTRON_CONFIG_FILES"] = "neutron.conf"
    sys.argv = ["neutron-api"]
    from neutron import server

    server._init_configuration()
    make_schema()
    from neutron.server import api

    sys.argv = ["neutron-api"]
    application = server.boot_server(api.api_server)
    seed(application, admin_project())


def make_schema():
    from neutron.db.migration import cli
    from neutron.db.migration.models import head
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{settings.HOME}/db/neutron.db")
    metadata = head.get_metadata()
    metadata.create_all(engine)
    with engine.begin() as connection:
        add_default_rules(connection, metadata.tables, rules_of_migration(cli))
    engine.dispose()
    sys.argv = ["neutron-db-manage", "--config-file", settings.configuration("neutron.conf"), "stamp", "heads"]
    if cli.main():
        raise SystemExit("the migrations could not be recorded as done")


DEFAULT_RULES = "c33da356b165"
"""The one migration that brings rows of its own (2023.2): the rules that every new security group begins with."""


def rules_of_migration(cli):
    """As the migration itself has them."""
    from alembic.script import ScriptDirectory

    (config,) = cli.get_alembic_configs()
    return ScriptDirectory.from_config(config).get_revision(DEFAULT_RULES).module.default_template_rules


def add_default_rules(connection, tables, rules):
    rows, attributes = tables["securitygroupdefaultrules"], tables["standardattributes"]
    for rule in rules:
        values = dict(rule)
        about = {"resource_type": rows.name, "description": values.pop("description")}
        (attribute,) = connection.execute(attributes.insert().values(about)).inserted_primary_key
        connection.execute(rows.insert().values(standard_attr_id=attribute, **values))


def admin_project():
    """The id of the project `admin`, as soon as Keystone's own initialisation (it runs beside this one) has made it."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            with sqlite3.connect(settings.HOME / "db" / "keystone.db", timeout=30) as connection:
                row = connection.execute("SELECT id FROM project WHERE name = 'admin'").fetchone()
        except sqlite3.OperationalError:
            row = None  # no such table yet
        if row:
            return row[0]
        time.sleep(0.3)
    raise SystemExit("Keystone's initialisation did not make the project 'admin'")


def seed(application, project):
    """Through the API itself, in this process; this run's configuration asks for no token (auth_strategy = noauth)."""
    network = ask(application, project, "networks", "network", {
        "name": "public", "router:external": True, "provider:network_type": "flat",
        "provider:physical_network": "public", "is_default": True,
    })  # fmt: skip
    ask(application, project, "subnets", "subnet", {
        "name": "public-subnet", "network_id": network["id"], "ip_version": 4, "cidr": "172.24.4.0/24",
        "gateway_ip": "172.24.4.1", "enable_dhcp": False,
    })  # fmt: skip
    # What `server create --nic auto` takes its subnets from.
    ask(application, project, "subnetpools", "subnetpool", {
        "name": "shared-default-subnetpool-v4", "prefixes": ["10.0.0.0/22"], "default_prefixlen": 26, "shared": True,
        "is_default": True,
    })  # fmt: skip


def ask(application, project, collection, kind, values):
    import webob

    request = webob.Request.blank(f"/v2.0/{collection}", method="POST", json={kind: {"tenant_id": project, **values}})
    request.headers.update({"X-Project-Id": project, "X-Roles": "admin", "X-User-Id": project})
    request.content_type = "application/json"
    response = request.get_response(application)
    if response.status_code != 201:
        raise SystemExit(f"Neutron refused to make {values['name']}: {response.status} {response.text}")
    return response.json[kind]


if __name__ == "__main__":
    main()
