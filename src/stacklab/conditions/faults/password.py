"""A service's password in its configuration is not the one that Keystone has: it cannot check anybody's token any more."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from stacklab.cloud.connection import Connection
from stacklab.conditions.faults.settings import IniEntry
from stacklab.conditions.faults.wrong import WrongValue, restarting
from stacklab.conditions.finding import Finding
from stacklab.conditions.fixes import systemd
from stacklab.conditions.fixes.fix import Action
from stacklab.conditions.fixes.systemd import plain, stack_unit
from stacklab.conditions.inifile import value_of
from stacklab.deploy.profile.model import Entry
from stacklab.errors import CloudRefused, CommandFailed
from stacklab.machines.base import Machine

LETTERS = "abcdefghijkmnopqrstuvwxyz23456789"
SERVICE = "block-storage"
UNAUTHORISED = 401


class Password(WrongValue):
    """Cinder's, in the section with which it asks Keystone about tokens."""

    id = "wrong-password"
    title = "a service cannot log in to Keystone"

    def lacks(self) -> str | None:
        if self.breakable.password is None:
            return f"the profile {self.profile.name} does not say where a service's password stands"
        (unit,) = systemd.look(self.machine, [stack_unit(self._entry.unit)])
        if not unit.there:
            return f"the machine has no unit {unit.name}"
        return None if self.place().read(self.machine) else f"there is no {self.place().name} on this machine"

    @property
    def _entry(self) -> Entry:
        if self.breakable.password is None:
            raise CommandFailed(f"the profile {self.profile.name} does not say where a service's password stands")
        return self.breakable.password

    def place(self) -> IniEntry:
        return IniEntry(self._entry, secret=True)

    def wrong(self, right: str) -> str:
        return "".join(secrets.choice(LETTERS) for _ in range(20))

    def right(self) -> str | None:
        return self.deployment.lab.secret("service")

    def taking_effect(self) -> Sequence[Action]:
        return restarting(stack_unit(self._entry.unit))

    def see(self) -> Finding:
        """A request with a new token: the answer for an older one may come from the service's cache."""
        cloud = self.ground.cloud()
        cloud.forget()
        cloud.get("identity", "projects")  # else the trouble is Keystone's, and cannot be told from the service's
        unit = plain(stack_unit(self._entry.unit))
        try:
            cloud.get(SERVICE, "volumes")
        except CloudRefused as error:
            journal = systemd.last_words(self.machine, stack_unit(self._entry.unit))
            told = "".join(f"\n  {line}" for line in journal.splitlines())
            return Finding("broken", f"Cinder refuses a good token: {error.message}; {unit}'s journal ends:{told}")
        return Finding("well", "Cinder accepts a new token, and lists volumes")

    def accepted(self, wrong: str) -> bool:
        return _logs_in(self.ground.cloud(), self._user(), wrong)

    def afterwards(self, right: str) -> Sequence[Action]:
        return [_Agree(self.ground.cloud(), self._user(), right)]

    def _user(self) -> str:
        text = (self.machine.read(self._entry.file) or b"").decode()
        user = value_of(text, self._entry.section, "username")
        if not user:
            raise CommandFailed(f"{self._entry.file} has no username in [{self._entry.section}]")
        return user


@dataclass(frozen=True)
class _Agree:
    """Give the user the password that the service has, unless Keystone takes it already."""

    cloud: Connection
    user: str
    password: str

    @property
    def text(self) -> str:
        return f"openstack user set --password … {self.user}   # unless Keystone accepts it already"

    def run(self, machine: Machine) -> None:
        if _logs_in(self.cloud, self.user, self.password):
            return
        for user in self.cloud.get("identity", "users", name=self.user)["users"]:
            body = {"user": {"password": self.password}}
            self.cloud.request("PATCH", "identity", ("users", user["id"]), body=body)


def _logs_in(cloud: Connection, user: str, password: str) -> bool:
    """Whether Keystone lets this user in, without asking for a project."""
    login = {"name": user, "domain": {"id": "default"}, "password": password}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": login}}}}
    try:
        cloud.post("identity", "auth", "tokens", body=body)
    except CloudRefused as error:
        if error.status == UNAUTHORISED:
            return False
        raise
    return True
