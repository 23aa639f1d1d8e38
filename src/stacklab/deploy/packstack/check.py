"""Grading an answer file that somebody wrote: as PackStack reads it, and whether it would come to a cloud.

What PackStack does with it: installer/run_setup.py at pike-eol (`_handleAnswerFileParams`: ConfigParser, the section `general`
alone; a key that it does not know is passed over in silence, one that is missing gets its default).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stacklab.deploy.complaint import Complaint, meant
from stacklab.deploy.localconf.render import MASK

HOSTS = (
    *("CONFIG_CONTROLLER_HOST", "CONFIG_COMPUTE_HOSTS", "CONFIG_NETWORK_HOSTS"),
    *("CONFIG_AMQP_HOST", "CONFIG_MARIADB_HOST"),
)
"""Without them PackStack takes the first address that it finds on its own machine, which may be the wrong one of two."""
YES = (
    "CONFIG_GLANCE_INSTALL",
    "CONFIG_NOVA_INSTALL",
    "CONFIG_NEUTRON_INSTALL",
    "CONFIG_HORIZON_INSTALL",
    "CONFIG_CINDER_INSTALL",
)
"""What the course's cloud has to have."""
OTHERS = tuple(
    f"CONFIG_{name}_INSTALL"
    for name in (
        *("MARIADB", "CLIENT", "SWIFT", "CEILOMETER", "AODH", "PANKO", "HEAT", "HEAT_CFN", "HEAT_CLOUDWATCH", "SAHARA"),
        *("MAGNUM", "TROVE", "MANILA", "IRONIC", "LBAAS", "NEUTRON_METERING_AGENT"),
    )
)
"""Other things that PackStack installs or not, so that none of them is taken for a slip of the pen."""
PASSWORD = re.compile(r"_(PW|PASSWORD)$")
PLACEHOLDER = "PW_PLACEHOLDER"
_LINE = re.compile(r"^([A-Za-z0-9_]+)\s*[=:]\s*(.*)$")


@dataclass(frozen=True)
class Answer:
    """A value and the line that it stands on."""

    line: int
    value: str


def check(text: str, *, addresses: Iterable[str], known: Iterable[str] = ()) -> list[Complaint]:
    """Everything that is wrong, by line. `addresses`: those of the machine that it is for. `known`: names of keys."""
    found: list[Complaint] = []
    answers: dict[str, Answer] = {}
    heads = 0
    names = {*known, *HOSTS, *YES, *OTHERS, "CONFIG_KEYSTONE_ADMIN_PW", "CONFIG_DEFAULT_PASSWORD"}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        if line.startswith("["):
            heads += 1
            if line.strip() != "[general]":
                found.append(Complaint(number, f"'{line.strip()[:40]}': PackStack reads the section [general] alone"))
            continue
        if not heads:
            found.append(Complaint(number, "stands before [general]: PackStack cannot read the file"))
            heads = 1
        found += _line(number, line, answers, names)
    if not heads:
        found.append(Complaint(0, "there is no section [general]"))
    found += [*_hosts(answers, list(addresses)), *_installed(answers), *_passwords(answers), *_networks(answers)]
    return sorted(found)


def _line(number: int, line: str, answers: dict[str, Answer], names: set[str]) -> list[Complaint]:
    if line[0].isspace():
        return [Complaint(number, "begins with a blank: PackStack takes it for more of the line above")]
    match = _LINE.match(line)
    if match is None:
        return [Complaint(number, "an answer is written KEY=value")]
    key, value = match[1].upper(), match[2].strip()  # ConfigParser does not tell large letters from small ones
    found = []
    if key in answers:
        found.append(
            Complaint(
                number, f"{key} stands here a second time (first on line {answers[key].line}); the last one counts"
            )
        )
    answers[key] = Answer(number, value)
    if re.match(r"^(['\"]).*\1$", value):
        found.append(Complaint(number, f"{key}: no quotes; PackStack would take them for a part of the value"))
    if "%" in value:
        found.append(Complaint(number, f"{key}: a % begins an interpolation for the program that reads the file"))
    if key.endswith("_INSTALL") and value not in ("y", "n"):
        found.append(Complaint(number, f"{key} is '{value[:20]}', and has to be y or n"))
    if near := meant(key, names):
        found.append(
            Complaint(
                number,
                f"{key} is no key that lab knows, and PackStack passes over what it does not know: is {near} meant?",
            )
        )
    elif not key.startswith(("CONFIG_", "EXCLUDE_SERVERS")):
        found.append(Complaint(number, f"{key} is no key of PackStack's: they begin with CONFIG_"))
    return found


def _hosts(answers: dict[str, Answer], addresses: Sequence[str]) -> list[Complaint]:
    found = []
    own = " or ".join(addresses)
    for key in HOSTS:
        answer = answers.get(key)
        if answer is None or not answer.value:
            line = answer.line if answer else 0
            found.append(
                Complaint(
                    line,
                    f"{key} is not set: PackStack would take the first address that it finds, which may not be {own}",
                )
            )
            continue
        for one in answer.value.split(","):
            found += _host(key, answer.line, one.strip(), addresses)
    given = {key: answers[key].value for key in HOSTS[:3] if key in answers and answers[key].value}
    if not found and len({frozenset(value.split(",")) for value in given.values()}) > 1:
        found.append(
            Complaint(
                answers[HOSTS[0]].line,
                "controller, compute and network node are not the same machine, and the lab has one",
            )
        )
    return found


def _host(key: str, line: int, value: str, addresses: Sequence[str]) -> list[Complaint]:
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        return [Complaint(line, f"{key} is '{value[:40]}', which is no IPv4 address")]
    if address.is_loopback:
        return [
            Complaint(line, f"{key} is a loopback address, and goes into the addresses that the catalogue gives out")
        ]
    if str(address) not in addresses:
        return [
            Complaint(line, f"{key} is {address}, which is no address of the machine; it has {' or '.join(addresses)}")
        ]
    return []


def _installed(answers: dict[str, Answer]) -> list[Complaint]:
    return [
        Complaint(answers[key].line, f"{key} is n, and the course's cloud has to have it")
        for key in YES
        if key in answers and answers[key].value == "n"
    ]


def _passwords(answers: dict[str, Answer]) -> list[Complaint]:
    found = []
    for key, answer in answers.items():
        if not PASSWORD.search(key):
            continue
        if answer.value == MASK:
            found.append(Complaint(answer.line, f"{key} holds the asterisks that lab shows in place of a password"))
        elif answer.value not in ("", PLACEHOLDER) and not re.fullmatch(r"[A-Za-z0-9_.,+-]+", answer.value):
            found.append(
                Complaint(answer.line, f"{key}: letters and digits alone; it goes into URLs and through a shell")
            )
    default = answers.get("CONFIG_DEFAULT_PASSWORD")
    admin = answers.get("CONFIG_KEYSTONE_ADMIN_PW")
    lacking = admin is None or admin.value in ("", PLACEHOLDER)
    if lacking and (default is None or not default.value):
        line = admin.line if admin else 0
        found.append(
            Complaint(
                line,
                "CONFIG_KEYSTONE_ADMIN_PW is not set: PackStack would make one up, and nobody could log in as admin",
            )
        )
    return found


def _networks(answers: dict[str, Answer]) -> list[Complaint]:
    found = []

    def words(key: str) -> list[str]:
        return [one.strip() for one in answers[key].value.split(",") if one.strip()] if key in answers else []

    types, own = "CONFIG_NEUTRON_ML2_TYPE_DRIVERS", "CONFIG_NEUTRON_ML2_TENANT_NETWORK_TYPES"
    if types in answers and own in answers:
        found += [
            Complaint(answers[own].line, f"{own} names {one}, which is not among {types}")
            for one in words(own)
            if one not in words(types)
        ]
    mappings, physnet = "CONFIG_NEUTRON_OVS_BRIDGE_MAPPINGS", "CONFIG_NEUTRON_OVS_EXTERNAL_PHYSNET"
    if mappings in answers and physnet in answers:
        named = [one.partition(":")[0] for one in words(mappings)]
        if answers[physnet].value not in named:
            found.append(
                Complaint(
                    answers[physnet].line, f"{physnet} is {answers[physnet].value}, which {mappings} does not name"
                )
            )
    floating = answers.get("CONFIG_PROVISION_DEMO_FLOATRANGE")
    if floating:
        try:
            net = ipaddress.IPv4Network(floating.value)
        except ValueError:
            return [
                *found,
                Complaint(floating.line, "CONFIG_PROVISION_DEMO_FLOATRANGE is no network like 172.24.4.0/24"),
            ]
        host = answers.get("CONFIG_CONTROLLER_HOST")
        if host and _lies_in(host.value, net):
            found.append(Complaint(floating.line, "the machine itself lies in CONFIG_PROVISION_DEMO_FLOATRANGE"))
    return found


def _lies_in(address: str, net: ipaddress.IPv4Network) -> bool:
    try:
        return ipaddress.IPv4Address(address) in net
    except ValueError:
        return False
