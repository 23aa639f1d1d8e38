"""All of Nova in one process: conductor, scheduler, compute and the API, talking through memory (fake://)."""

import os
import socket
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor

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
    listen_for_orders("nova", forget, end_guests=end_guests, freeze=freeze, thaw=thaw)
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
        worker = service.Service.create(binary=binary, topic=topic, topic_alt=other)
        worker.start()
        SERVICES.append(worker)


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
    return next(worker.manager for worker in SERVICES if worker.binary == binary)


# --- orders ---------------------------------------------------------------------------------------------------------


def end_guests(request):
    """End what runs in this cloud's instances; they count as running still, so that the next start brings them back.

    `grace`: seconds for the guests to shut down by themselves before their power is cut.
    """
    driver = manager_of("nova-compute").driver
    if request.get("grace") and hasattr(driver, "watch"):
        driver.watch.forget()  # else Nova would note that they were stopped
        guests = [driver.process(uuid) for uuid in driver.list_instance_uuids()]
        running = [guest for guest in guests if guest.runs()]
        with ThreadPoolExecutor(max(1, len(running))) as pool:
            list(pool.map(lambda guest: guest.press_power_button(request["grace"]), running))
    driver.end_all_guests()


def freeze(request):
    """Stop the guests' clocks while their disks are copied; QEMU writes out what it holds back when it stops."""
    driver = manager_of("nova-compute").driver
    frozen = []
    for uuid in driver.list_instance_uuids():
        if hasattr(driver, "process") and driver.process(uuid).status() == "running":
            driver.pause(_named(uuid))
            frozen.append(uuid)
    return {"frozen": frozen}


def thaw(request):
    driver = manager_of("nova-compute").driver
    for uuid in request["frozen"]:
        driver.unpause(_named(uuid))


def _named(uuid):
    return types.SimpleNamespace(uuid=uuid)


def forget():
    """Databases and files were put back to an earlier state: drop what was known, look again, take up what is there.

    As nova-compute does when it starts (ComputeManager.init_host), without the seconds that loading takes.
    """
    from nova import context, objects

    admin = context.get_admin_context()
    compute = manager_of("nova-compute")
    forget_schedule(admin)
    for worker in SERVICES:
        worker.servicegroup_api._driver._report_state(worker)
    compute.driver.forget()
    forget_resources(compute.rt)
    wanted = ["info_cache", "metadata", "numa_topology"]
    for instance in objects.InstanceList.get_by_host(admin, compute.host, expected_attrs=wanted):
        compute._init_instance(admin, instance)
    compute.update_available_resource(admin)


def forget_resources(tracker):
    """What the resource tracker knows of the host, and what every client of Placement in this process knows of it."""
    for known in (
        tracker.compute_nodes, tracker.stats, tracker.tracked_instances, tracker.tracked_migrations, tracker.is_bfv,
        tracker.old_resources, tracker.assigned_resources, tracker.absent_providers,
    ):  # fmt: skip
        known.clear()
    tracker.provider_tree = None
    tracker.reportclient.clear_provider_cache()


def forget_schedule(admin):
    manager = manager_of("nova-scheduler")
    hosts = manager.host_manager
    hosts.refresh_cells_caches()
    hosts.aggs_by_id.clear()
    hosts.host_aggregates_map.clear()
    hosts._init_aggregates()
    hosts._instance_info.clear()
    hosts._init_instance_info()
