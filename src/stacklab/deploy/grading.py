"""Grading a file of settings that somebody wrote for a deployment: what is wrong, and on which line.

A reader (`localconf.check`, `packstack.check`) takes the file apart and tells what is wrong with its form. What has to hold for
single settings are rules, which stand as data beside the explanations of the file's lines (`explained`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal

from stacklab.deploy.profile.model import Part

MASK: Final = "********"
"""What is shown in place of a password."""
UNSET = ("", "PW_PLACEHOLDER")
"""PackStack itself writes the second where a password is still to come."""
_PLAIN_PASSWORD = re.compile(r"[A-Za-z0-9_.,+-]+")
"""Whatever carries a password through URLs, shells and sed leaves these alone."""
_FORMS = {
    "number": ("a whole number", re.compile(r"[0-9]+")),
    "size": ("a size like 24G", re.compile(r"[0-9]+([KkMmGgTt](i?B)?)?")),  # as truncate -s takes it
    # trueorfalse of DevStack's functions-common: whatever else it gets is the setting's default, without a word.
    "switch": ("True or False", re.compile(r"[01]|[yY]es|YES|[tT]rue|TRUE|[nN]o|NO|[fF]alse|FALSE")),
}
"""What a value may have to look like, in words and as a pattern."""


@dataclass(frozen=True, order=True)
class Complaint:
    """One thing that is wrong. `line`: from 1; 0 for something that stands nowhere in the file. It never quotes a password."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


@dataclass(frozen=True)
class Setting:
    """A setting as the file's reader would have it; `value` is None where only that could tell (it runs a command, say)."""

    line: int
    value: str | None


class Rule(Part):
    """What has to hold for a setting.

    `needed`: it has to be there, and what would happen without; `instead`: another setting that does as well. `words`: what it
    may be, and `why` nothing else. `form`: what it looks like; an address is to be one of the machine's, and no network one
    that the machine's address lies in. `within`, `apart`: a network of the file's that it has to be an address of, or to have
    none in common with. `among`: a setting that lists what its words may be, before a colon if there is one.
    """

    form: Literal["number", "size", "switch", "password", "address", "addresses", "network"] | None = None
    words: list[str] = []
    why: str = ""
    needed: str = ""
    instead: str = ""
    within: str = ""
    apart: str = ""
    among: str = ""


def best_fit(name: str, keys: Iterable[str]) -> str | None:
    """The longest of `keys` that fits a setting's name; a `*` at a key's end or beginning stands for anything."""

    def fits(key: str) -> bool:
        if key.endswith("*"):
            return name.startswith(key[:-1])
        return name.endswith(key[1:]) if key.startswith("*") else key == name

    return max(filter(fits, keys), key=lambda key: len(key.strip("*")), default=None)


def meant(name: str, known: Iterable[str]) -> str | None:
    """What a name is probably a slip of the pen for; None where it is one of `known`, or like none of them."""
    names = list(known)
    return None if name in names else next(iter(get_close_matches(name.upper(), names, n=1, cutoff=0.86)), None)


def judged(rules: Mapping[str, Rule], settings: Mapping[str, Setting], addresses: Sequence[str]) -> Iterator[Complaint]:
    """What breaks a rule. `addresses`: those of the machine that the file is for."""
    values = {name: setting.value for name, setting in settings.items()}
    for name, rule in rules.items():
        if rule.needed and not {name, rule.instead} & settings.keys():
            yield Complaint(0, f"{name} is not set: {rule.needed}")
    # Only the address that the file gives: the machine itself has more, one of the public network among them.
    own = [values[name] for name, rule in rules.items() if rule.form == "address" and values.get(name)]
    for name, setting in settings.items():
        rule, value = rules[best_fit(name, rules) or ""] if best_fit(name, rules) else Rule(), setting.value
        if value is None:
            continue
        if value in UNSET:
            if rule.needed and not values.get(rule.instead):
                yield Complaint(setting.line, f"{name} is empty: {rule.needed}")
            continue
        problems = [*_of_form(name, value, rule, addresses), *_beside_others(name, value, rule, values, own)]
        yield from (Complaint(setting.line, problem) for problem in problems)


def _of_form(name: str, value: str, rule: Rule, addresses: Sequence[str]) -> Iterator[str]:
    why = f": {rule.why}" if rule.why else ""
    if rule.words and value not in rule.words:
        several = "one of " if len(rule.words) > 2 else ""
        yield f"{name} is '{value[:40]}', and has to be {several}{', '.join(rule.words)}{why}"
    elif rule.form in _FORMS:
        words, pattern = _FORMS[rule.form]
        if not pattern.fullmatch(value):
            yield f"{name} is '{value[:40]}', and has to be {words}{why}"
    elif rule.form == "password" and value == MASK:
        yield f"{name} holds the asterisks that lab shows in place of a password"
    elif rule.form == "password" and not _PLAIN_PASSWORD.fullmatch(value):
        yield f"{name}: letters and digits alone; it goes into URLs, and through a shell or sed"
    elif rule.form == "network" and _network(value) is None:
        yield f"{name} is '{value[:40]}', which is no network like 172.24.4.0/24"
    elif rule.form in ("address", "addresses"):
        for word in _words(value) if rule.form == "addresses" else [value]:
            if problem := _wrong_address(word, addresses):
                yield f"{name} {problem}"


def _beside_others(
    name: str, value: str, rule: Rule, values: Mapping[str, str | None], own: Sequence[str | None]
) -> Iterator[str]:
    """`own`: the addresses that the file gives the machine."""
    net = _network(value) if rule.form == "network" else None
    if net and any(_lies_in(address, net) for address in own):
        yield f"the machine's own address lies in {name}: it could not tell its neighbours from instances"
    if net and (other := _network(values.get(rule.apart))) and net.overlaps(other):
        yield f"{name} and {rule.apart} have addresses in common"
    if (other := _network(values.get(rule.within))) and not _lies_in(value, other):
        yield f"{name} is no address of {rule.within}"
    if listed := values.get(rule.among):
        allowed = [word.partition(":")[0] for word in _words(listed)]
        for word in _words(value):
            if word not in allowed:
                yield f"{name} names {word}, which is not among {rule.among}"


def _words(value: str) -> list[str]:
    return [word.strip() for word in value.split(",") if word.strip()]


def _wrong_address(value: str, addresses: Sequence[str]) -> str | None:
    """Why a value cannot be the machine's address, as the rest of a sentence; None where it is one of `addresses`."""
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        return f"is '{value[:40]}', which is no IPv4 address"
    if str(address) in addresses:
        return None
    if address.is_loopback:
        return "is a loopback address: nobody but the machine itself could reach the cloud"
    return f"is {address}, which is no address of the machine; it has {' or '.join(addresses)}"


def _network(value: str | None) -> ipaddress.IPv4Network | None:
    try:
        return ipaddress.IPv4Network(value) if value else None
    except ValueError:
        return None


def _lies_in(address: str | None, net: ipaddress.IPv4Network) -> bool:
    try:
        return ipaddress.IPv4Address(address) in net if address else False
    except ValueError:
        return False
