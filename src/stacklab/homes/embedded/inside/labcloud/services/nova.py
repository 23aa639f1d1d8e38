"""All of Nova in one process: conductor, scheduler, compute and the API, talking through memory (fake://)."""

import os
import socket
import sys
import time

from labcloud import settings
from labcloud.serving import listen_for_orders, serve

SERVICES = []  # the three that run beside the API


def main():
    import nova.virt

    from labcloud import compute

    nova.virt.__path__.extend(compute.__path__)  # Nova loads drivers from nova.virt only
    sys.argv = ["nova"]
    os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"
    from nova.wsgi.osapi_compute import application

    start_services()
    listen_for_orders("nova", forget, end_guests=end_guests)
    serve("nova", application, threads=8)


def start_services():
    import nova.conf
    import os_brick
    import os_vif
    from nova import objects, service
    from nova.compute import rpcapi as compute
    from nova.conductor import rpcapi as conductor
    from nova.scheduler import rpcapi as scheduler

    os_brick.setup(nova.conf.CONF)
    os_vif.initialize()
    objects.Service.enable_min_version_cache()
    wait_for("keystone", "placement")  # compute announces its host to Placement once, at start
    for binary, topic, other in (
        ("nova-conductor", conductor.RPC_TOPIC, None),
        ("nova-scheduler", scheduler.RPC_TOPIC, None),
        ("nova-compute", compute.RPC_TOPIC, compute.RPC_TOPIC_ALT),
    ):
        one = service.Service.create(binary=binary, topic=topic, topic_alt=other)
        one.start()
        SERVICES.append(one)


def wait_for(*names, patience=90):
    """Until each of the named services accepts a connection."""
    ports = settings.read()["ports"]
    deadline = time.monotonic() + patience
    for name in names:
        while True:
            try:
                socket.create_connection(("127.0.0.1", ports[name]), timeout=5).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{name} does not answer on port {ports[name]}") from None
                time.sleep(0.1)


def manager_of(binary):
    return next(one.manager for one in SERVICES if one.binary == binary)


def end_guests(request):
    """End what runs in this cloud's instances; they count as running still, so that the next start brings them back."""
    manager_of("nova-compute").driver.end_all_guests()


def forget():
    """placeholder: see forget in the next commit"""
