"""Glance: one API; it keeps nothing of its database in memory but checked tokens."""

from labcloud.serving import listen_for_orders, serve


def main():
    from glance.wsgi.api import application

    listen_for_orders("glance", lambda: None)
    serve("glance", application)
