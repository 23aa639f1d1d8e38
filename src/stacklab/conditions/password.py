"""A service's password in its configuration is not the one that Keystone has: it cannot check anybody's token any more."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from stacklab.cloud.connection import Connection
from stacklab.conditions.condition import Action, Finding
from stacklab.conditions.machine import MachineFault
from stacklab.conditions.systemd import last_words, stack_unit
from stacklab.conditions.wrongvalue import IniValue, WrongValue
from stacklab.deploy.profile.model import FileEntry
from stacklab.errors import CloudRefused, CommandFailed
from stacklab.inifile import value_of

LETTERS = "abcdefghijkmnopqrstuvwxyz23456789"
SERVICE = "block-storage"
UNAUTHORISED = 401


class ServicePassword(MachineFault, WrongValue):
    """Cinder's, in the section with which it asks Keystone about tokens."""

    id = "wrong-password"
    title = "a service cannot log in to Keystone"

    def lacks(self) -> str | None:
        if self.breakable.password is None:
            return f"the profile {self.profile.name} does not say where a service's password stands"
        if why := self.lacks_unit(self._entry.unit):
            return why
        return None if self.value.read() else f"there is no {self.value.name} on this machine"

    @property
    def _entry(self) -> FileEntry:
        if self.breakable.password is None:
            raise CommandFailed(f"the profile {self.profile.name} does not say where a service's password stands")
        return self.breakable.password

    @property
    def value(self) -> IniValue:
        entry = self._entry
        return IniValue(self.machine, entry.file, entry.section, entry.key, secret=True)

    def wrong(self, right: str | None) -> str:
        return "".join(secrets.choice(LETTERS) for _ in range(20))

    def right(self) -> str | None:
        return self.deployment.lab.secret("service")

    def taking_effect(self) -> Iterable[Action]:
        return self.restarting(stack_unit(self._entry.unit))

    def see(self) -> Finding:
        """A request with a new token: the answer for an older one may come from the service's cache."""
        cloud = self.target.cloud()
        cloud.forget()
        cloud.get("identity", "projects")  # else the trouble is Keystone's, and cannot be told from the service's
        unit = stack_unit(self._entry.unit)
        try:
            cloud.get(SERVICE, "volumes")
        except CloudRefused as error:
            plain, words = unit.removesuffix(".service"), last_words(self.machine, unit)
            return Finding("bad", f"Cinder refuses a good token: {error.message}; {plain}'s journal ends:{words}")
        return Finding("good", "Cinder accepts a new token, and lists volumes")

    def fits(self, wrong: str) -> bool:
        return logs_in(self.target.cloud(), self._user(), wrong)

    def afterwards(self, right: str) -> Iterable[Action]:
        return [agreeing(self.target.cloud(), self._user(), right)]

    def _user(self) -> str:
        user = value_of(self.value.text() or "", self._entry.section, "username")
        if not user:
            raise CommandFailed(f"{self._entry.file} has no username in [{self._entry.section}]")
        return user


def agreeing(cloud: Connection, user: str, password: str) -> Action:
    """Give the user the password that the service has, unless Keystone takes it already."""

    def agree() -> None:
        if logs_in(cloud, user, password):
            return
        for known in cloud.get("identity", "users", name=user)["users"]:
            cloud.request("PATCH", "identity", ("users", known["id"]), body={"user": {"password": password}})

    return Action(f"openstack user set --password … {user}   # unless Keystone accepts it already", agree)


def logs_in(cloud: Connection, user: str, password: str) -> bool:
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
