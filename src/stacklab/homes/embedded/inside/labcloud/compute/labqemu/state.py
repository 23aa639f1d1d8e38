"""Instances as API state only, for a machine without QEMU; also what both drivers have in common.

What an instance would show or do (console, SSH, a volume in the guest) is refused here, never made up.
"""

import json
import os
import shutil
from pathlib import Path

import nova.virt.node
import os_resource_classes as orc
from nova import exception
from nova.compute import power_state
from nova.virt import driver, hardware
from nova.virt.labqemu.options import CONF, instance_directory
from oslo_log import log as logging
from oslo_serialization import jsonutils

LOG = logging.getLogger(__name__)
GIB = 1 << 30


class LabStateDriver(driver.ComputeDriver):
    """One directory per instance; its `instance.json` says what it is and whether it counts as running."""

    capabilities = {
        **driver.ComputeDriver.capabilities,
        "supports_attach_interface": True,
        "supports_extend_volume": True,
        "supports_image_type_raw": True,
        "supports_image_type_qcow2": True,
        "supports_image_type_iso": True,
        "supports_image_type_vmdk": True,
        "supports_image_type_vhd": True,
        "supports_image_type_vhdx": True,
        "supports_image_type_vdi": True,
    }
    hypervisor = ("none", 0)

    def __init__(self, virtapi, read_only=False):
        super().__init__(virtapi)

    def init_host(self, host):
        self.root.mkdir(parents=True, exist_ok=True)

    @property
    def root(self):
        return Path(CONF.instances_path).absolute()

    # --- the record of an instance --------------------------------------------------------------------------------

    def record(self, uuid):
        """What instance.json says, or None if there is no such instance."""
        try:
            return json.loads((instance_directory(uuid) / "instance.json").read_text())
        except FileNotFoundError:
            return None

    def write_record(self, instance, **changes):
        directory = instance_directory(instance.uuid)
        directory.mkdir(parents=True, exist_ok=True)
        flavor = instance.flavor
        record = {
            "name": instance.name, "vcpus": flavor.vcpus, "memory_mb": flavor.memory_mb, "root_gb": flavor.root_gb,
            "state": "shutdown", **(self.record(instance.uuid) or {}), **changes,
        }  # fmt: skip
        part = directory / "instance.json.part"
        part.write_text(json.dumps(record))
        part.replace(directory / "instance.json")

    def require(self, instance):
        if self.record(instance.uuid) is None:
            raise exception.InstanceNotFound(instance_id=instance.uuid)

    def list_instance_uuids(self):
        return [path.parent.name for path in self.root.glob("*/instance.json")]

    def list_instances(self):
        return [record["name"] for record in map(self.record, self.list_instance_uuids()) if record]

    def get_num_instances(self):
        return len(self.list_instance_uuids())

    def instance_exists(self, instance):
        return self.record(instance.uuid) is not None

    def instance_on_disk(self, instance):
        return instance_directory(instance.uuid).is_dir()

    def delete_instance_files(self, instance):
        shutil.rmtree(instance_directory(instance.uuid), ignore_errors=True)
        return not instance_directory(instance.uuid).exists()

    # --- life -----------------------------------------------------------------------------------------------------

    def get_info(self, instance, use_cache=True):
        record = self.record(instance.uuid)
        if record is None:
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        states = {"running": power_state.RUNNING, "paused": power_state.PAUSED}
        return hardware.InstanceInfo(state=states.get(record["state"], power_state.SHUTDOWN))

    def spawn(self, context, instance, image_meta, injected_files, admin_password, allocations, network_info=None,
              block_device_info=None, power_on=True, accel_info=None):  # fmt: skip
        if network_info is not None:
            network_info.wait(do_raise=True)  # Neutron works meanwhile, and may refuse
        self.write_record(instance, state="running" if power_on else "shutdown")

    def power_on(self, context, instance, network_info, block_device_info=None, accel_info=None, share_info=None):
        self.require(instance)
        self.write_record(instance, state="running")

    def power_off(self, instance, timeout=0, retry_interval=0):
        self.require(instance)
        self.write_record(instance, state="shutdown")

    def reboot(self, context, instance, network_info, reboot_type, block_device_info=None, bad_volumes_callback=None,
               accel_info=None, share_info=None):  # fmt: skip
        self.write_record(instance, state="running")

    def pause(self, instance):
        self.write_record(instance, state="paused")

    def unpause(self, instance):
        self.write_record(instance, state="running")

    def resume_state_on_host_boot(self, context, instance, network_info, share_info, block_device_info=None):
        self.write_record(instance, state="running")

    def destroy(
        self, context, instance, network_info, block_device_info=None, destroy_disks=True, destroy_secrets=True
    ):
        self.cleanup(context, instance, network_info, block_device_info, destroy_disks)

    def cleanup(self, context, instance, network_info, block_device_info=None, destroy_disks=True, migrate_data=None,
                destroy_vifs=True, destroy_secrets=True):  # fmt: skip
        if destroy_disks and not self.delete_instance_files(instance):
            raise exception.InstanceTerminationFailure(reason=f"{instance_directory(instance.uuid)} cannot be removed")

    def end_all_guests(self):
        """Nothing runs here."""

    def forget(self):
        """Nothing is kept in memory: what counts is in the instances' directories."""

    # --- what is attached: Nova and Cinder keep it, nothing more is needed for state only -------------------------

    def attach_volume(
        self, context, connection_info, instance, mountpoint, disk_bus=None, device_type=None, encryption=None
    ):
        if encryption:
            raise exception.VolumeEncryptionNotSupported(
                volume_id=connection_info.get("serial"), volume_type=connection_info["driver_volume_type"]
            )

    def detach_volume(self, context, connection_info, instance, mountpoint, encryption=None):
        pass

    def extend_volume(self, context, connection_info, instance, requested_size):
        pass

    def attach_interface(self, context, instance, image_meta, vif):
        pass

    def detach_interface(self, context, instance, vif):
        pass

    def plug_vifs(self, instance, network_info):
        """User-mode networking plugs nothing on the host."""

    def unplug_vifs(self, instance, network_info):
        """See plug_vifs."""

    def quiesce(self, context, instance, image_meta):
        raise exception.InstanceQuiesceNotSupported(instance_id=instance.uuid, reason="the guest has no agent")

    def unquiesce(self, context, instance, image_meta):
        raise exception.InstanceQuiesceNotSupported(instance_id=instance.uuid, reason="the guest has no agent")

    def default_root_device_name(self, instance, image_meta, root_bdm):
        return "/dev/vda"

    def get_volume_connector(self, instance):
        return {"ip": CONF.my_block_storage_ip, "host": CONF.host, "platform": "x86_64", "os_type": "linux"}

    # --- the machine ----------------------------------------------------------------------------------------------

    def get_available_nodes(self, refresh=False):
        return [CONF.host]

    def get_nodenames_by_uuid(self, refresh=False):
        return {nova.virt.node.get_local_node_uuid(): CONF.host}

    def get_host_ip_addr(self):
        return CONF.my_ip

    def get_host_uptime(self):
        seconds = float(Path("/proc/uptime").read_text().split()[0])
        load = ", ".join(f"{average:.2f}" for average in os.getloadavg())
        days, hours, minutes = int(seconds // 86400), int(seconds // 3600) % 24, int(seconds // 60) % 60
        return f"up {days} days, {hours}:{minutes:02}, load average: {load}"

    def _machine(self):
        """(processors, memory in MB, disk in GB, free disk in GB) of this machine."""
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
        usage = shutil.disk_usage(self.root)
        return os.cpu_count(), memory, max(1, usage.total // GIB), usage.free // GIB

    def get_available_resource(self, nodename):
        processors, memory, disk, free = self._machine()
        records = [record for record in map(self.record, self.list_instance_uuids()) if record]
        kind, version = self.hypervisor
        return {
            "uuid": nova.virt.node.get_local_node_uuid(),
            "vcpus": processors,
            "memory_mb": memory,
            "local_gb": disk,
            "vcpus_used": sum(record["vcpus"] for record in records),
            "memory_mb_used": sum(record["memory_mb"] for record in records),
            "local_gb_used": sum(record["root_gb"] for record in records),
            "disk_available_least": free,
            "hypervisor_type": kind,
            "hypervisor_version": version,
            "hypervisor_hostname": nodename,
            "cpu_info": jsonutils.dumps({"arch": os.uname().machine, "topology": {"cores": processors}}),
            "supported_instances": [(os.uname().machine, "qemu", "hvm")],
            "numa_topology": None,
        }

    def update_provider_tree(self, provider_tree, nodename, allocations=None):
        processors, memory, disk, _ = self._machine()
        ratios = self._get_allocation_ratios(provider_tree.data(nodename).inventory)
        reserved = {
            orc.VCPU: CONF.reserved_host_cpus,
            orc.MEMORY_MB: CONF.reserved_host_memory_mb,
            orc.DISK_GB: self._get_reserved_host_disk_gb_from_config(),
        }
        totals = {orc.VCPU: processors, orc.MEMORY_MB: memory, orc.DISK_GB: disk}
        provider_tree.update_inventory(
            nodename,
            {
                name: {
                    "total": total, "min_unit": 1, "max_unit": total, "step_size": 1,
                    "allocation_ratio": ratios[name], "reserved": reserved[name],
                }
                for name, total in totals.items()
            },
        )  # fmt: skip
