"""Django settings of this cloud's Horizon, on top of Horizon's own defaults.

Static files are made once for the whole environment and shared: nothing in them depends on the cloud.
"""

import json
import os
from pathlib import Path

from openstack_dashboard.settings import *  # noqa: F403 - how a Django settings module builds on another

_file = Path(os.environ.get("LABCLOUD_HOME", "/nonexistent")) / "conf" / "dashboard.json"
# while the static files are collected there is no cloud yet
_cloud = json.loads(_file.read_text()) if _file.exists() else {}

DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
SECRET_KEY = _cloud.get("secret_key", "only while static files are collected")
OPENSTACK_HOST = "127.0.0.1"
OPENSTACK_KEYSTONE_URL = _cloud.get("keystone", "http://127.0.0.1:5000/v3")
OPENSTACK_KEYSTONE_DEFAULT_ROLE = "member"
# what this process itself asks of the services; the public endpoints are for users
OPENSTACK_ENDPOINT_TYPE = "internalURL"
OPENSTACK_KEYSTONE_MULTIDOMAIN_SUPPORT = False
SESSION_ENGINE = "django.contrib.sessions.backends.file"
SESSION_FILE_PATH = _cloud.get("sessions")
SESSION_TIMEOUT = 43200
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
COMPRESS_ENABLED = True
COMPRESS_OFFLINE = True
STATIC_ROOT = os.environ["LABCLOUD_STATIC"]
COMPRESS_ROOT = STATIC_ROOT
WEBROOT = "/"
TIME_ZONE = "UTC"
# an instance's screen is its serial console here; there is no VNC server to look for
CONSOLE_TYPE = None
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}
