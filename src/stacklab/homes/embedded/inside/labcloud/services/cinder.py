"""All of Cinder in one process: scheduler, volume service and API, talking through memory (fake://); still eventlet.

As cinder/cmd/volume.py, cinder/cmd/scheduler.py and cinder/cmd/api.py do it, without their forks.
"""

import eventlet

eventlet.monkey_patch()
import threading  # noqa: E402

import __original_module_threading as original_threading  # noqa: E402 - see cinder/cmd/volume.py

original_threading.current_thread.__globals__["_active"] = threading._active

import shlex  # noqa: E402
import sys  # noqa: E402

from labcloud import settings  # noqa: E402
from labcloud.serving import behind_proxy, listen_for_orders, with_tokens  # noqa: E402

SERVICES = []  # scheduler and volume service


def main():
    sys.argv = ["cinder", "--config-file", settings.configuration("cinder.conf")]
    from cinder.wsgi.api import application

    start_services()
    listen_for_orders("cinder", forget)
    serve(application)


def start_services():
    import os_brick
    from cinder import service, utils
    from cinder.common import constants
    from oslo_config import cfg
    from oslo_privsep import priv_context

    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    os_brick.setup(cfg.CONF)
    host = f"{cfg.CONF.host}@lab"
    cfg.CONF.register_opt(cfg.StrOpt("backend_host"), group="lab")
    scheduler = service.Service.create(binary="cinder-scheduler")
    volume = service.Service.create(
        host=host, service_name="lab", binary=constants.VOLUME_BINARY, coordination=True, cluster=None
    )
    # the scheduler asks the volume service what it has, and waits a minute for it: so the volume service comes first
    for worker in (volume, scheduler):
        worker.report_state = heartbeat(service.Service, worker)
        worker.start()
        SERVICES.append(worker)


def heartbeat(kind, worker):
    """Cinder keeps the id of *the* service of a process on the class; here are two, so each says which it is."""
    report_state = worker.report_state

    def report():
        kind.service_id = worker.origin_service_id
        report_state()

    return report


def serve(application):
    import eventlet.wsgi

    port = settings.read()["ports"]["cinder"]
    listener = eventlet.listen(("127.0.0.1", port), reuse_port=False)
    print(f"labcloud: cinder answers on 127.0.0.1:{port}", file=sys.stderr, flush=True)  # noqa: T201 - this is its log
    eventlet.wsgi.server(
        listener,
        behind_proxy(with_tokens(application)),
        log_output=False,
        socket_timeout=900,
        keepalive=True,
        debug=False,
    )


def forget():
    """What the scheduler knows of the pool, and what the volume service counted of it."""
    from cinder import context, objects

    admin = context.get_admin_context()
    volume, scheduler = (worker.manager for worker in SERVICES)
    hosts = scheduler.driver.host_manager
    for known in (hosts.service_states, hosts.backend_state_map, hosts.service_states_last_update):
        known.clear()
    volume.stats = {"pools": {}, "allocated_capacity_gb": 0}
    for listed in objects.VolumeList.get_all_by_host(admin, volume.host):
        volume._count_allocated_capacity(admin, listed)
    for service in SERVICES:
        service.report_state()
    volume.publish_service_capabilities(admin)


if __name__ == "__main__":
    main()
