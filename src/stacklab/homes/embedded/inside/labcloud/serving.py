"""What every service process has: an HTTP server, a cache of checked tokens, a control socket."""

import logging
import resource
import sys
import threading
from time import time as now

from labcloud import control, settings


class TokenCache:
    """What keystonemiddleware keeps of checked tokens; the interface is memcache's (`[keystone_authtoken] cache`)."""

    def __init__(self):
        self._known = {}
        self._lock = threading.Lock()

    def get(self, key):
        until, value = self._known.get(key, (0, None))
        return value if until > now() else None

    def set(self, key, value, time=0, **ignored):  # memcache's name
        with self._lock:
            if len(self._known) > 2000:
                self._known.clear()
            self._known[key] = (now() + (time or 300), value)

    def clear(self):
        with self._lock:
            self._known.clear()


TOKENS = TokenCache()


def with_tokens(application):
    """The application, given our token cache under the name that the configuration files say."""

    def call(environ, start_response):
        environ["labcloud.tokens"] = TOKENS
        return application(environ, start_response)

    return call


def behind_proxy(application):
    """The application, told when a proxy on this machine ended TLS before it; waitress does the same by itself."""

    def call(environ, start_response):
        if environ.get("HTTP_X_FORWARDED_PROTO") == "https":
            environ["wsgi.url_scheme"] = "https"
        return application(environ, start_response)

    return call


def listen_for_orders(service, forget, **more):
    """`forget` (and what else the service can do) on run/<service>.sock."""

    def forget_all(request):
        TOKENS.clear()
        forget()

    orders = {"forget": forget_all, **more}

    def handle(request):
        return orders[request["do"]](request)

    control.serve_in_thread(settings.HOME / "run" / f"{service}.sock", handle)


def serve(service, application, threads=6):
    """Serve until the process is ended. Loopback only; the body limit is raised because images come through here."""
    import waitress

    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # twenty learners at once do queue, and that is fine
    # an error a request about the memcached client that nobody needs here would hide the errors that count
    logging.getLogger("stevedore.extension").setLevel(logging.CRITICAL)
    allow_many_files()
    port = settings.read()["ports"][service]
    print(f"labcloud: {service} answers on 127.0.0.1:{port}", file=sys.stderr, flush=True)  # noqa: T201 - this is its log
    waitress.serve(
        with_tokens(application),
        host="127.0.0.1",
        port=port,
        threads=threads,
        max_request_body_size=1 << 42,
        channel_timeout=600,
        # Horizon makes new sessions for every page and leaves their connections to the garbage collector. At waitress' usual
        # limit, 100, a Keystone that nobody talks to would take no more of them after thirty pages, and the cloud stand still.
        connection_limit=4000,
        asyncore_use_poll=True,  # select() cannot watch as many
        # A proxy on this machine that ends TLS says so, and links then begin with https (session https-endpoints).
        trusted_proxy="127.0.0.1",
        trusted_proxy_headers={"x-forwarded-proto"},
        clear_untrusted_proxy_headers=True,
        ident=None,
        _quiet=True,
    )


def allow_many_files(wanted=8192):
    """Every connection is one; the usual limit of 1024 is a default that any process may raise for itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )
