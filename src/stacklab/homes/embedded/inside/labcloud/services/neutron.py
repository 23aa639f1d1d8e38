"""Neutron: one API, no agents."""

from labcloud.serving import listen_for_orders, serve


def main():
    from neutron.wsgi.api import application

    listen_for_orders("neutron", forget)
    serve("neutron", application)


def forget():
    """Which projects' quota usage is counted already, and which is to be counted again."""
    from neutron.quota import resource_registry

    for resource in resource_registry.get_all_resources().values():
        for name in ("_dirty_tenants", "_out_of_sync_tenants"):
            getattr(resource, name, set()).clear()
