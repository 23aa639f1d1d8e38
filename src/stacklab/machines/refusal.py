"""Why ssh made no connection, read from what it wrote (at LogLevel DEBUG1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from stacklab.errors import HostKeyChanged, LabError, LoginRefused, MachineUnreachable
from stacklab.machines.address import Address
from stacklab.machines.known_hosts import KnownHosts

_DENIED = re.compile(r"^.*(Permission denied|Too many authentication failures|authentication methods).*$", re.MULTILINE)

_NO_WAY = [
    (r"Connection refused", "{where} refuses connections: no SSH server listens there", "is sshd running?"),
    (
        r"Could not resolve hostname (\S+):",
        "the name {name} cannot be resolved",
        "check its spelling, or give an IP address",
    ),
    (
        r"(?m)^.*(?:banner exchange|exchange_identification|banner line|Connection closed|Connection reset).*$",
        "{where} did not answer as an SSH server does: {line}",
        "is the machine up, and is that the port of its sshd? {look}",
    ),
    (r"timed out", "{where} did not answer in time", "is the machine up, and does a firewall drop the port? {look}"),
    (
        r"No route to host|Network is unreachable",
        "there is no route to {where}",
        "is the machine up, and on this network?",
    ),
    (r"no matching .*", "{where} and we know no common way to encrypt: {line}", "its sshd is too old"),
    (
        r"(?s).*\n(.+)|(.*)",
        "{where} cannot be reached: {name}",
        "is the machine up, and on this network? Is its address right?",
    ),
]
"""What ssh says where it does not get through, what we say, and what would help; the last one fits always."""


def why_refused(log: str, address: Address, known_hosts: KnownHosts, key: Path | None) -> LabError:
    """The error for what ssh wrote about connecting to a machine, with this key of ours."""
    text = "\n".join(line.strip() for line in log.splitlines() if line.strip() and not line.startswith("debug"))
    if "Host key verification failed" in text:
        return _host_key_changed(log, address, known_hosts)
    if denied := _DENIED.search(text):
        hop = next((hop for hop in hops(address) if f"{hop.user}@{hop.host}:" in denied[0]), address)
        tried = "; ".join(_tried(log, key)) or "nothing: there is no key and no agent to try"
        return LoginRefused(
            f"{hop.name} does not let us in. Tried: {tried}",
            advice=f"put a public key into ~{hop.user}/.ssh/authorized_keys on the machine, or name the right key or user",
        )
    for pattern, message, advice in _NO_WAY:
        if found := re.search(pattern, text):
            name = next((group for group in found.groups() if group), "ssh ended without a word")
            words = {"where": f"{address.host} port {address.port}", "name": name, "line": found[0].strip()}
            return MachineUnreachable(message.format(**words), advice=advice.format(look=look_closer(address)))
    raise AssertionError(text)


def hops(address: Address) -> Iterator[Address]:
    """The machine and those on the way to it."""
    hop: Address | None = address
    while hop is not None:
        yield hop
        hop = hop.jump


def look_closer(address: Address) -> str:
    """The command that does, for the end of an advice."""
    return f"lab doctor --on ssh://{address.name} looks closer"


def _host_key_changed(log: str, address: Address, known_hosts: KnownHosts) -> HostKeyChanged:
    hop = next((hop for hop in hops(address) if f"for {hop.known_as} " in log), address)
    shows = re.findall(r"Server host key: (\S+) (\S+)", log)[-1:]
    shown = f"{shows[0][1]} ({shows[0][0]})" if shows else "one that it does not name"
    pinned = ", ".join(f"{key.fingerprint} ({key.kind})" for key in known_hosts.of(hop.known_as))
    return HostKeyChanged(
        f"{hop.name} shows another host key than before: {shown} instead of {pinned}",
        advice=f"if the machine was made anew on purpose, forget its key: ssh-keygen -R '{hop.known_as}' "
        f"-f {known_hosts.path} – if not, somebody may stand between you and it",
    )


def _tried(log: str, key: Path | None) -> Iterator[str]:
    """Each key that ssh offered or could not use, and what came of it."""
    if key is not None and not key.exists():  # said before the log is open
        yield f"key {key} (there is no such file)"
    for file in re.findall(r"no such identity: (.+): No such file", log):
        yield f"key {file} (there is no such file)"
    for file, why in re.findall(r'Load key "(.+)": (.+)', log):
        yield f"key {file} (not offered: {why})"
    accepted = re.findall(r"Server accepts key: (\S+)", log)
    for offered in re.findall(r"Offering public key: (.+)", log):
        file = offered.split()[0]
        locked = (
            f" (accepted, but it has a passphrase; ssh-add {file} hands it to the agent)" if file in accepted else ""
        )
        yield f"key {offered}{locked}"
