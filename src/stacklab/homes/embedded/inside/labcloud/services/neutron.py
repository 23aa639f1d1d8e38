"""Neutron: one API, and no agents but those that OVN has."""

from functools import cache

from labcloud import settings
from labcloud.serving import listen_for_orders, serve


def main():
    if settings.read()["network"] == "ovn":
        keep_ring_still()
    from neutron.wsgi.api import application

    listen_for_orders("neutron", forget)
    tell_ovn()
    serve("neutron", application)


def forget():
    """Which projects' quota usage is counted already, and which is to be counted again; what OVN has of networks of before."""
    from neutron.quota import resource_registry

    for resource in resource_registry.get_all_resources().values():
        for name in ("_dirty_tenants", "_out_of_sync_tenants"):
            getattr(resource, name, set()).clear()
    tell_ovn()


def keep_ring_still():
    """Neutron's workers tell in the database which of them live. Ours is the only one, and a thread of its own says so.

    The one that takes OVN's events must not: a request that holds SQLite's only write lock may wait for that very thread.
    """
    from neutron.db import ovn_hash_ring_db

    ovn_hash_ring_db.touch_node = lambda context, node: None


def tell_ovn():
    """Write anew what OVN is to do, where it has an OVN: it knows nothing that Neutron's database does not say."""
    if settings.read()["network"] != "ovn":
        return
    from neutron.db import ovn_hash_ring_db
    from neutron_lib import context
    from neutron_lib.plugins import directory

    plugin, admin = directory.get_plugin(), context.get_admin_context()
    driver = plugin.mechanism_manager.mech_drivers["ovn"].obj
    # A database that was put back may be from before the cloud had OVN, and may not know this worker.
    plugin.type_manager.drivers["geneve"].obj._sync_allocations()
    known = ovn_hash_ring_db.get_nodes(admin, driver.hash_ring_group)
    if driver.node_uuid not in {node.node_uuid for node in known}:
        driver._init_hash_ring(admin)
    for synchronizer in synchronizers():
        synchronizer.do_sync()  # `sync` does it ten seconds later, in a thread


@cache
def synchronizers():
    """What neutron-ovn-db-sync-util does its work with: from Neutron's database into OVN's."""
    from neutron.conf.plugins.ml2.drivers.ovn import ovn_conf
    from neutron.plugins.ml2.drivers.ovn.mech_driver.ovsdb import ovn_db_sync
    from neutron_lib.plugins import directory

    plugin = directory.get_plugin()
    parts = (plugin, plugin.mechanism_manager.mech_drivers["ovn"].obj, ovn_conf.get_ovn_neutron_sync_mode())
    return ovn_db_sync.OvnNbSynchronizer(*parts), ovn_db_sync.OvnSbSynchronizer(*parts)
