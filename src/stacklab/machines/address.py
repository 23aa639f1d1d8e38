"""Where a machine is and who logs in there: `ssh://user@host:port`, `user@host`, or a Host of the user's ssh_config."""

from __future__ import annotations

import getpass
import glob
import ipaddress
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stacklab.errors import HomeUnavailable

SSH_PORT = 22
FORMS = "write ssh://user@host[:port] ([address] for IPv6), user@host, or the name of a Host in ~/.ssh/config"
JUMPS_AT_MOST = 8
INCLUDES_AT_MOST = 16
"""Files in files; ssh itself goes no deeper (readconf.c)."""

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_USER = re.compile(r"[^\s@:/\-\x00-\x1f][^\s@:/\x00-\x1f]{0,63}")


@dataclass(frozen=True)
class Address:
    """A machine that SSH reaches.

    `identities`: private key files to try (none: the agent and the user's default keys). `jump`: the machine to go
    through (ssh_config's ProxyJump).
    """

    host: str
    user: str
    port: int = SSH_PORT
    identities: tuple[Path, ...] = ()
    jump: Address | None = None

    @property
    def name(self) -> str:
        """What messages call the machine: `stack@192.0.2.7`, with its port where that is not 22."""
        return (
            f"{self.user}@{self.host}" if self.port == SSH_PORT else f"{self.user}@{_bracketed(self.host)}:{self.port}"
        )

    @property
    def known_as(self) -> str:
        """Its name in a known_hosts file (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
        return self.host if self.port == SSH_PORT else f"[{self.host}]:{self.port}"

    @classmethod
    def parse(cls, text: str, *, config: Path | None = None) -> Address:
        """The address that `text` means, completed from the ssh_config file `config` (None: ~/.ssh/config).

        HostName, Port, User, IdentityFile, ProxyJump and Include are followed; what `text` itself says wins. Raises
        HomeUnavailable if `text` or that file cannot be understood.
        """
        return _resolve(text, _Config(config or Path("~/.ssh/config").expanduser()), 0)


class _Config:
    """The user's ssh_config; no file is an empty one."""

    def __init__(self, path: Path) -> None:
        from paramiko import SSHConfig  # type: ignore[import-untyped]  # here: paramiko is slow to import
        from paramiko.ssh_exception import ConfigParseError  # type: ignore[import-untyped]

        self.path = path
        self._wrong: type[Exception] = ConfigParseError
        try:
            self._parsed = SSHConfig.from_text(_text(path, path.parent, 0)) if path.is_file() else SSHConfig()
        except (ConfigParseError, OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def lookup(self, host: str) -> dict[str, Any]:
        try:
            return dict(self._parsed.lookup(host))
        except self._wrong as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> HomeUnavailable:
        return HomeUnavailable(f"{self.path} cannot be used: {error}", advice="ssh -G HOST says what ssh makes of it")


def _text(path: Path, base: Path, depth: int) -> str:
    """A configuration file with its `Include` lines (ssh_config(5)) replaced by what they name; paramiko passes over them.

    What follows an included file belongs to the block in which the `Include` stands, so that block's head is said again.
    """
    lines, head = [], "Host *"
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if word.lower() in ("host", "match"):
            head = line
        if word.lower() != "include" or depth >= INCLUDES_AT_MOST:
            lines.append(line)
            continue
        for pattern in shlex.split(rest):
            for file in sorted(glob.glob(str(base / Path(pattern).expanduser()))):  # noqa: PTH207  # patterns may be absolute
                if Path(file).is_file():
                    lines += [_text(Path(file), base, depth + 1), head]
    return "\n".join([*lines, ""])


def _resolve(text: str, config: _Config, depth: int) -> Address:
    user, host, port = _split(text)
    known = config.lookup(host)
    if known.get("proxycommand", "none").lower() != "none":
        raise HomeUnavailable(
            f"{config.path} reaches '{host}' through a ProxyCommand, which lab does not run",
            advice="use ProxyJump there",
        )
    jump = None
    # As in ssh: the last hop of a list is the one next to the machine, and each hop may have a jump of its own.
    hops = known.get("proxyjump", "none")
    if hops.lower() != "none":
        if depth >= JUMPS_AT_MOST:
            raise HomeUnavailable(
                f"ProxyJump in {config.path} goes round in a circle", advice=f"look at '{host}' there"
            )
        for hop in hops.split(","):
            near = _resolve(hop if "://" in hop else f"ssh://{hop.strip()}", config, depth + 1)
            jump = Address(near.host, near.user, near.port, near.identities, near.jump or jump)
    return Address(
        _checked_host(str(known.get("hostname", host)), text),
        _checked_user(user or str(known.get("user", "")) or getpass.getuser(), text),
        port or _checked_port(str(known.get("port", SSH_PORT)), text),
        tuple(Path(file).expanduser() for file in known.get("identityfile", [])),
        jump,
    )


def _split(text: str) -> tuple[str | None, str, int | None]:
    """User, host and port that `text` says. A URL's port and brackets are not ssh's `user@host` syntax, as in ssh(1)."""
    url = text.lower().startswith("ssh://")
    if "://" in text and not url:
        raise _wrong(text.split("://")[0] + "://…", "only ssh:// is served")
    rest = text[6:].removesuffix("/") if url else text
    before, at, after = rest.rpartition("@")
    if ":" in before:
        # The text is not repeated: what follows the colon is a password.
        raise _wrong(f"…@{after}", "a user's name holds no ':', and a password does not belong into an address")
    user = _checked_user(before, text) if at else None
    port = None
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::(.*))?", after)
    if bracketed:
        host, said = bracketed.groups()
    elif "[" in after:
        raise _wrong(text, f"{after!r} is neither a host name nor [an IPv6 address]")
    elif url:
        host, colon, said = after.partition(":")
        said = said if colon else None
    else:
        host, said = after, None
        if ":" in host and not _is_ip(host):
            raise _wrong(text, f"a port needs the form ssh://{text}")
    if said is not None:
        port = _checked_port(said, text)
    return user, _checked_host(host, text), port


def _checked_host(host: str, text: str) -> str:
    if not host:
        raise _wrong(text, "it names no host")
    if not _is_ip(host) and not _HOST.fullmatch(host):
        raise _wrong(text, f"{host!r} is neither a host name nor an IP address")
    return host.lower()


def _checked_user(user: str, text: str) -> str:
    if not _USER.fullmatch(user):
        raise _wrong(text, f"{user!r} cannot be a user's name")
    return user


def _checked_port(said: str, text: str) -> int:
    if not said.isascii() or not said.isdigit() or not 1 <= int(said) <= 65535:
        raise _wrong(text, f"{said!r} is no port (1 to 65535)")
    return int(said)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _wrong(text: str, why: str) -> HomeUnavailable:
    return HomeUnavailable(f"'{text}' is no machine's address: {why}", advice=FORMS)
