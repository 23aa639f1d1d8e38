"""The keys that are tried on a machine, in ssh's order, and what came of each. Imports paramiko: import this module late."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentKey, AgentSSH
from paramiko.auth_strategy import AuthFailure, AuthStrategy
from paramiko.pkey import PublicBlob
from paramiko.ssh_exception import AuthenticationException, PasswordRequiredException, SSHException

from stacklab.machines.address import Address


class Logins(AuthStrategy):
    """Tries them one by one and keeps a line on each in `tried`; `refused`: the machine answered, and said no.

    `key`: a private key file, and no other one, whatever the user's configuration names.
    """

    def __init__(self, address: Address, key: Path | None) -> None:
        super().__init__(ssh_config=paramiko.SSHConfig())
        self._address = address
        self._files = [key] if key else address.paths("identityfile")
        self._only = key is not None or address.setting("identitiesonly") == "yes"
        self.tried: list[str] = []
        self.refused = False

    def authenticate(self, transport: paramiko.Transport) -> list[str]:  # type: ignore[override]
        """Returns what was tried when the machine lets us in. Raises AuthFailure, SSHException."""
        certificates = self._certificates()
        seen = set()
        for label, key in self._offers():
            if key.asbytes() in seen:
                continue
            seen.add(key.asbytes())
            if path := certificates.get(key.fingerprint):
                key.public_blob = PublicBlob.from_file(str(path))
                if self._accepted(transport, f"{label} with certificate {path}", key):
                    return self.tried
                key.public_blob = None
            if self._accepted(transport, label, key):
                return self.tried
        raise AuthFailure(result=self.tried)  # type: ignore[arg-type]

    def _offers(self) -> Iterator[tuple[str, paramiko.PKey]]:
        """As ssh: the agent's keys that belong to one of the files, the agent's other ones, the files' own."""
        agent = {key.fingerprint: key for key in _agent_keys(self._agent_socket())}
        named = {path: _fingerprint(path) for path in self._files} if agent else {}
        for path, fingerprint in named.items():
            if fingerprint in agent:
                yield f"key {path} (by the agent)", agent[fingerprint]
        if not self._only:
            for fingerprint, key in agent.items():
                yield f"agent key {fingerprint}", key
        for path in self._files:
            if named.get(path) not in agent:
                yield from self._from_file(path)

    def _from_file(self, path: Path) -> Iterator[tuple[str, paramiko.PKey]]:
        """Nothing, and a line in `tried`, for a file that cannot be used."""
        try:
            yield f"key {path}", paramiko.PKey.from_path(path)
        except FileNotFoundError:
            if not path.name.startswith("id_"):  # ssh's default names need not be there
                self.tried.append(f"key {path} (there is no such file)")
        except (PasswordRequiredException, TypeError):  # the latter is cryptography's word for it
            self.tried.append(f"key {path} (not offered: it has a passphrase; ssh-add {path} hands it to the agent)")
        except (SSHException, OSError, ValueError) as error:
            public = path.suffix == ".pub" and _fingerprint(path)
            why = "only its public half is here, and no agent has the other" if public else str(error)
            self.tried.append(f"key {path} (not offered: {why})")

    def _accepted(self, transport: paramiko.Transport, label: str, key: paramiko.PKey) -> bool:
        try:
            more = transport.auth_publickey(self._address.user, key)
        except AuthenticationException:
            self.tried.append(label)
            if not transport.is_active():
                raise
            self.refused = True
            return False
        if more:
            self.tried.append(f"{label} (accepted, but the machine asks for {' or '.join(more)} as well)")
            self.refused = True
        return not more

    def _certificates(self) -> dict[str, Path]:
        """The certificates, by the fingerprint of the key that they are for."""
        beside = [path.with_name(f"{path.name.removesuffix('.pub')}-cert.pub") for path in self._files]
        paths = [path for path in (*beside, *self._address.paths("certificatefile")) if path.is_file()]
        return {fingerprint: path for path in paths if (fingerprint := _fingerprint(path))}

    def _agent_socket(self) -> str:
        """Where the agent listens; nothing: there is none, or it is not to be asked."""
        named = self._address.settings.get("identityagent", ["SSH_AUTH_SOCK"])[0]
        if named == "SSH_AUTH_SOCK":
            return os.environ.get(named, "")
        return "".join(map(str, self._address.paths("identityagent")[:1]))


def _fingerprint(path: Path) -> str:
    """A key's, whether the file has both halves (with a passphrase, too), the public one or a certificate; nothing: no key."""
    if not path.is_file() and not path.with_name(f"{path.name}.pub").is_file():
        return ""
    argv = ["ssh-keygen", "-l", "-f", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False)
    words = done.stdout.split()
    return words[1] if done.returncode == 0 and len(words) > 1 else ""


class _Agent(AgentSSH):
    """paramiko's own finds the agent by the environment alone."""

    def __init__(self, where: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(where)
        self._connect(connection)  # type: ignore[attr-defined]


def _agent_keys(where: str) -> list[AgentKey]:
    if not where:
        return []
    try:
        keys = list(_Agent(where).get_keys())
    except (SSHException, OSError):
        return []  # an agent that does not answer: one way less to log in
    for key in keys:
        key.sign_ssh_data = _signing(key.sign_ssh_data)  # type: ignore[method-assign]
    return keys


def _signing(sign: Callable[..., Any]) -> Callable[..., Any]:
    """An agent that refuses to sign costs a key, not the connection: the machine refuses what has no signature."""

    def signed(data: Any, algorithm: str | None = None) -> Any:
        try:
            return sign(data, algorithm)
        except (SSHException, OSError):
            return b""

    return signed
