"""Keystone: one API."""

import gc

from labcloud.serving import listen_for_orders, serve


def main():
    from keystone.wsgi.api import application

    listen_for_orders("keystone", forget)
    serve("keystone", application)


def forget():
    """Empty every cache region; Keystone has one for each kind of thing, all in memory."""
    from dogpile.cache.region import CacheRegion

    for thing in gc.get_objects():
        if isinstance(thing, CacheRegion) and thing.is_configured:
            thing.invalidate(hard=True)
