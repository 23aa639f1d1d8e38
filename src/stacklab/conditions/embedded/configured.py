"""Faults that are one wrong line in the configuration of a service.

The file as it was is kept before it is changed. What is written in its place can be worked out from it, so that after a
crash the two cannot be taken for each other.
"""

from __future__ import annotations

import hashlib
import re
import urllib.error
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from stacklab.conditions.embedded.ground import EmbeddedFault
from stacklab.conditions.finding import Finding
from stacklab.conditions.inifile import value_of, with_value
from stacklab.conditions.upload import upload_refused
from stacklab.files import write_atomic
from stacklab.homes.embedded.readiness import Prober, Trouble, explain
from stacklab.stages import Progress

FORBIDDEN = "/proc/stacklab"
"""A directory that nobody can make: only the kernel puts anything there. (proc(5))"""

NOBODY = "127.0.0.2"
"""An address of this machine at which none of the cloud's services listens, so a connection is refused at once."""

UNAUTHORISED = 401


class Misconfigured(EmbeddedFault):
    """`file`: the configuration file below conf/; `service`: the one that reads it."""

    file: ClassVar[str]
    service: ClassVar[str]

    @abstractmethod
    def broken(self, text: str) -> str:
        """The file's text with the mistake in it; the same for the same text."""

    @property
    def _path(self) -> Path:
        return self.ground.layout.conf / self.file

    @property
    def _kept(self) -> Path:
        return self.ground.layout.home / "faults" / f"{self.id}.{self.file}"

    def _before(self) -> str | None:
        """The file as it was before it was broken, if it was."""
        return self._kept.read_text(encoding="utf-8") if self._kept.exists() else None

    def inflict(self, progress: Progress) -> None:
        now, before = self._path.read_text(encoding="utf-8"), self._before()
        half_way = before is not None and now == self.broken(before)
        if half_way:
            self.ground.restart(self.service, progress)
        # What is well all the same has been made to fit the mistake, and can be broken once more.
        if not half_way or self.settled().state == "well":
            self._kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self._kept, now, mode=0o600)
            progress(f"putting a mistake into {self.file}")
            write_atomic(self._path, self.broken(now), mode=0o600)
            self.ground.restart(self.service, progress)
        self.wait("broken", "symptoms", progress)

    def mend(self, progress: Progress) -> None:
        before, now = self._before(), self._path.read_text(encoding="utf-8")
        mistaken = before is not None and now == self.broken(before)
        if not self.ground.runs:
            if before is not None and mistaken:
                write_atomic(self._path, before, mode=0o600)
            self._kept.unlink(missing_ok=True)
            return
        if mistaken and self.look().state == "well":
            # Either the service has not read the mistake yet, or somebody has made the cloud fit it, which is a repair, too.
            self.ground.restart(self.service, progress)
        if self.settled().state != "well":
            self._put_back(before, progress)
        self._kept.unlink(missing_ok=True)

    def _put_back(self, before: str | None, progress: Progress) -> None:
        if before is not None:
            progress(f"putting {self.file} back")
            write_atomic(self._path, before, mode=0o600)
            self.ground.restart(self.service, progress)
            if self.settled().state == "well":
                return
        # More than this file was changed: then everything becomes as `lab up` makes it.
        for service in sorted({self.service, *self.ground.cloud.put_back_configuration()}):
            self.ground.restart(service, progress)
        self.settled()
        self.make_agree(progress)
        self.wait("well", "repair", progress)

    def make_agree(self, progress: Progress) -> None:
        """Give the cloud what its configuration expects of it."""


class Refused(Misconfigured):
    """Neutron's database is to be where nobody may make a file, root neither: as with SELinux, the kernel refuses."""

    id = "selinux-q-agt"
    title = "the network service starts, and fails again"
    file = "neutron.conf"
    service = "neutron"

    def broken(self, text: str) -> str:
        path = re.search(r"^connection\s*=\s*sqlite:///(\S+?)(\?\S*)?$", text, re.MULTILINE)
        more = (path[2] or "") if path else ""
        return with_value(text, "database", "connection", f"sqlite:///{FORBIDDEN}/neutron.db{more}")

    def see(self, prober: Prober) -> Finding:
        try:
            prober.neutron()
        except Trouble as error:
            return self.unanswered("neutron", prober.urls["neutron"], error)
        return Finding("well", f"Neutron at {prober.urls['neutron']} lists networks")


class Address(Misconfigured):
    """Nova asks Glance at an address of before, where nobody answers: no instance can be launched, all else looks well."""

    id = "network"
    title = "the address under the cloud has changed, and no instance can be launched"
    file = "nova.conf"
    service = "nova"

    def broken(self, text: str) -> str:
        port = self.ground.cloud.ports["glance"]
        return with_value(text, "glance", "api_servers", f"http://{NOBODY}:{port}")

    def see(self, prober: Prober) -> Finding:
        try:
            prober.glance()
        except Trouble as error:
            return Finding("unknown", f"cannot tell whether Nova reaches Glance: Glance itself: {explain(error)}")
        try:
            # Nova's old list of images is Glance's, asked for as a launch asks. (S: nova/api/openstack/compute/images.py)
            prober.ask(f"{prober.urls['nova']}/images?limit=1")
        except Trouble as error:
            return self.unanswered("nova", "Nova does not get images from Glance", error)
        return Finding("well", "Nova gets images from Glance, as it does for a launch")


class FullStore(Misconfigured):
    """Glance's own limit for what a project may store is a few bytes, so that an upload ends in 413."""

    id = "glance-full"
    title = "Glance has no room for another image"
    file = "glance-api.conf"
    service = "glance"
    size = 64 << 10

    def broken(self, text: str) -> str:
        return with_value(text, "DEFAULT", "user_storage_quota", "16KB")

    def see(self, prober: Prober) -> Finding:
        try:
            prober.glance()
        except Trouble as error:
            found = self.unanswered("glance", "cannot tell whether Glance has room", error)
            return Finding("unknown", found.evidence, found.early)
        if refused := upload_refused(self.ground.admin(), self.size):
            return Finding("broken", f"an image of {self.size >> 10} KiB cannot be uploaded: {refused}")
        return Finding("well", f"an image of {self.size >> 10} KiB was uploaded, and removed again")


class Password(Misconfigured):
    """Cinder's password in its configuration is not the one that Keystone has."""

    id = "wrong-password"
    title = "a service cannot log in to Keystone"
    file = "cinder.conf"
    service = "cinder"

    def broken(self, text: str) -> str:
        right = value_of(text, "keystone_authtoken", "password") or ""
        wrong = hashlib.sha256(right.encode()).hexdigest()[: len(right) or 24]
        return with_value(text, "keystone_authtoken", "password", wrong)

    def see(self, prober: Prober) -> Finding:
        try:
            prober.volumes()
        except Trouble as error:
            return self.unanswered("cinder", "volumes cannot be listed", error)
        told = value_of((self.ground.layout.conf / "nova.conf").read_text(encoding="utf-8"), "cinder", "password")
        if told is not None and not self._logs_in(told):
            return Finding(
                "broken", "Cinder lists volumes, but the password that Nova has for it is refused by Keystone"
            )
        return Finding("well", "Cinder lists volumes, and Keystone knows the password that Nova has for it")

    def _logs_in(self, password: str) -> bool:
        """Whether Keystone knows the user cinder by this password."""
        try:
            self.ground.prober().login("cinder", password)
        except urllib.error.HTTPError as error:
            if error.code == UNAUTHORISED:
                return False
            raise
        return True

    def make_agree(self, progress: Progress) -> None:
        """The user's password in Keystone may have been changed to fit."""
        password, admin = self.ground.cloud.passwords()["cinder"], self.ground.admin()
        if not self._logs_in(password):
            progress("giving Keystone's user cinder its password again")
            for user in admin.get("identity", "users", name="cinder")["users"]:
                admin.request("PATCH", "identity", ("users", user["id"]), body={"user": {"password": password}})
            self.ground.restart(self.service, progress)
