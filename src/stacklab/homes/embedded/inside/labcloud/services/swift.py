"""All four Swift servers in one process: proxy, account, container and object, each on a port of its own; eventlet."""

import os
import sys
import time

from labcloud import settings

SERVERS = ("swift-account", "swift-container", "swift-object", "swift")  # the proxy last: it needs the other three


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
    for name in SERVERS:
        eventlet.spawn(serve, name)
    while True:
        eventlet.sleep(3600)


def make_rings():
    """Rings for one device; they name the servers' ports, so they are made anew at each start (a few milliseconds)."""
    from swift.common.ring import RingBuilder

    ports = settings.read()["ports"]
    for kind in ("account", "container", "object"):
        builder = RingBuilder(4, 1, 1)
        builder.add_dev(
            {"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1", "port": ports[f"swift-{kind}"],
             "device": "disk", "meta": ""}
        )  # fmt: skip
        builder.rebalance(seed="lab")
        path = settings.configuration(f"swift/{kind}.ring.gz")
        builder.get_ring().save(f"{path}.new")
        os.replace(f"{path}.new", path)  # noqa: PTH105
    (settings.HOME / "swift" / "disk").mkdir(parents=True, exist_ok=True)


def serve(name):
    import logging

    import eventlet.wsgi
    from swift.common import constraints, wsgi
    from swift.common.http_protocol import SwiftHttpProtocol

    from labcloud.serving import behind_proxy, with_tokens

    short = "proxy" if name == "swift" else name.removeprefix("swift-")
    file = settings.configuration(f"swift-{short}.conf")
    application = wsgi.loadapp(file, global_conf={"log_name": f"{short}-server", "log_custom_handlers": HANDLER})
    port = settings.read()["ports"][name]
    listener = eventlet.listen(("127.0.0.1", port), backlog=4096)
    print(f"labcloud: {name} answers on 127.0.0.1:{port}", file=sys.stderr, flush=True)  # noqa: T201 - this is its log
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
