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
from stacklab.homes.plan import Plan

TEMPLATE = "Vagrantfile.j2"
BOOT_SECONDS = {"kvm": 300, "qemu": 1200}
"""How long a boot may take until SSH answers, by driver."""
HALT_SECONDS = 180
"""How long the VM gets to shut down by itself."""


def asked_size(profile: Profile, plan: Plan) -> Size:
    """The profile's size with the plan's own wishes on top, whether that can work or not."""
    wishes = {"cpus": plan.cpus, "memory": plan.memory, "disk": plan.disk}
    return profile.size.model_copy(update={name: value for name, value in wishes.items() if value is not None})


def sized(profile: Profile, plan: Plan) -> Size:
    """What the VM gets. Raises NotServed for what cannot work."""
    size = asked_size(profile, plan)
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
    seconds = {"boot": BOOT_SECONDS[site.driver], "halt": HALT_SECONDS}
    return environment.get_template(TEMPLATE).render(
        machine=MACHINE, site=site, size=size, user=profile.box.user, seconds=seconds, console=console
    )


def ruby(value: object) -> str:
    """`value` as a Ruby literal. In single quotes Ruby knows two escapes, and nothing is interpolated."""
    if isinstance(value, int):
        return str(value)
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
