"""Glance's schema and the metadata definitions that Horizon offers."""

import os
import sys

from labcloud import settings


def main():
    from glance.cmd import manage

    sys.argv = ["glance-manage", "--config-file", settings.configuration("glance-api.conf"), "db", "sync"]
    if manage.main():
        raise SystemExit("Glance's schema could not be made")
    manage.DbCommands().load_metadefs(os.path.join(sys.prefix, "etc", "glance", "metadefs"))  # noqa: PTH118


if __name__ == "__main__":
    main()
