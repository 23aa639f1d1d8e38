"""Which foreign scripts somebody has agreed to, kept per lab and per content: a changed script is another one."""

from __future__ import annotations

import time
from collections.abc import Iterable

from stacklab.course.session import Session, Step
from stacklab.files import read_derivable, write_json
from stacklab.lab import Lab
from stacklab.replay.consent import Foreign, foreign_of, refused


class Trust:
    """trust.json of a lab: hash of what was agreed to → when, and for which session and step it was shown."""

    def __init__(self, lab: Lab) -> None:
        self._path = lab.directory / "trust.json"
        self._once: set[str] = set()

    def unknown(self, found: Iterable[Foreign]) -> list[Foreign]:
        """Those that nobody has agreed to; the same content once."""
        known = set(self._kept()) | self._once
        return list({one.key: one for one in found if one.key not in known}.values())

    def accept(self, found: Foreign, *, once: bool = False) -> None:
        """Somebody has seen it and agrees: for ever, or for this command alone."""
        if once:
            self._once.add(found.key)
            return
        told = {"session": found.session.name, "step": found.step.id, "at": int(time.time())}
        write_json(self._path, {**self._kept(), found.key: told}, mode=0o600)

    def agreed(self, session: Session, step: Step) -> None:
        """Raises NotTrusted; see `stacklab.replay.consent.Allow`."""
        found = foreign_of(session, step)
        if found and self.unknown([found]):
            raise refused(found)

    def _kept(self) -> dict[str, object]:
        return read_derivable(self._path)  # broken: asked again
