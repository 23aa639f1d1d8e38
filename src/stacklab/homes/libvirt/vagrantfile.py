"""Vagrantfile.j2 → a lab's Vagrantfile. Every value enters it as a Ruby literal, whatever is in it."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stacklab import places
from stacklab.deploy.profile.model import Profile, Size
from stacklab.errors import NotServed
from stacklab.homes.libvirt.site import VmSite
from stacklab.homes.libvirt.vagrant import MACHINE

TEMPLATE = "Vagrantfile.j2"
BOOT_SECONDS = {"kvm": 300, "qemu": 1200}
"""How long a boot may take until SSH answers, by driver."""
HALT_SECONDS = 180
"""How long the VM gets to shut down by itself."""


def sized(profile: Profile, cpus: int | None = None, memory: int | None = None, disk: int | None = None) -> Size:
    """What the VM gets: the profile's size, the user's own wishes (MiB, GiB) on top. Raises NotServed for what cannot work."""
    wishes = {"cpus": cpus, "memory": memory, "disk": disk}
    size = profile.size.model_copy(update={name: value for name, value in wishes.items() if value is not None})
    if size.memory < size.least_memory:
        raise NotServed(
            f"{size.memory} MiB of memory are too little: below {size.least_memory} MiB the services of "
            f"profile '{profile.name}' do not all come up",
            advice=f"--memory {size.least_memory} or more",
        )
    if size.cpus < 1 or size.disk < 1:
        advice = f"the profile has {profile.size.cpus} and {profile.size.disk}"
        raise NotServed("a VM needs at least one CPU and 1 GiB of disk", advice=advice)
    return size


def render(site: VmSite, profile: Profile, size: Size, *, console: Path) -> str:
    """The Vagrantfile. `console`: the file for the serial console."""
    environment = Environment(
        loader=FileSystemLoader(places.course_data()), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,  # noqa: S701 - Ruby, not HTML: the filters quote
    )  # fmt: skip
    environment.filters |= {"ruby": ruby, "xml": lambda value: escape(str(value), {"'": "&apos;", '"': "&quot;"})}
    return environment.get_template(TEMPLATE).render(
        machine=MACHINE,
        box=site.box,
        box_version=site.version,
        boot_timeout=BOOT_SECONDS[site.driver],
        halt_timeout=HALT_SECONDS,
        user=profile.box.user,
        address=str(site.address),
        netmask=str(site.host_only.netmask),
        network=site.name,
        host_address=str(site.host_address),
        uri=site.uri,
        driver=site.driver,
        pool=site.pool,
        prefix=site.prefix,
        cpus=size.cpus,
        memory=size.memory,
        disk=size.disk,
        nat_network=site.nat_name,
        nat_range=str(site.nat),
        console=console,
    )


def ruby(value: object) -> str:
    """`value` as a Ruby literal. In single quotes Ruby knows two escapes, and nothing is interpolated."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nil"
    if isinstance(value, int):
        return str(value)
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
