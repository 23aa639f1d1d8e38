"""Where the cloud lives. `open_home` by name; `best_home` when nobody said."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from stacklab.errors import HomeUnavailable
from stacklab.suggest import closest

if TYPE_CHECKING:
    from stacklab.homes.base import Home
    from stacklab.homes.plan import Plan
    from stacklab.lab import Lab

HOMES = {"embedded": "EmbeddedHome", "libvirt": "LibvirtHome", "ssh": "SshHome"}


def open_home(name: str, lab: Lab) -> Home:
    """The home of this name for `lab`. Raises HomeUnavailable."""
    if name not in HOMES:
        raise _no_home(name)
    home: Home = getattr(import_module(f"stacklab.homes.{name}.home"), HOMES[name])(lab)
    return home


def _no_home(name: str) -> HomeUnavailable:
    known = "embedded, libvirt, ssh://user@host"
    return HomeUnavailable(
        f"there is no home '{name}'; there are {known}", advice=closest(name, HOMES, "lab up --help")
    )


def check_plan(plan: Plan) -> None:
    """Raises HomeUnavailable for a home that does not exist, or options that it has no use for."""
    if plan.home not in HOMES:
        raise _no_home(str(plan.home))
    if plan.home == "ssh" and not plan.address:
        raise HomeUnavailable(
            "which machine?", advice="lab up SESSION --on ssh://user@host[:port], or --on ssh:ALIAS of ssh_config"
        )
    given = {
        "--profile": plan.profile, "--with": plan.services, "--selinux": plan.selinux,
        "--cpus": plan.cpus, "--memory": plan.memory, "--disk": plan.disk, "--box": plan.box, "--even-if-used": plan.used,
    }  # fmt: skip
    vm = ("--cpus", "--memory", "--disk", "--box")
    useless = {"embedded": tuple(given), "ssh": vm, "libvirt": ("--even-if-used",)}[plan.home]
    for option in useless:
        if given[option] not in (None, ()):
            raise HomeUnavailable(
                f"{option} means nothing to the home '{plan.home}'",
                advice="lab up --help says which home each option is for",
            )
    if plan.home != "embedded":
        _check_deployment(plan)


def _check_deployment(plan: Plan) -> None:
    """What can be told from the words alone is told before anything is kept or made."""
    from stacklab.deploy.profile.load import load_profile, load_settings
    from stacklab.homes.libvirt.boxes import wanted_box
    from stacklab.homes.libvirt.home import DEFAULT_PROFILE
    from stacklab.homes.libvirt.vagrantfile import sized

    name = plan.profile or (DEFAULT_PROFILE if plan.home == "libvirt" else None)
    if name is None:
        return  # the machine's distribution will say which
    profile = load_profile(name)
    profile.chosen(plan.services)
    if plan.home == "libvirt":
        sized(profile, plan)
        if plan.box and "://" not in plan.box and not Path(plan.box).is_file():
            wanted_box(profile.box, load_settings(), plan.box)  # says it


def best_home() -> tuple[str, str]:
    """The name of the best home that this machine has, and the reason, in words for a learner.

    Never one that takes an hour and gigabytes of downloads: a VM, or somebody's machine, is there for whoever asks for it.
    """
    from stacklab.homes.embedded.config import find_hypervisor

    instances = find_hypervisor().why_not or "instances run in QEMU"
    return "embedded", f"real OpenStack services on this machine, without a VM and without root; {instances}"
