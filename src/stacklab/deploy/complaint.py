"""What is wrong with a file that somebody wrote for a deployment, and on which line."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches

PLAIN_PASSWORD = re.compile(r"[A-Za-z0-9_.,+-]+")
"""Whatever carries a password through URLs, shells and sed leaves these alone."""


@dataclass(frozen=True, order=True)
class Complaint:
    """One thing that is wrong. `line`: from 1; 0 for something that stands nowhere in the file. It never quotes a password."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


def meant(name: str, known: Iterable[str]) -> str | None:
    """What a name is probably a slip of the pen for; None where it is one of `known`, or like none of them."""
    names = list(known)
    return None if name in names else next(iter(get_close_matches(name.upper(), names, n=1, cutoff=0.86)), None)


def wrong_address(value: str, addresses: Collection[str], loopback: str) -> str | None:
    """Why a value cannot be the machine's address, as the rest of a sentence; None where it is one of `addresses`.

    `loopback`: what is to be said of a loopback address.
    """
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        return f"is '{value[:40]}', which is no IPv4 address"
    if str(address) in addresses:
        return None
    if address.is_loopback:
        return f"is a loopback address{loopback}"
    return f"is {address}, which is no address of the machine; it has {' or '.join(addresses)}"


def network(value: str) -> ipaddress.IPv4Network | None:
    """The network that a value means, if any."""
    try:
        return ipaddress.IPv4Network(value)
    except ValueError:
        return None


def lies_in(address: str, net: ipaddress.IPv4Network) -> bool:
    """Whether an address (which may be none) is of this network."""
    try:
        return ipaddress.IPv4Address(address) in net
    except ValueError:
        return False
