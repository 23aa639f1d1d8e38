"""PackStack's answer file: rendered from the profile, shown with asterisks, put on the machine for root alone.

Keys and how they are read: PackStack at its pike-eol, installer/run_setup.py and plugins/*.py. Python's ConfigParser reads the
file: values are taken as they are, without quotes, and `%` would begin an interpolation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import jinja2

from stacklab.deploy import templates
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.grading import MASK
from stacklab.deploy.prepare.forms import MachineFile, file_stage
from stacklab.deploy.profile.load import load_profile, profile_names
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.stack.detached import ANSWERS
from stacklab.deploy.templates import checked_address, environment
from stacklab.errors import NotServed, ProfileInvalid
from stacklab.stages import Progress, Stage

SECRETS: Final = ("admin", "database", "demo", "service")
"""The lab's secrets that an answer file needs, by the names that `Lab.secret` knows them by."""
TEMPLATE: Final = "answers.ini.j2"
DEFAULTS: Final = {"CONFIG_SWIFT_INSTALL": "n", "CONFIG_CEILOMETER_INSTALL": "n", "CONFIG_AODH_INSTALL": "n"}
"""What PackStack would install if it were not told (prescript_000.py), and a lab does without unless it is asked for."""


def profile_like(profile: Profile) -> Profile:
    """The profile itself if PackStack deploys it, else one for the same distribution that it does. Raises NotServed."""
    if profile.deployed_by == "packstack":
        return profile
    for name in profile_names():
        other = load_profile(name)
        if other.deployed_by == "packstack" and other.distribution == profile.distribution:
            return other
    raise NotServed(
        f"no profile deploys {profile.distribution} with PackStack",
        advice="RDO's packages are for CentOS: lab profiles",
    )


def render(
    profile: Profile, *, services: Iterable[str] = (), secrets: Mapping[str, str] | None = None, host_ip: str
) -> str:
    """The answer file. `secrets` by the names of `SECRETS`; without them it is for showing, and has asterisks for passwords.

    Raises UnknownName, NotServed, ProfileInvalid, which never tell a value.
    """
    installed = dict(DEFAULTS)
    for name in profile.chosen(services):
        installed |= profile.services[name].values
    jinja = environment([templates.ANSWER_TEMPLATES], {"answer": _answer, "key": _key})
    values = {
        "v": profile.values, "cloud": profile.cloud, "secrets": secrets or dict.fromkeys(SECRETS, MASK),
        "host_ip": checked_address(host_ip), "installed": installed,
    }  # fmt: skip
    try:
        text = jinja.get_template(TEMPLATE).render(values)
    except jinja2.TemplateError as error:
        raise ProfileInvalid(
            f"{TEMPLATE}: {error.message}", advice=f"what it needs: values in the profile {profile.name}"
        ) from error
    return f"# Written by lab for profile {profile.name}.\n{text}"


def _answer(value: object) -> str:
    if isinstance(value, jinja2.Undefined):
        return str(value)  # raises, and says what is missing
    text = {True: "y", False: "n"}[value] if isinstance(value, bool) else str(value)
    # ConfigParser ends a value at the line's end and takes "; " after a blank for a comment; Puppet then reads it as YAML.
    if not re.fullmatch(r"[A-Za-z0-9_.,:/@+=*-]*", text):
        raise ProfileInvalid(
            "a value for the answer file has characters in it that PackStack would not take as they are"
        )
    return text


def _key(name: object) -> str:
    if not re.fullmatch(r"(CONFIG|EXCLUDE)_[A-Z0-9_]+", str(name)):
        raise ProfileInvalid(f"'{name}' cannot be a key of an answer file")
    return str(name)


# --- the stage -----------------------------------------------------------------------------------------------------


def stages(deployment: Deployment) -> list[Stage]:
    """The answer file on the machine, readable for root alone."""

    def files(progress: Progress) -> list[MachineFile]:
        secrets = {name: deployment.lab.secret(name) for name in SECRETS}
        text = render(deployment.profile, services=deployment.services, secrets=secrets, host_ip=deployment.host_ip)
        return [MachineFile(ANSWERS, text.encode(), mode=0o600)]

    return [file_stage(deployment.machine, "answers", "PackStack's answer file", files, detail=ANSWERS)]
