"""The ways to log in that are tried on a machine, and what came of each. Imports paramiko: import this module late."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import paramiko  # type: ignore[import-untyped]
from paramiko.auth_strategy import AuthFailure, AuthStrategy  # type: ignore[import-untyped]
from paramiko.ssh_exception import (  # type: ignore[import-untyped]
    AuthenticationException,
    PasswordRequiredException,
    SSHException,
)


class Logins(AuthStrategy):  # type: ignore[misc]
    """Tries them one by one and keeps a line on each in `tried`; `refused`: the machine answered, and said no.

    `keys`: files to try first, `only`: neither agent nor default keys after them. `password` is called when it comes to that.
    """

    def __init__(self, user: str, keys: list[Path], only: bool, password: Callable[[], str] | None) -> None:
        super().__init__(ssh_config=None)
        self._user, self._keys, self._only, self._password = user, keys, only, password
        self.tried: list[str] = []
        self.refused = False

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        seen: set[bytes] = set()
        for label, key in self._offers():
            if key is None or key.asbytes() in seen:
                continue
            seen.add(key.asbytes())
            if self._accepted(transport, label, partial(transport.auth_publickey, self._user, key)):
                return self.tried
        if self._password is not None:
            password = self._password
            if self._accepted(transport, "password", lambda: transport.auth_password(self._user, password())):
                return self.tried
        raise AuthFailure(result=self.tried)

    def _offers(self) -> Any:
        """(label, key); a key that cannot be used is a line in `tried`."""
        for path in self._keys:
            yield from self._from_file(path)
        if self._only:
            return
        for key in _agent_keys():
            yield f"agent key {key.fingerprint}", key
        for kind in ("ed25519", "ecdsa", "rsa"):  # the names that ssh-keygen(1) gives
            path = Path(f"~/.ssh/id_{kind}").expanduser()
            if path.is_file():
                yield from self._from_file(path)

    def _from_file(self, path: Path) -> Any:
        try:
            yield f"key {path}", paramiko.PKey.from_path(path)
        except (
            PasswordRequiredException,
            TypeError,
        ):  # the latter is cryptography's word for it, which paramiko lets through
            self.tried.append(f"key {path} (not offered: it has a passphrase; ssh-add {path} hands it to the agent)")
        except FileNotFoundError:
            self.tried.append(f"key {path} (there is no such file)")
        except (SSHException, OSError, ValueError) as error:
            self.tried.append(f"key {path} (not offered: {type(error).__name__}: {error})")

    def _accepted(self, transport: paramiko.Transport, label: str, attempt: Callable[[], list[str]]) -> bool:
        try:
            more = attempt()
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


def _agent_keys() -> list[Any]:
    try:
        return list(paramiko.Agent().get_keys())
    except (SSHException, OSError):
        return []  # no agent, or one that does not answer: one way less to log in
