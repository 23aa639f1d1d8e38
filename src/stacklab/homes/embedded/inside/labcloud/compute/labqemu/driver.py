"""LabQemuDriver: Nova's calls, translated into a QEMU process per instance (process), its machine and its disks.

With one compute node there is nowhere to migrate to, so resize, migrate and evacuate are refused; so are rescue and
suspend, which Nova reports as not supported. See network.py for what the guests' network cannot do.
"""

import contextlib
import re
import subprocess

from nova import exception
from nova.compute import power_state, task_states
from nova.image import glance
from nova.virt import hardware
from nova.virt.labqemu import disks, hotplug, machine, network, qmp
from nova.virt.labqemu.options import CONF, instance_directory, let_nova_find_qemu_img, qemu_binary, qemu_img
from nova.virt.labqemu.process import GuestProcess, Watch, end_many, tail
from nova.virt.labqemu.state import LabStateDriver
from oslo_log import log as logging

LOG = logging.getLogger(__name__)
STATES = {"running": power_state.RUNNING, "paused": power_state.PAUSED}


class LabQemuDriver(LabStateDriver):
    """Instances that really run. Without QEMU on this machine, asking for one yields a LabStateDriver."""

    def __new__(cls, virtapi, read_only=False):
        if qemu_binary() and qemu_img():
            return super().__new__(cls)
        LOG.warning("QEMU is not installed: instances are API state only")
        return LabStateDriver(virtapi, read_only)

    def init_host(self, host):
        super().init_host(host)
        let_nova_find_qemu_img()
        version = subprocess.run([qemu_binary(), "--version"], capture_output=True, text=True, check=True).stdout
        match = re.search(r"(\d+)\.(\d+)\.(\d+)", version)
        major, minor, micro = map(int, match.groups()) if match else (0, 0, 0)
        self.hypervisor = ("QEMU", major * 1000000 + minor * 1000 + micro)
        self.watch = Watch(self.emit_event)
        for uuid in self.list_instance_uuids():
            self.watch.add(self.process(uuid))

    def process(self, uuid):
        return GuestProcess(uuid, instance_directory(uuid))

    # --- life -----------------------------------------------------------------------------------------------------

    def get_info(self, instance, use_cache=True):
        self.require(instance)
        try:
            status = self.process(instance.uuid).status()
        except qmp.QmpError:
            LOG.exception("QEMU runs but does not answer", instance=instance)
            return hardware.InstanceInfo(state=power_state.NOSTATE)
        # A QEMU that is there but in none of these states (starting, out of disk space) is not off.
        state = power_state.SHUTDOWN if status is None else STATES.get(status, power_state.RUNNING)
        return hardware.InstanceInfo(state=state)

    def spawn(self, context, instance, image_meta, injected_files, admin_password, allocations, network_info=None,
              block_device_info=None, power_on=True, accel_info=None):  # fmt: skip
        if network_info is not None:
            network_info.wait(do_raise=True)
        directory = instance_directory(instance.uuid)
        self.write_record(instance)
        try:
            if machine.root_volume(block_device_info) is None:
                disks.make_root(context, instance, image_meta, directory)
            disks.make_extra(block_device_info, directory)
            disks.make_config_drive(instance, injected_files, admin_password, network_info, directory / "disk.config")
            if power_on:
                self._start(instance, network_info, block_device_info)
        except Exception:
            # Nova tidies up after a failed spawn only where it tries again on another node.
            self.process(instance.uuid).end()
            self.delete_instance_files(instance)
            raise

    def _start(self, instance, network_info, block_device_info):
        directory, process = instance_directory(instance.uuid), self.process(instance.uuid)
        if network.on_bridge():
            network.plug(instance, network_info)
            process.start(machine.command(instance, directory, network_info, block_device_info, None))
        else:
            self._start_with_port(process, instance, network_info, block_device_info)
        self.write_record(instance, state="running")
        self.watch.add(process)

    def _start_with_port(self, process, instance, network_info, block_device_info):
        directory = instance_directory(instance.uuid)
        forward, attempts = network.SshForward(directory), 3
        for attempt in range(1, attempts + 1):
            port = forward.choose()
            works = False
            try:
                process.start(machine.command(instance, directory, network_info, block_device_info, port))
                works = True
                break
            except exception.InternalError as error:
                # Between our look and QEMU's bind somebody else may have taken the port.
                if attempt == attempts or "host forwarding" not in str(error):
                    raise
            finally:
                forward.settle(port, works=works)

    def power_on(self, context, instance, network_info, block_device_info=None, accel_info=None, share_info=None):
        self.require(instance)
        if not self.process(instance.uuid).runs():
            self._start(instance, network_info, block_device_info)

    def power_off(self, instance, timeout=0, retry_interval=0):
        self.require(instance)
        process = self.process(instance.uuid)
        self._let_it_run(instance)
        if not (timeout and process.press_power_button(timeout)):
            process.end()
        self.write_record(instance, state="shutdown")

    def _let_it_run(self, instance):
        """A paused guest cannot shut down."""
        with contextlib.suppress(qmp.QmpError):
            if self.process(instance.uuid).status() == "paused":
                self.unpause(instance)

    def reboot(self, context, instance, network_info, reboot_type, block_device_info=None, bad_volumes_callback=None,
               accel_info=None, share_info=None):  # fmt: skip
        """Soft: the guest shuts down by itself. Hard, or where it does not: the power is cut. Then it starts anew."""
        process = self.process(instance.uuid)
        if not (reboot_type == "SOFT" and process.press_power_button(CONF.lab.soft_reboot_timeout)):
            process.end()
        directory = instance_directory(instance.uuid)
        if machine.root_volume(block_device_info) is None and not (directory / "disk").exists():
            raise exception.DiskNotFound(location=str(directory / "disk"))
        disks.make_config_drive(instance, None, None, network_info, directory / "disk.config")
        self._start(instance, network_info, block_device_info)

    def resume_state_on_host_boot(self, context, instance, network_info, share_info, block_device_info=None):
        """The machine (or the lab) was down: what ran runs again."""
        if not self.process(instance.uuid).runs():
            self.reboot(context, instance, network_info, "HARD", block_device_info)

    def pause(self, instance):
        qmp.ask(instance_directory(instance.uuid), "stop")

    def unpause(self, instance):
        qmp.ask(instance_directory(instance.uuid), "cont")

    def destroy(
        self, context, instance, network_info, block_device_info=None, destroy_disks=True, destroy_secrets=True
    ):
        self.process(instance.uuid).end()
        self.cleanup(context, instance, network_info, block_device_info, destroy_disks)

    def cleanup(self, context, instance, network_info, block_device_info=None, destroy_disks=True, migrate_data=None,
                destroy_vifs=True, destroy_secrets=True):  # fmt: skip
        self.process(instance.uuid).end()  # never remove the disks of a running guest
        network.unplug(network_info or [])
        super().cleanup(context, instance, network_info, block_device_info, destroy_disks)

    def end_all_guests(self):
        """Cut the power of every guest, at once. They count as running still: the next start brings them back."""
        self.watch.forget()
        ended = end_many([self.process(uuid) for uuid in self.list_instance_uuids()])
        LOG.info("Ended %d guests", len(ended))

    def forget(self):
        """Instances and files were put back to an earlier state below us: watch what runs now."""
        self.watch.forget()
        for uuid in self.list_instance_uuids():
            self.watch.add(self.process(uuid))

    # --- what is seen of it ---------------------------------------------------------------------------------------

    def get_console_output(self, context, instance):
        log = instance_directory(instance.uuid) / "console.log"
        if not log.exists():
            raise exception.ConsoleNotAvailable()
        return tail(log, CONF.lab.console_bytes)

    def snapshot(self, context, instance, image_id, update_task_state):
        directory, process = instance_directory(instance.uuid), self.process(instance.uuid)
        if not (directory / "disk").exists():
            raise exception.InstanceNotRunning(instance_id=instance.uuid)
        update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
        copy = directory / "snapshot.qcow2"
        try:
            running = process.status() == "running"
            if running:
                self.pause(instance)  # QEMU writes everything out; the copy is what the disk holds at this moment
            try:
                disks.flatten(directory / "disk", copy)
            finally:
                if running:
                    self.unpause(instance)
            update_task_state(task_state=task_states.IMAGE_UPLOADING, expected_state=task_states.IMAGE_PENDING_UPLOAD)
            image_api = glance.API()
            metadata = {
                "name": image_api.get(context, image_id)["name"],
                "status": "active",
                "disk_format": "qcow2",
                "container_format": "bare",
                "properties": {
                    "image_location": "snapshot",
                    "image_state": "available",
                    "owner_id": instance.project_id,
                },
            }
            with copy.open("rb") as content:
                image_api.update(context, image_id, metadata, content, purge_props=False)
        finally:
            copy.unlink(missing_ok=True)

    def manage_image_cache(self, context, all_instances):
        disks.remove_unused_bases([instance_directory(uuid) for uuid in self.list_instance_uuids()])

    # --- what is attached to it -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _plugging(self, instance, failure):
        """The running guest's directory, or None (then the next start takes care); QEMU's complaint as Nova's error."""
        process = self.process(instance.uuid)
        try:
            yield process.directory if process.runs() else None
        except qmp.QmpError as error:
            LOG.warning("%s", error, instance=instance)
            raise failure(str(error)) from error

    def attach_volume(
        self, context, connection_info, instance, mountpoint, disk_bus=None, device_type=None, encryption=None
    ):
        super().attach_volume(context, connection_info, instance, mountpoint, disk_bus, device_type, encryption)
        with self._plugging(instance, lambda reason: exception.InvalidVolume(reason=reason)) as directory:
            if directory:
                hotplug.attach_disk(directory, connection_info)

    def detach_volume(self, context, connection_info, instance, mountpoint, encryption=None):
        with self._plugging(
            instance, lambda reason: exception.DeviceDetachFailed(device=mountpoint, reason=reason)
        ) as directory:
            if directory:
                hotplug.detach_disk(directory, connection_info)

    def extend_volume(self, context, connection_info, instance, requested_size):
        with self._plugging(instance, lambda reason: exception.InternalError(reason)) as directory:
            if directory:
                hotplug.resize_disk(directory, connection_info, requested_size)

    def attach_interface(self, context, instance, image_meta, vif):
        network.plug(instance, [vif])
        with self._plugging(
            instance, lambda reason: exception.InterfaceAttachFailed(instance_uuid=instance.uuid)
        ) as directory:
            if directory:
                hotplug.attach_interface(directory, vif)

    def detach_interface(self, context, instance, vif):
        with self._plugging(
            instance, lambda reason: exception.InterfaceDetachFailed(instance_uuid=instance.uuid)
        ) as directory:
            if directory:
                hotplug.detach_interface(directory, vif)
        network.unplug([vif])
