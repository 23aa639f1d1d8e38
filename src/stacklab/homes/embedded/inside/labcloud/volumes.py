"""A Cinder driver without root: every volume and snapshot is one sparse raw file in a directory.

A copy shares blocks where the file system can (reflink). Where it cannot, a snapshot of a volume that a guest is
writing to is taken while it writes, and no better than pulling the plug: unmount first.
"""

import os
import shutil
from pathlib import Path

from cinder import exception, interface, privsep, utils
from cinder.image import image_utils
from cinder.volume import configuration, driver, volume_utils
from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log as logging

LOG = logging.getLogger(__name__)
GIB = 1 << 30

# Cinder inspects images as root in places that no driver can reach. Here nobody becomes root: commands run as whoever
# we are ("env" in the place of sudo), and what would run in a privileged daemon runs in this process.
utils.get_root_helper = lambda: "env"
privsep.sys_admin_pctxt.set_client_mode(False)

OPTIONS = [cfg.StrOpt("lab_volume_dir", help="Where the volumes lie, one file each.")]
cfg.CONF.register_opts(OPTIONS, group=configuration.SHARED_CONF_GROUP)


@interface.volumedriver
class LabVolumeDriver(driver.VolumeDriver):
    """Files that Nova's LabQemuDriver opens directly: both run on this machine."""

    VERSION = "1.0"
    CI_WIKI_NAME = "none"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)
        self.directory = Path(self.configuration.lab_volume_dir or "").absolute()

    @staticmethod
    def get_driver_options():
        return OPTIONS

    def check_for_setup_error(self):
        if not self.configuration.lab_volume_dir:
            raise exception.InvalidConfigurationValue(option="lab_volume_dir", value="")
        self.directory.mkdir(parents=True, exist_ok=True)

    def path(self, thing):
        """The file of a volume or snapshot."""
        return self.directory / thing.name

    def local_path(self, volume):
        return str(self.path(volume))

    # --- volumes --------------------------------------------------------------------------------------------------

    def create_volume(self, volume):
        self._grow(self.path(volume), volume.size)

    def delete_volume(self, volume):
        self.path(volume).unlink(missing_ok=True)

    def extend_volume(self, volume, new_size):
        """Also of a volume in use: Nova is told afterwards, and shows the new size to the guest."""
        self._grow(self.path(volume), new_size)

    def create_volume_from_snapshot(self, volume, snapshot):
        self._copy(self.path(snapshot), self.path(volume))
        self._grow(self.path(volume), volume.size)

    def create_cloned_volume(self, volume, src_vref):
        self._copy(self.path(src_vref), self.path(volume))
        self._grow(self.path(volume), volume.size)

    def create_snapshot(self, snapshot):
        self._copy(self.path(snapshot.volume), self.path(snapshot))

    def delete_snapshot(self, snapshot):
        self.path(snapshot).unlink(missing_ok=True)

    def revert_to_snapshot(self, context, volume, snapshot):
        self._copy(self.path(snapshot), self.path(volume))
        self._grow(self.path(volume), volume.size)

    @staticmethod
    def _grow(path, gigabytes):
        """Make the file this large; never smaller, and without taking up space."""
        with path.open("ab") as file:
            if file.tell() < gigabytes * GIB:
                file.truncate(gigabytes * GIB)

    @staticmethod
    def _copy(source, target):
        """A copy of its own that appears whole or not at all."""
        part = target.with_name(f"{target.name}.part")
        try:
            utils.execute("cp", "--sparse=always", "--reflink=auto", str(source), str(part), run_as_root=False)
            part.replace(target)
        except (processutils.ProcessExecutionError, OSError) as error:
            part.unlink(missing_ok=True)
            raise exception.VolumeBackendAPIException(data=f"copying {source.name} failed: {error}") from error

    # --- images ---------------------------------------------------------------------------------------------------

    def clone_image(self, context, volume, image_location, image_meta, image_service):
        """Without qemu-img, the way of a raw image past Cinder's own inspection, which would fail for want of it."""
        if shutil.which("qemu-img") or image_meta["disk_format"] != "raw":
            return {}, False
        path = self.path(volume)
        with path.open("wb") as file:
            image_service.download(context, image_meta["id"], file)
        image_utils.check_virtual_size(path.stat().st_size, volume.size, image_meta["id"])
        self._grow(path, volume.size)
        return {}, True

    def copy_image_to_volume(self, context, volume, image_service, image_id, disable_sparse=False):
        """The image's content, unpacked from whatever format it has; without qemu-img only raw images can be used."""
        path = self.path(volume)
        image_utils.fetch_to_raw(
            context, image_service, image_id, str(path), self.configuration.volume_dd_blocksize,
            size=volume.size, run_as_root=False, disable_sparse=disable_sparse,
        )  # fmt: skip
        self._grow(path, volume.size)

    def copy_volume_to_image(self, context, volume, image_service, image_meta):
        volume_utils.upload_volume(
            context, image_service, image_meta, str(self.path(volume)), volume, run_as_root=False, compress=False
        )

    # --- the way to a guest ---------------------------------------------------------------------------------------

    def ensure_export(self, context, volume):
        """A file needs no export."""

    def create_export(self, context, volume, connector):
        """A file needs no export."""

    def remove_export(self, context, volume):
        """A file needs no export."""

    def initialize_connection(self, volume, connector):
        path = self.path(volume)
        if not path.is_file():
            raise exception.VolumeBackendAPIException(data=f"the file of volume {volume.id} is gone: {path}")
        return {"driver_volume_type": "local", "data": {"device_path": str(path), "volume_id": volume.id}}

    def terminate_connection(self, volume, connector, **kwargs):
        """Nova has closed the file by then."""

    # --- the machine ----------------------------------------------------------------------------------------------

    def _update_volume_stats(self):
        usage = shutil.disk_usage(self.directory)
        promised = sum(path.stat().st_size for path in os.scandir(self.directory) if path.is_file())
        self._stats = {
            "volume_backend_name": self.configuration.safe_get("volume_backend_name") or "lab",
            "vendor_name": "lab",
            "driver_version": self.VERSION,
            "storage_protocol": "file",
            "total_capacity_gb": round(usage.total / GIB, 2),
            "free_capacity_gb": round(usage.free / GIB, 2),
            "provisioned_capacity_gb": round(promised / GIB, 2),
            "max_over_subscription_ratio": self.configuration.max_over_subscription_ratio,
            "thin_provisioning_support": True,
            "thick_provisioning_support": False,
            "reserved_percentage": self.configuration.reserved_percentage,
            "online_extend_support": True,
            "multiattach": False,
            "QoS_support": False,
        }
