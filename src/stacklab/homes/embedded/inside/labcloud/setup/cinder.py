"""Cinder's schema and the default volume type."""

from labcloud import settings


def main():
    from cinder import context, objects, version
    from cinder.common import config  # noqa: F401 - registers Cinder's options
    from cinder.db import migration
    from cinder.volume import volume_types
    from oslo_config import cfg

    objects.register_all()
    cfg.CONF(
        ["--config-file", settings.configuration("cinder.conf")], project="cinder", version=version.version_string()
    )
    migration.db_sync()
    volume_types.create(
        context.get_admin_context(), "lab", {"volume_backend_name": "lab"}, description="A file on this machine"
    )


if __name__ == "__main__":
    main()
