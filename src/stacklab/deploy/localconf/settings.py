"""Grading the settings of a local.conf that somebody wrote: what stack.sh would stumble over in their values."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stacklab.deploy.complaint import Complaint
from stacklab.deploy.localconf.render import MASK

PASSWORDS = ("ADMIN_PASSWORD", "DATABASE_PASSWORD", "RABBIT_PASSWORD", "SERVICE_PASSWORD")
"""stack.sh asks for each of these at a prompt where it is not set (read_password)."""
_PLAIN = re.compile(r"[A-Za-z0-9_.,+-]+")
_FORMS = {
    "number": ("a whole number", re.compile(r"[0-9]+")),
    "size": ("a size like 24G", re.compile(r"[0-9]+([KkMmGgTt](i?B)?)?")),  # as truncate -s takes it
    # trueorfalse of functions-common: whatever else it gets is the setting's default, without a word.
    "switch": ("True or False", re.compile(r"[01]|[yY]es|YES|[tT]rue|TRUE|[nN]o|NO|[fF]alse|FALSE")),
}
"""What a value may have to look like, in words and as a pattern."""


@dataclass(frozen=True)
class Setting:
    """`NAME=value` as bash would have it; `plain` is None where only bash could tell (a variable, a command in it)."""

    line: int
    plain: str | None


def passwords(settings: Mapping[str, Setting]) -> list[Complaint]:
    """Those that are not set, empty, or not what DevStack can carry."""
    found = []
    for name in PASSWORDS:
        # DevStack's old name for it still counts (stackrc).
        setting = settings.get(name) or (settings.get("MYSQL_PASSWORD") if name == "DATABASE_PASSWORD" else None)
        if setting is None:
            found.append(Complaint(0, f"{name} is not set: stack.sh would ask for it at a prompt, and so hang"))
        elif setting.plain == "":
            found.append(
                Complaint(setting.line, f"{name} is empty: stack.sh would ask for it at a prompt, and so hang")
            )
        elif setting.plain == MASK:
            found.append(Complaint(setting.line, f"{name} holds the asterisks that lab shows in place of a password"))
        elif setting.plain is not None and not _PLAIN.fullmatch(setting.plain):
            found.append(
                Complaint(setting.line, f"{name}: letters and digits alone; DevStack puts it into URLs and through sed")
            )
    return found


def address(settings: Mapping[str, Setting], addresses: Sequence[str]) -> list[Complaint]:
    """HOST_IP, which is to be one of the machine's addresses."""
    setting = settings.get("HOST_IP")
    wanted = " or ".join(addresses)
    if setting is None:
        return [
            Complaint(
                0,
                f"HOST_IP is not set: the catalogue's addresses would carry whatever the machine has then, not {wanted}",
            )
        ]
    if setting.plain is None:
        return []  # bash would have to tell
    try:
        address = ipaddress.IPv4Address(setting.plain)
    except ValueError:
        return [Complaint(setting.line, f"HOST_IP is '{setting.plain[:40]}', which is no IPv4 address")]
    if str(address) in addresses:
        return []
    if address.is_loopback:
        return [
            Complaint(
                setting.line, "HOST_IP is a loopback address: nobody but the machine itself could reach the cloud"
            )
        ]
    return [Complaint(setting.line, f"HOST_IP is {address}, which is no address of the machine; it has {wanted}")]


def ranges(settings: Mapping[str, Setting]) -> list[Complaint]:
    """Networks that are none, that lie in one another, or that the machine itself is in."""
    found: list[Complaint] = []
    nets: dict[str, ipaddress.IPv4Network] = {}
    for name in ("FLOATING_RANGE", "FIXED_RANGE"):
        setting = settings.get(name)
        if setting is None or setting.plain is None:
            continue
        try:
            nets[name] = ipaddress.IPv4Network(setting.plain)
        except ValueError:
            found.append(
                Complaint(setting.line, f"{name} is '{setting.plain[:40]}', which is no network like 172.24.4.0/24")
            )
    if len(nets) == 2 and nets["FLOATING_RANGE"].overlaps(nets["FIXED_RANGE"]):
        found.append(Complaint(settings["FIXED_RANGE"].line, "FIXED_RANGE and FLOATING_RANGE have addresses in common"))
    gateway = settings.get("PUBLIC_NETWORK_GATEWAY")
    if gateway and gateway.plain and "FLOATING_RANGE" in nets and not _inside(gateway.plain, nets["FLOATING_RANGE"]):
        found.append(Complaint(gateway.line, "PUBLIC_NETWORK_GATEWAY is no address of FLOATING_RANGE"))
    host = settings.get("HOST_IP")
    for name, net in nets.items():
        if host and host.plain and _inside(host.plain, net):
            found.append(
                Complaint(
                    settings[name].line,
                    f"HOST_IP lies in {name}: the machine could not tell its neighbours from instances",
                )
            )
    return found


def values(settings: Mapping[str, Setting], may_be: Mapping[str, Sequence[str] | str]) -> list[Complaint]:
    """Settings that hold what neither DevStack nor the service that gets it takes. `may_be`: as `Explanations.values`."""
    found = []
    for name, allowed in may_be.items():
        setting = settings.get(name)
        if setting is None or not setting.plain:  # an empty one is DevStack's default
            continue
        if isinstance(allowed, str):
            spoken, pattern = _FORMS[allowed]
            fits = pattern.fullmatch(setting.plain) is not None
        else:
            spoken, fits = f"one of {', '.join(allowed)}", setting.plain in allowed
        if not fits:
            found.append(Complaint(setting.line, f"{name} is '{setting.plain[:40]}', and has to be {spoken}"))
    return found


def _inside(address: str, net: ipaddress.IPv4Network) -> bool:
    try:
        return ipaddress.IPv4Address(address) in net
    except ValueError:
        return False
