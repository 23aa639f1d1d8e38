"""Grading the settings of a local.conf that somebody wrote: what stack.sh would stumble over in their values."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stacklab.deploy.complaint import PLAIN_PASSWORD, Complaint, lies_in, network, wrong_address
from stacklab.deploy.localconf.render import MASK

PASSWORDS = ("ADMIN_PASSWORD", "DATABASE_PASSWORD", "RABBIT_PASSWORD", "SERVICE_PASSWORD")
"""stack.sh asks for each of these at a prompt where it is not set (read_password)."""
ASKS = "stack.sh would ask for it at a prompt, and so hang"
_FORMS = {
    "number": ("a whole number", re.compile(r"[0-9]+")),
    "size": ("a size like 24G", re.compile(r"[0-9]+([KkMmGgTt](i?B)?)?")),  # as truncate -s takes it
    # trueorfalse of functions-common: whatever else it gets is the setting's default, without a word.
    "switch": ("True or False", re.compile(r"[01]|[yY]es|YES|[tT]rue|TRUE|[nN]o|NO|[fF]alse|FALSE")),
}
"""What a value may have to look like, in words and as a pattern."""


@dataclass(frozen=True)
class Assignment:
    """`NAME=value` as bash would have it; `plain` is None where only bash could tell (a variable, a command in it)."""

    line: int
    plain: str | None


Assigned = Mapping[str, Assignment]


def passwords(settings: Assigned) -> Iterator[Complaint]:
    """Those that are not set, empty, or not what DevStack can carry."""
    for name in PASSWORDS:
        # DevStack's old name for it still counts (stackrc).
        setting = settings.get(name) or (settings.get("MYSQL_PASSWORD") if name == "DATABASE_PASSWORD" else None)
        if setting is None:
            yield Complaint(0, f"{name} is not set: {ASKS}")
        elif setting.plain == "":
            yield Complaint(setting.line, f"{name} is empty: {ASKS}")
        elif setting.plain == MASK:
            yield Complaint(setting.line, f"{name} holds the asterisks that lab shows in place of a password")
        elif setting.plain is not None and not PLAIN_PASSWORD.fullmatch(setting.plain):
            text = f"{name}: letters and digits alone; DevStack puts it into URLs and through sed"
            yield Complaint(setting.line, text)


def address(settings: Assigned, addresses: Sequence[str]) -> Iterator[Complaint]:
    """HOST_IP, which is to be one of the machine's addresses."""
    setting = settings.get("HOST_IP")
    if setting is None:
        text = "HOST_IP is not set: the catalogue's addresses would carry whatever the machine has then, not "
        yield Complaint(0, text + " or ".join(addresses))
    elif setting.plain is not None:  # else bash would have to tell
        loopback = ": nobody but the machine itself could reach the cloud"
        if wrong := wrong_address(setting.plain, addresses, loopback):
            yield Complaint(setting.line, f"HOST_IP {wrong}")


def ranges(settings: Assigned) -> Iterator[Complaint]:
    """Networks that are none, that lie in one another, or that the machine itself is in."""
    nets: dict[str, ipaddress.IPv4Network] = {}
    for name in ("FLOATING_RANGE", "FIXED_RANGE"):
        setting = settings.get(name)
        if setting is None or setting.plain is None:
            continue
        if net := network(setting.plain):
            nets[name] = net
        else:
            text = f"{name} is '{setting.plain[:40]}', which is no network like 172.24.4.0/24"
            yield Complaint(setting.line, text)
    if len(nets) == 2 and nets["FLOATING_RANGE"].overlaps(nets["FIXED_RANGE"]):
        yield Complaint(settings["FIXED_RANGE"].line, "FIXED_RANGE and FLOATING_RANGE have addresses in common")
    gateway, host = settings.get("PUBLIC_NETWORK_GATEWAY"), settings.get("HOST_IP")
    if gateway and gateway.plain and "FLOATING_RANGE" in nets and not lies_in(gateway.plain, nets["FLOATING_RANGE"]):
        yield Complaint(gateway.line, "PUBLIC_NETWORK_GATEWAY is no address of FLOATING_RANGE")
    for name, net in nets.items():
        if host and host.plain and lies_in(host.plain, net):
            text = f"HOST_IP lies in {name}: the machine could not tell its neighbours from instances"
            yield Complaint(settings[name].line, text)


def values(settings: Assigned, may_be: Mapping[str, Sequence[str] | str]) -> Iterator[Complaint]:
    """Assigned that hold what neither DevStack nor the service that gets it takes. `may_be`: as `Explanations.values`."""
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
            yield Complaint(setting.line, f"{name} is '{setting.plain[:40]}', and has to be {spoken}")
