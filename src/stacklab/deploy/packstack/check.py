"""Grading an answer file that somebody wrote: as PackStack reads it, and whether it would come to a cloud.

What PackStack does with it: installer/run_setup.py at pike-eol (`_handleAnswerFileParams`: ConfigParser, the section `general`
alone; a key that it does not know is passed over in silence, one that is missing gets its default).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stacklab.deploy.complaint import PLAIN_PASSWORD, Complaint, lies_in, meant, network, wrong_address
from stacklab.deploy.localconf.render import MASK

HOSTS = (
    *("CONFIG_CONTROLLER_HOST", "CONFIG_COMPUTE_HOSTS", "CONFIG_NETWORK_HOSTS"),
    *("CONFIG_AMQP_HOST", "CONFIG_MARIADB_HOST"),
)
"""Without them PackStack takes the first address that it finds on its own machine, which may be the wrong one of two."""
YES = tuple(f"CONFIG_{name}_INSTALL" for name in ("GLANCE", "NOVA", "NEUTRON", "HORIZON", "CINDER"))
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
class AnswerLine:
    """A value and the line that it stands on."""

    line: int
    value: str


Answers = dict[str, AnswerLine]


def check(text: str, *, addresses: Iterable[str], known: Iterable[str] = ()) -> list[Complaint]:
    """Everything that is wrong, by line. `addresses`: those of the machine that it is for. `known`: names of keys."""
    answers: Answers = {}
    names = {*known, *HOSTS, *YES, *OTHERS, "CONFIG_KEYSTONE_ADMIN_PW", "CONFIG_DEFAULT_PASSWORD"}
    complaints = [*_lines(text, answers, names), *_hosts(answers, list(addresses)), *_installed(answers)]
    return sorted([*complaints, *_passwords(answers), *_networks(answers)])


def _lines(text: str, answers: Answers, names: set[str]) -> Iterator[Complaint]:
    """Line by line; what a line answers is added to `answers`."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        if line.startswith("["):
            inside = True
            if line.strip() != "[general]":
                yield Complaint(number, f"'{line.strip()[:40]}': PackStack reads the section [general] alone")
            continue
        if not inside:
            inside = True
            yield Complaint(number, "stands before [general]: PackStack cannot read the file")
        for wrong in _line(number, line, answers, names):
            yield Complaint(number, wrong)
    if not inside:
        yield Complaint(0, "there is no section [general]")


def _line(number: int, line: str, answers: Answers, names: set[str]) -> Iterator[str]:
    """What is wrong with one line."""
    match = _LINE.match(line)
    if line[0].isspace():
        yield "begins with a blank: PackStack takes it for more of the line above"
    elif match is None:
        yield "an answer is written KEY=value"
    if match is None:
        return
    key, value = match[1].upper(), match[2].strip()  # ConfigParser does not tell large letters from small ones
    if key in answers:
        yield f"{key} stands here a second time (first on line {answers[key].line}); the last one counts"
    answers[key] = AnswerLine(number, value)
    if re.match(r"^(['\"]).*\1$", value):
        yield f"{key}: no quotes; PackStack would take them for a part of the value"
    if "%" in value:
        yield f"{key}: a % begins an interpolation for the program that reads the file"
    if key.endswith("_INSTALL") and value not in ("y", "n"):
        yield f"{key} is '{value[:20]}', and has to be y or n"
    if near := meant(key, names):
        yield f"{key} is no key that lab knows, and PackStack passes over what it does not know: is {near} meant?"
    elif not key.startswith(("CONFIG_", "EXCLUDE_SERVERS")):
        yield f"{key} is no key of PackStack's: they begin with CONFIG_"


def _hosts(answers: Answers, addresses: list[str]) -> Iterator[Complaint]:
    right = True
    for key in HOSTS:
        answer = answers.get(key, AnswerLine(0, ""))
        if not answer.value:
            right = False
            first = "PackStack would take the first address that it finds, which may not be"
            yield Complaint(answer.line, f"{key} is not set: {first} {' or '.join(addresses)}")
            continue
        loopback = ", and goes into the addresses that the catalogue gives out"
        for value in _words(answer):
            if wrong := wrong_address(value, addresses, loopback):
                right = False
                yield Complaint(answer.line, f"{key} {wrong}")
    if right and len({frozenset(answers[key].value.split(",")) for key in HOSTS[:3]}) > 1:
        text = "controller, compute and network node are not the same machine, and the lab has one"
        yield Complaint(answers[HOSTS[0]].line, text)


def _words(answer: AnswerLine) -> list[str]:
    return [word.strip() for word in answer.value.split(",") if word.strip()]


def _installed(answers: Answers) -> Iterator[Complaint]:
    for key in YES:
        if key in answers and answers[key].value == "n":
            yield Complaint(answers[key].line, f"{key} is n, and the course's cloud has to have it")


def _passwords(answers: Answers) -> Iterator[Complaint]:
    for key, answer in answers.items():
        if not PASSWORD.search(key):
            continue
        if answer.value == MASK:
            yield Complaint(answer.line, f"{key} holds the asterisks that lab shows in place of a password")
        elif answer.value not in ("", PLACEHOLDER) and not PLAIN_PASSWORD.fullmatch(answer.value):
            yield Complaint(answer.line, f"{key}: letters and digits alone; it goes into URLs and through a shell")
    default = answers.get("CONFIG_DEFAULT_PASSWORD")
    admin = answers.get("CONFIG_KEYSTONE_ADMIN_PW", AnswerLine(0, ""))
    if admin.value in ("", PLACEHOLDER) and (default is None or not default.value):
        text = "CONFIG_KEYSTONE_ADMIN_PW is not set: PackStack would make one up, and nobody could log in as admin"
        yield Complaint(admin.line, text)


def _networks(answers: Answers) -> Iterator[Complaint]:
    types, own = "CONFIG_NEUTRON_ML2_TYPE_DRIVERS", "CONFIG_NEUTRON_ML2_TENANT_NETWORK_TYPES"
    if types in answers and own in answers:
        for word in _words(answers[own]):
            if word not in _words(answers[types]):
                yield Complaint(answers[own].line, f"{own} names {word}, which is not among {types}")
    mappings, physnet = "CONFIG_NEUTRON_OVS_BRIDGE_MAPPINGS", "CONFIG_NEUTRON_OVS_EXTERNAL_PHYSNET"
    if mappings in answers and physnet in answers:
        answer = answers[physnet]
        if answer.value not in [word.partition(":")[0] for word in _words(answers[mappings])]:
            yield Complaint(answer.line, f"{physnet} is {answer.value}, which {mappings} does not name")
    floating, host = answers.get("CONFIG_PROVISION_DEMO_FLOATRANGE"), answers.get("CONFIG_CONTROLLER_HOST")
    if floating:
        net = network(floating.value)
        if net is None:
            yield Complaint(floating.line, "CONFIG_PROVISION_DEMO_FLOATRANGE is no network like 172.24.4.0/24")
        elif host and lies_in(host.value, net):
            yield Complaint(floating.line, "the machine itself lies in CONFIG_PROVISION_DEMO_FLOATRANGE")
