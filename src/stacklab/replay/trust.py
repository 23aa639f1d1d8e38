"""Sessions from outside: nothing of them runs here before somebody has seen all that they would run, and agreed.

There is one question for a whole session, when it is opened for work. The answer holds for the bytes of its file: whatever
changes in it, it is asked again. Directories that the user's configuration lists under `trust:` are not asked about.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from stacklab.course.session import Session
from stacklab.deploy.profile.load import trusted_directories
from stacklab.errors import NotTrusted
from stacklab.files import read_derivable, write_json
from stacklab.lab import Lab
from stacklab.plain import visible

FILE = "trust.json"
"""Of a lab: the hash of a session's file → when somebody agreed to it, and where it was."""


@dataclass(frozen=True)
class ForeignScript:
    """What a step would run, read or fetch on a machine of the learner's."""

    step: str
    kind: str
    text: str

    def lines(self, indent: str) -> list[str]:
        """As it is shown, with everything spelled out that a terminal would obey or not show."""
        text = (f"{indent}  │ {visible(line)}" for line in self.text.split("\n"))
        return [f"{indent}{visible(self.step)} ({self.kind})", *text]


def scripts(session: Session) -> list[ForeignScript]:
    """All that a session would run, read or fetch; empty for one that only asks a cloud."""
    return [
        ForeignScript(f"{session.name}/{step.exercise}/{step.id}", step.kind.name, text)
        for step in session.steps()
        if (text := step.kind.runs(step.params))
    ]


def is_trusted(lab: Lab, session: Session) -> bool:
    """Whether everything in this session may run: nothing has to be asked."""
    if not session.foreign or session.agreed or not scripts(session):
        return True
    if session.digest in read_derivable(lab.directory / FILE):  # a broken one is empty: then it is asked again
        return True
    file = session.file.resolve()
    return any(file.is_relative_to(directory.resolve()) for directory in trusted_directories())


def remember(lab: Lab, session: Session) -> None:
    """Somebody has seen what this session would run, and agrees, as long as its file stays as it is."""
    path = lab.directory / FILE
    answer = {"session": session.name, "file": str(session.file), "at": int(time.time())}
    write_json(path, {**read_derivable(path), session.digest: answer}, mode=0o600)


def require_trusted(lab: Lab, session: Session) -> None:
    """Raises NotTrusted for a session from outside whose scripts nobody has agreed to."""
    if not is_trusted(lab, session):
        raise NotTrusted(
            f"session '{session.name}' is not the course's own, and what it would run here was not agreed to",
            advice="the same command on a terminal shows it and asks; --trust shows it and agrees, for that one command",
        )
