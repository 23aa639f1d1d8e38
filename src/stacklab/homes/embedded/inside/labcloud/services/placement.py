"""Placement: one API; it keeps nothing of its database in memory but checked tokens."""

from labcloud.serving import listen_for_orders, serve


def main():
    from placement.wsgi.api import application

    listen_for_orders("placement", lambda: None)
    serve("placement", application)
