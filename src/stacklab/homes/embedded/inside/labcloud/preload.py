"""The libraries that the native-thread services share, imported once in the supervisor, from which they are forked.

Nothing here may start a thread, open a connection, or let eventlet patch anything (Cinder and Swift are started apart
for that reason).
"""

import gc
import importlib
import sys

MODULES = """
oslo_config.cfg oslo_log.log oslo_db.sqlalchemy.enginefacade sqlalchemy.orm sqlalchemy.dialects.sqlite
alembic.command oslo_messaging oslo_messaging._drivers.common labcloud.sqlite labcloud.serving
keystoneauth1.session keystoneauth1.identity keystoneauth1.loading keystonemiddleware.auth_token webob
webob.dec routes paste.deploy requests jsonschema cryptography.fernet oslo_policy.policy oslo_policy.opts
oslo_versionedobjects.base oslo_versionedobjects.fields oslo_middleware oslo_concurrency.processutils
oslo_concurrency.lockutils oslo_utils.timeutils oslo_utils.netutils oslo_serialization.jsonutils
oslo_cache.core dogpile.cache stevedore waitress netaddr lxml.etree yaml oslo_i18n oslo_context.context
oslo_upgradecheck.upgradecheck osprofiler.profiler castellan.key_manager pecan
oslo_reports.guru_meditation_report openstack openstack.connection os_brick.initiator.connector os_vif
oslo_privsep.priv_context tooz.coordination glance_store cinderclient.v3.client neutronclient.v2_0.client
neutron_lib.api.definitions neutron_lib.plugins.ml2.api os_traits os_resource_classes
""".split()  # noqa: SIM905 - a list of sixty quoted words is not easier to read


def preload():
    """Import what there is; returns what could not be imported (worth a line in the log, not an end)."""
    from oslo_service import backend

    backend.init_backend(backend.BackendType.THREADING)
    missing = []
    for module in MODULES:
        try:
            importlib.import_module(module)
        except ImportError as error:
            missing.append(f"{module}: {error}")
    eventlet = sys.modules.get("eventlet.patcher")  # some libraries import it to look; harmless until it patches
    if eventlet and eventlet.already_patched:
        raise SystemExit("eventlet patched the parent of native-thread services")
    gc.collect()
    gc.freeze()  # keeps the collector from touching, and so copying, the pages that the children share
    return missing
