"""How an optional service is switched on, in words for somebody whose cloud lacks it: the profiles know."""

from __future__ import annotations

import functools
import re

from stacklab.deploy.localconf.render import render
from stacklab.deploy.profile.load import load_profile, load_settings, profile_names
from stacklab.deploy.profile.model import Profile
from stacklab.errors import NotServed, UnknownName

EXAMPLE_IP = "192.0.2.1"
"""Nobody's address (RFC 5737): no line of a service's fragment is about an address."""

_profile = functools.cache(load_profile)
"""A tour of the projects asks for each of them again, and a profile takes a tenth of a second to read."""


def how_to_switch_on(service: str, *, profile: str, session: str) -> str:
    """The command that switches a service on, and the lines of local.conf (or PackStack's answers) that it means; else why not.

    `service`: its name in the profiles (`heat`). `profile`: the one that the cloud was deployed with, "" for a cloud that was
    not deployed on a machine. Raises ProfileInvalid.
    """
    if profile:
        return _refusal(service, _profile(profile)) or _on(service, _profile(profile), session)
    with_devstack = [profile for profile in map(_profile, profile_names()) if profile.deployed_by == "devstack"]
    refusals = {profile.name: _refusal(service, profile) for profile in with_devstack}
    refusing, able = [why for why in refusals.values() if why], [name for name, why in refusals.items() if not why]
    if not able:
        return f"no profile of lab serves it; {refusing[0]}"
    command = f"lab up {session} --on libvirt --with {service}"
    return "; ".join([f"a home with DevStack can have it: {command} (profile {', '.join(able)})", *refusing[:1]])


def _refusal(service: str, profile: Profile) -> str:
    """Why the profile cannot have it; empty where it can."""
    try:
        profile.chosen([service])
    except (UnknownName, NotServed) as error:
        return error.message
    return ""


def _on(service: str, profile: Profile, session: str) -> str:
    if profile.deployed_by == "packstack":
        file, lines = "the answer file", [f"{key}={value}" for key, value in profile.services[service].values.items()]
    else:
        file, lines = "local.conf", fragment_lines(service, profile)
    return f"switch it on with: lab up {session} --with {service} (in {file}: {'; '.join(lines)})"


def fragment_lines(service: str, profile: Profile) -> list[str]:
    """What local.conf says of one service, line by line, secrets masked. Raises NotServed, UnknownName, ProfileInvalid."""
    text = render(profile, load_settings(), services=[service], host_ip=EXAMPLE_IP)
    part = re.search(rf"^# {re.escape(service)}: [^\n]*\n(.*?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return [line for line in part[1].splitlines() if line.strip()] if part else []
