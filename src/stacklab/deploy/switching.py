"""How an optional service is switched on, in words for somebody whose cloud lacks it: the profiles know."""

from __future__ import annotations

import re

from stacklab.deploy.localconf import masked, served
from stacklab.deploy.profile import Profile
from stacklab.deploy.profiles import load_profile, load_settings, profile_names

EXAMPLE_IP = "192.0.2.1"
"""Nobody's address (RFC 5737): no line of a service's fragment is about an address."""


def how_to_switch_on(service: str, *, profile: str, session: str) -> str:
    """The command that switches a service on, and the lines of local.conf that it means; else why it cannot be.

    `service`: its name in the profiles (`heat`). `profile`: the one that the cloud was deployed with, "" for a cloud that
    DevStack did not make. Raises ProfileInvalid.
    """
    if profile:
        return _on(service, load_profile(profile), session)
    known = [load_profile(name) for name in profile_names()]
    able = [one.name for one in known if service in served(one)]
    if not able:
        return f"no profile of lab serves it: {_refusal(service, known[0])}" if known else "there are no profiles"
    found = f"a home with DevStack can have it: lab up {session} --on libvirt --with {service} (profile {' or '.join(able)})"
    refusing = [one for one in known if one.name not in able]
    return found + "".join(f"; {one.name}: {_refusal(service, one)}" for one in refusing[:1])


def _on(service: str, profile: Profile, session: str) -> str:
    if service not in served(profile):
        return f"profile {profile.name} cannot serve it: {_refusal(service, profile)}"
    lines = "; ".join(fragment_lines(service, profile))
    return f"switch it on with: lab up {session} --with {service} (in local.conf: {lines})"


def _refusal(service: str, profile: Profile) -> str:
    one = profile.services.get(service)
    if one is None:
        return "it knows no such service"
    if one.refused is not None:
        return " ".join(one.refused.split())
    return f"it needs {' and '.join(one.needs)}"


def fragment_lines(service: str, profile: Profile) -> list[str]:
    """What local.conf says of one service, line by line, secrets masked. Raises NotServed, UnknownName, ProfileInvalid."""
    text = masked(profile, load_settings(), services=[service], host_ip=EXAMPLE_IP)
    part = re.search(rf"^# {re.escape(service)}: [^\n]*\n(.*?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return [line for line in part[1].splitlines() if line.strip()] if part else []
