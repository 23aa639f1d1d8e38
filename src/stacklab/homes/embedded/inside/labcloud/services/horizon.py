"""Horizon, and its static files served beside it."""

import mimetypes
import os
from pathlib import Path

from labcloud.serving import listen_for_orders, serve


def main():
    os.environ["DJANGO_SETTINGS_MODULE"] = "labcloud.dashboard.settings"
    from django.core.wsgi import get_wsgi_application

    let_nothing_be_asked()
    listen_for_orders("horizon", forget)
    serve("horizon", with_static_files(get_wsgi_application()), threads=8)


def let_nothing_be_asked():
    """Horizon 25.7 asks for the metadata definitions of a resource type that Glance's lack (OS::Cinder::Volumes), and
    answers 500 in the launch dialog because it cannot make a pool of no threads for the empty list.
    """
    from openstack_dashboard.utils import futurist_utils

    several = futurist_utils.call_functions_parallel
    futurist_utils.call_functions_parallel = lambda *calls: several(*calls) if calls else ()


def with_static_files(application):
    root = Path(os.environ["LABCLOUD_STATIC"]).resolve()

    def call(environ, start_response):
        path = environ.get("PATH_INFO", "")
        if not path.startswith("/static/"):
            return application(environ, start_response)
        file = (root / path.removeprefix("/static/")).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"no such file\n"]
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        headers = [
            ("Content-Type", kind),
            ("Content-Length", str(file.stat().st_size)),
            ("Cache-Control", "max-age=3600"),
        ]
        start_response("200 OK", headers)
        return environ["wsgi.file_wrapper"](file.open("rb"))

    return call


def forget():
    """What Django cached in this process (flavors, images, quotas of the last pages)."""
    from django.core.cache import caches

    caches["default"].clear()
