"""All four Swift servers in one process: proxy, account, container and object; eventlet.

The proxy has a port. The three behind it check no tokens, so they listen on unix sockets that no other user of this
machine can open.
"""

import os
import sys
import time

from labcloud import control, settings

INNER = {
    "account": 6202,
    "container": 6201,
    "object": 6200,
}  # Swift's usual ports: rings name them, nobody listens there


def main():
    import eventlet
    from swift.common import utils

    utils.monkey_patch()
    make_rings()
    utils.set_swift_dir(settings.configuration("swift"))
    os.environ["TZ"] = "UTC+0"
    time.tzset()
    from labcloud.serving import listen_for_orders

    listen_for_orders("swift", lambda: None)
    connect_through_sockets()
    for kind in (*INNER, "proxy"):  # the proxy last: it needs the other three
        eventlet.spawn(serve, kind)
    while True:
        eventlet.sleep(3600)


def make_rings():
    """Rings for one device; made anew at each start, which takes a few milliseconds."""
    from swift.common.ring import RingBuilder

    for kind, port in INNER.items():
        builder = RingBuilder(4, 1, 1)
        builder.add_dev(
            {"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1", "port": port,
             "device": "disk", "meta": ""}
        )  # fmt: skip
        builder.rebalance(seed="lab")
        path = settings.configuration(f"swift/{kind}.ring.gz")
        builder.get_ring().save(f"{path}.new")
        os.replace(f"{path}.new", path)  # noqa: PTH105
    (settings.HOME / "swift" / "disk").mkdir(parents=True, exist_ok=True)


def socket_of(kind):
    return settings.HOME / "run" / f"swift-{kind}.sock"


def connect_through_sockets():
    """All that these servers say to each other goes by way of this class of Swift's, which knows host and port only."""
    import socket

    from swift.common.bufferedhttp import BufferedHTTPConnection

    kinds = {port: kind for kind, port in INNER.items()}

    def connect(connection):
        connection._connected_time = time.time()
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        control.connect(connection.sock, socket_of(kinds[connection.port]))

    BufferedHTTPConnection.connect = connect


def serve(kind):
    import logging

    import eventlet.wsgi
    from swift.common import constraints, wsgi
    from swift.common.http_protocol import SwiftHttpProtocol

    from labcloud.serving import behind_proxy, with_tokens

    file = settings.configuration(f"swift-{kind}.conf")
    application = wsgi.loadapp(file, global_conf={"log_name": f"{kind}-server", "log_custom_handlers": HANDLER})
    if kind == "proxy":
        address = ("127.0.0.1", settings.read()["ports"]["swift"])
        listener = eventlet.listen(address, backlog=4096)
        print(f"labcloud: swift answers on {address[0]}:{address[1]}", file=sys.stderr, flush=True)  # noqa: T201 - this is its log
    else:
        listener = control.bind(socket_of(kind), backlog=4096)
    eventlet.wsgi.server(
        listener, behind_proxy(with_tokens(application)), logging.getLogger("null"), protocol=SwiftHttpProtocol,
        socket_timeout=60, capitalize_response_headers=False, url_length_limit=constraints.MAX_REQUEST_LINE, log_output=False,
        custom_pool=wsgi.RestrictedGreenPool(size=1024),
    )  # fmt: skip


HANDLER = "labcloud.services.swift.log_to_stderr"


def log_to_stderr(conf, name, log_to_console, log_route, fmt, logger, adapted_logger):
    """Swift's `log_custom_handlers` hook: its messages belong in the one log file, not in syslog."""
    import logging

    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)


def no_cache(global_conf, **conf):
    """Paste filter in the place of Swift's memcache: nothing is remembered, so nothing has to be forgotten."""

    def wrap(application):
        return application

    return wrap


if __name__ == "__main__":
    main()
