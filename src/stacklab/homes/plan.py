"""What `lab up` was told about a lab: kept in lab.json, so that the same command without options goes on with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from stacklab.errors import HomeUnavailable
from stacklab.lab import Lab


@dataclass(frozen=True)
class Plan:
    """None, or an empty tuple: nothing was said.

    `address`: ssh://user@host[:port] or an alias of ssh_config. `services`: optional ones, for local.conf. `selinux`:
    permissive or module. `memory` in MiB, `disk` in GiB. `box`: a path or URL in place of the profile's. `used`: go on
    although the machine looks used.
    """

    home: str | None = None
    address: str | None = None
    profile: str | None = None
    services: tuple[str, ...] = ()
    selinux: str | None = None
    cpus: int | None = None
    memory: int | None = None
    disk: int | None = None
    box: str | None = None
    used: bool | None = None

    @classmethod
    def of(cls, lab: Lab) -> Plan:
        """What was planned for this lab."""
        names, record = {field.name for field in fields(cls)}, lab.record
        known = {name: value for name, value in record.plan.items() if name in names}
        return cls(**{**known, "home": record.home, "services": tuple(known.get("services", ()))})

    @classmethod
    def wanted(cls, on: str | None, **others: object) -> Plan:
        """From the command line: `on` is a home's name, or an address that means the home `ssh`."""
        if on is not None and (on.startswith("ssh://") or "@" in on):
            return cls(home="ssh", address=on, **others)  # type: ignore[arg-type]
        if on is not None and on.startswith("ssh:"):
            return cls(home="ssh", address=on.removeprefix("ssh:"), **others)  # type: ignore[arg-type]
        return cls(home=on, **others)  # type: ignore[arg-type]

    def agreed(self, lab: Lab, later: Plan) -> Plan:
        """This plan with what `later` says on top. Raises HomeUnavailable where that would make it another lab."""
        if not self.home:
            return later
        identity = {"home": "lives on the home", "address": "is on the machine", "profile": "has the profile"}
        for name, what in identity.items():
            before, now = getattr(self, name), getattr(later, name)
            if before and now and before != now:
                raise HomeUnavailable(
                    f"lab '{lab.name}' {what} '{before}', not '{now}'",
                    advice=f"lab --lab OTHER-NAME up … makes a second lab; lab destroy gives '{lab.name}' up",
                )
        return self.replaced(later)

    def replaced(self, later: Plan) -> Plan:
        """This plan with what `later` says in its place; another home takes nothing over."""
        if later.home and later.home != self.home:
            return later
        return replace(self, **later._said())

    def keep(self, lab: Lab) -> None:
        """Write it down."""
        values = self._said()
        lab.update(home=values.pop("home", None), plan=values)

    def _said(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}
