"""Where a machine is and who logs in there: `ssh://user@host:port`, `user@host`, or a Host of the user's ssh_config."""

from __future__ import annotations

import getpass
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from stacklab.errors import HomeUnavailable, MissingProgram

SSH_PORT = 22
FORMS = "write ssh://user@host[:port] ([address] for IPv6), user@host, or the name of a Host in ~/.ssh/config"
JUMPS_AT_MOST = 8
RESOLVE_SECONDS = 30
"""`ssh -G` may ask name servers (CanonicalizeHostname) or run a program (Match exec)."""

_UNSAFE = re.compile(r"[\s'`\"$\\;&<>|(){}\x00-\x1f]")
"""ssh itself refuses these in newer versions (valid_hostname in ssh.c), because names stand in ProxyCommand's shell."""
_BRACKETED = re.compile(r"ssh://(?:([^@]+)@)?\[([^\[\]]+)\](?::(\d+))?/?")
"""ssh itself does not understand it, up to 9.2 at least, though ssh(1) promises it."""


@dataclass(frozen=True)
class Address:
    """A machine that SSH reaches.

    `jump`: the machine to go through (ssh_config's ProxyJump). `asked`: what ssh is given so that it looks up everything else
    (keys, agent, ProxyCommand…) in the user's configuration, the Host last; nothing: that configuration is not read.
    `settings`: what ssh found there, by the option's name in small letters.
    """

    host: str
    user: str
    port: int = SSH_PORT
    jump: Address | None = None
    asked: tuple[str, ...] = ()
    settings: Mapping[str, list[str]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """What messages call the machine: `stack@192.0.2.7`, with its port where that is not 22."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{self.host}" if self.port == SSH_PORT else f"{self.user}@{host}:{self.port}"

    @property
    def known_as(self) -> str:
        """Its name in a known_hosts file (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
        if alias := self.setting("hostkeyalias"):
            return alias
        return self.host if self.port == SSH_PORT else f"[{self.host}]:{self.port}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """What ssh is given to reach it; the last word is the destination."""
        return self.asked or ("-F", "none", "-l", self.user, "-p", str(self.port), self.host)

    def setting(self, option: str) -> str:
        """What the user's configuration says for an option; nothing where that is `none`, or nothing."""
        value = self.settings.get(option, ["none"])[0]
        return "" if value.lower() == "none" else value

    def paths(self, option: str) -> list[Path]:
        """The files that an option names."""
        names = [name for name in self.settings.get(option, []) if name.lower() != "none"]
        return [Path(self.expanded(os.path.expandvars(name))).expanduser() for name in names]

    def expanded(self, text: str) -> str:
        """Text of ssh_config with its tokens (`%h`…) replaced (ssh_config(5), TOKENS; but %C and %j)."""
        here, typed = socket.gethostname(), self.settings.get("host", [self.host])[0]
        tokens = {
            "%": "%", "d": str(Path.home()), "h": self.host, "i": str(os.getuid()), "L": here.partition(".")[0], "l": here,
            "k": self.setting("hostkeyalias") or self.host, "n": typed, "p": str(self.port), "r": self.user,
            "u": getpass.getuser(),
        }  # fmt: skip
        return re.sub("%(.)", lambda token: tokens.get(token[1], token[0]), text)

    @classmethod
    def parse(cls, text: str, *, config: Path | None = None) -> Address:
        """The address that `text` means, completed by ssh itself (`ssh -G`) from `config` or the user's own configuration.

        What `text` says wins. Raises HomeUnavailable if it, or that configuration, cannot be understood; MissingProgram.
        """
        return _resolve(text, config or _configuration(), 0)


def ssh_program() -> str:
    """Where ssh is. Raises MissingProgram."""
    program = shutil.which("ssh")
    if program is None:
        raise MissingProgram(
            "ssh is not installed, and lab reaches machines with it",
            advice="apt-get install openssh-client, or dnf install openssh-clients",
        )
    return program


def _configuration() -> Path | None:
    """ssh looks for its configuration in the account's home directory, whatever HOME says; lab follows HOME."""
    home = os.environ.get("HOME", "")
    with suppress(KeyError):  # a number without an account, for which ssh does nothing at all, and says so
        if home and home != pwd.getpwuid(os.getuid()).pw_dir:
            path = Path(home) / ".ssh" / "config"
            return path if path.is_file() else Path("/dev/null")
    return None


def _resolve(text: str, config: Path | None, depth: int) -> Address:
    _examine(text)
    words = [text]
    if six := _BRACKETED.fullmatch(text):
        user, host, port = six.groups()
        words = [*(["-l", user] if user else []), *(["-p", port] if port else []), host]
    asked = [*(["-F", str(config)] if config else []), *words]
    settings = _ssh_says(*asked[:-1], "--", asked[-1])
    # As in ssh: the last hop of a list is the one next to the machine, and each hop may have a jump of its own.
    jump = None
    hops = settings.get("proxyjump", ["none"])[0]
    if hops.lower() != "none":
        if depth >= JUMPS_AT_MOST:
            raise HomeUnavailable("ProxyJump goes round in a circle", advice=f"look at '{text}' in your ssh_config")
        for hop in hops.split(","):
            near = _resolve(hop if "://" in hop else f"ssh://{hop.strip()}", config, depth + 1)
            jump = replace(near, jump=near.jump or jump)
    host, user, port = (settings[option][0] for option in ("hostname", "user", "port"))
    return Address(host, user, int(port), jump, tuple(asked), settings)


def _ssh_says(*arguments: str) -> dict[str, list[str]]:
    """What ssh would use for this machine, by the option's name in small letters."""
    argv = [ssh_program(), "-G", *arguments]
    try:
        done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=RESOLVE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise HomeUnavailable(f"{shlex.join(argv)} takes longer than {RESOLVE_SECONDS} s") from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it ended without a word"]
        if lines[0].startswith("usage:"):
            raise _wrong(arguments[-1], "ssh does not understand it")
        raise HomeUnavailable(
            f"ssh cannot use its configuration for '{arguments[-1]}': {'; '.join(lines[-2:])}",
            advice=f"{shlex.join(argv)} says the same",
        )
    settings: dict[str, list[str]] = {}
    for line in done.stdout.decode(errors="surrogateescape").splitlines():
        option, _, value = line.partition(" ")
        settings.setdefault(option, []).append(value)
    return settings


def _examine(text: str) -> None:
    """Raises HomeUnavailable for what ssh would take for something else than was meant; all else it tells itself."""
    account, _, host = text.removeprefix("ssh://").rpartition("@")
    if ":" in account:
        # The text is not repeated: what follows the colon is a password.
        raise _wrong(f"…@{host}", "a user's name holds no ':', and a password does not belong into an address")
    if not host or _UNSAFE.search(text):
        raise _wrong(text, "it names no host" if not host else "no host is called like this")
    if not text.startswith("ssh://") and ("://" in text or host.count(":") == 1):
        raise _wrong(text, "only ssh:// is served" if "://" in text else f"a port needs the form ssh://{text}")


def _wrong(text: str, why: str) -> HomeUnavailable:
    return HomeUnavailable(f"'{text}' is no machine's address: {why}", advice=FORMS)
