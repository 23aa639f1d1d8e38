"""Placement's schema, traits and resource classes."""

import sys

from labcloud import settings


def main():
    from placement.cmd import manage

    sys.argv = ["placement-manage", "--config-file", settings.configuration("placement.conf"), "db", "sync"]
    raise SystemExit(manage.main())


if __name__ == "__main__":
    main()
