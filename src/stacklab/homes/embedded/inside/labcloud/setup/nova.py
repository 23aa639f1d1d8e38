"""Nova's schemas, its cells, the host, and the flavors that DevStack has.

Flavors as in DevStack's lib/nova (create_flavors): nano and micro for tests, cirros256, then the sizes of every
course.
"""

import shutil
import sqlite3

from labcloud import settings

FLAVORS = (  # name, id, memory in MiB, disk in GiB, VCPUs
    ("m1.nano", "42", 64, 1, 1),
    ("m1.micro", "84", 128, 1, 1),
    ("cirros256", "c1", 256, 1, 1),
    ("m1.tiny", "1", 512, 1, 1),
    ("m1.small", "2", 2048, 20, 1),
    ("m1.medium", "3", 4096, 40, 2),
    ("m1.large", "4", 8192, 80, 4),
    ("m1.xlarge", "5", 16384, 160, 8),
    ("ds512M", "d1", 512, 5, 1),
    ("ds1G", "d2", 1024, 10, 1),
)


def main():
    from nova import config, objects
    from nova.db import migration

    config.parse_args(["nova-manage", "--config-file", settings.configuration("nova.conf")])
    objects.register_all()
    migration.db_sync(database="api")
    migration.db_sync(database="main")
    copy_to_cell0()
    seed(objects)


def copy_to_cell0():
    """cell0 (instances that found no host) has the same schema: a copy of the file costs less than migrating again."""
    database = settings.HOME / "db" / "nova_cell1.db"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(database, database.with_name("nova_cell0.db"))


def seed(objects):
    import nova.conf
    from nova import context
    from oslo_utils import uuidutils

    admin = context.get_admin_context()
    connection = nova.conf.CONF.database.connection
    cell0 = objects.CellMapping.CELL0_UUID
    cells = (
        ("cell0", cell0, "none:///", connection.replace("nova_cell1", "nova_cell0")),
        ("cell1", uuidutils.generate_uuid(), "fake:///", connection),
    )
    for name, uuid, transport, database in cells:
        cell = objects.CellMapping(
            admin, uuid=uuid, name=name, transport_url=transport, database_connection=database, disabled=False
        )
        cell.create()
    objects.HostMapping(admin, host=nova.conf.CONF.host, cell_mapping=cell).create()
    for name, flavor_id, memory, disk, vcpus in FLAVORS:
        objects.Flavor(
            admin, name=name, flavorid=flavor_id, memory_mb=memory, root_gb=disk, vcpus=vcpus, ephemeral_gb=0,
            swap=0, rxtx_factor=1.0, is_public=True, disabled=False,
        ).create()  # fmt: skip


if __name__ == "__main__":
    main()
