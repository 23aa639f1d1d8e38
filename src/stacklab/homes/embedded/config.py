"""The configuration files of a cloud, rendered from `conf/*.j2`, where an instructor can read why a line is there."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from stacklab.files import write_atomic
from stacklab.homes.embedded.layout import Layout
from stacklab.homes.embedded.ovn import find_network, variables
from stacklab.homes.embedded.services import running_services, urls
from stacklab.https.logins import REGION, clouds_text

TEMPLATES = Path(__file__).parent / "conf"
INSIDE = Path(__file__).parent / "inside"
HOST = "lab"  # the name of the one hypervisor; the template's databases know it


@dataclass(frozen=True)
class LocalHypervisor:
    """The QEMU programs of this machine; empty where there are none."""

    system: str
    image: str

    @property
    def there(self) -> bool:
        return bool(self.system and self.image)

    @property
    def why_not(self) -> str:
        """Why instances are records of the API only; empty where they really run."""
        if self.there:
            return ""
        if qemu_name() != "qemu-system-x86_64":
            return f"instances need an x86_64 machine, and this one is {platform.machine()}"
        return f"QEMU is not installed ({self.missing} not found), so an instance is a record of the API only"

    @property
    def missing(self) -> str:
        names = [name for name, path in ((qemu_name(), self.system), ("qemu-img", self.image)) if not path]
        return " and ".join(names)


def qemu_name() -> str:
    """QEMU's name for emulating this machine's own architecture."""
    return f"qemu-system-{ {'arm64': 'aarch64', 'amd64': 'x86_64'}.get(platform.machine(), platform.machine()) }"


def find_hypervisor() -> LocalHypervisor:
    """The compute driver makes guests of one kind, a PC (inside/labcloud/compute/labqemu/options.py)."""
    system = shutil.which(qemu_name()) if qemu_name() == "qemu-system-x86_64" else None
    return LocalHypervisor(system or "", shutil.which("qemu-img") or "")


def write_configuration(
    layout: Layout, environment: Path, ports: dict[str, int], passwords: dict[str, str], *, checked: bool = True
) -> None:
    """Write every file that `files` has. `checked`: see there."""
    layout.make()
    for path, text in files(layout, environment, ports, passwords, checked=checked).items():
        write(path, text)


def write(path: Path, text: str) -> None:
    """0600: they hold passwords."""
    write_atomic(path, text, mode=0o600)


def files(
    layout: Layout, environment: Path, ports: dict[str, int], passwords: dict[str, str], *, checked: bool = True
) -> dict[Path, str]:
    """What is in each file that can be made again: the services' configuration, run/cloud.json, clouds.yaml.

    `checked` is False only for the first initialisation, where no Keystone runs that could check a token.
    """
    import jinja2  # here, because `lab --help` should not pay for it

    hypervisor, network = find_hypervisor(), "ovn" if checked and find_network(layout).there else "user"
    values = {
        "home": layout.home, "environment": environment, "ports": ports, "urls": urls(ports), "passwords": passwords,
        "region": REGION, "host": HOST, "qemu": hypervisor.system, "qemu_img": hypervisor.image,
        "user": getpass.getuser(), "checked": checked, "network": network,
    }  # fmt: skip
    jinja = jinja2.Environment(  # noqa: S701 - INI files, not HTML, and every value in them is ours
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    paths = {name: layout.conf / ("swift/swift.conf" if name == "swift.conf" else name) for name in template_names()}
    services = [
        {"name": service.name, "forked": service.forked, "ports": [ports[port] for port in service.ports]}
        for service in running_services(network)
    ]
    cloud = {"ports": ports, "urls": urls(ports), "services": services, "network": network}
    return {
        **{path: jinja.get_template(f"{name}.j2").render(values) for name, path in paths.items()},
        layout.conf / "api-paste.ini": (environment / "etc" / "nova" / "api-paste.ini").read_text(encoding="utf-8"),
        layout.cloud_file: json.dumps(cloud, indent=2) + "\n",
        layout.clouds_file: clouds_text(urls(ports)["keystone"], passwords, layout.home / "https"),
    }


def is_as_made(path: Path, text: str) -> bool:
    """Whether a file holds what was written. clouds.yaml may hold more: entries of the learner's, written in his own way."""
    now = _text(path)
    if path.suffix == ".yaml" and now is not None and now != text:
        try:
            there, ours = yaml.safe_load(now)["clouds"], json.loads(text)["clouds"]
            return bool({**there, **ours} == there)
        except (TypeError, KeyError, yaml.YAMLError):
            return False
    return now == text


def is_damaged(path: Path, text: str) -> bool:
    """Whether nobody can have meant a file to be like this: gone, cut off, or no text. What was edited is somebody's work."""
    if path.suffix in (".yaml", ".json"):
        return not is_as_made(path, text)
    now = _text(path)
    return now is None or "\0" in now or (now != text and text.startswith(now))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def template_names() -> list[str]:
    """The files that are rendered; those that begin with an underscore are only included."""
    return sorted(path.name.removesuffix(".j2") for path in TEMPLATES.glob("[!_]*.j2"))


def reader_of(path: Path) -> str:
    """The service that reads a configuration file."""
    name = path.name.partition(".")[0].partition("-")[0]
    return {"dashboard": "horizon"}.get(name, name)


def process_environment(layout: Layout, environment: Path) -> dict[str, str]:
    """The environment variables of everything that runs inside the cloud: the user's own, with ours on top."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    for name in ("PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "DJANGO_SETTINGS_MODULE"):
        kept.pop(name, None)
    for name in [name for name in kept if name.startswith("OS_")]:
        del kept[name]  # an openrc that the user sourced is about another cloud
    services = ("KEYSTONE", "GLANCE", "PLACEMENT", "NOVA", "NEUTRON")
    path = f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {
        **kept,
        **{f"OS_{name}_CONFIG_DIR": str(layout.conf) for name in services},
        "OS_NEUTRON_CONFIG_FILES": "neutron.conf",
        "OS_NOVA_DISABLE_EVENTLET_PATCHING": "true",
        "LABCLOUD_HOME": str(layout.home),
        "LABCLOUD_STATIC": str(environment / "horizon-static"),
        "PATH": path,
        "PYTHONPATH": str(INSIDE),
        "PYTHONWARNINGS": "ignore",
        "PYTHONUNBUFFERED": "1",
        "TZ": "UTC",
        **variables(layout, find_network(layout), path),
    }
