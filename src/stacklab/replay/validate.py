"""`lab validate`: everything that is wrong, or bad, with sessions, and what they would run on a learner's machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stacklab.course.load import Examined, load_session, session_names
from stacklab.course.search import FILE, SessionFile, all_sessions, clash_of, own_labs, sessions_in
from stacklab.course.session import Session, Step
from stacklab.errors import LabError, SessionInvalid, UnknownName
from stacklab.kinds.context import OfflineContext
from stacklab.kinds.image import FileSource
from stacklab.plain import visible
from stacklab.replay.assets import PAPER
from stacklab.replay.narrate import narrate
from stacklab.replay.trust import ForeignScript, scripts
from stacklab.suggest import closest_of
from stacklab.yamlfiles.complaints import YamlComplaint
from stacklab.yamlfiles.yamlfile import Where

SHORT = 20
"""A hint of fewer characters tells nobody where to look."""


@dataclass(frozen=True)
class Problem:
    """What is wrong: where (`line` from 1, or None for a file that cannot be read at all), what, and what to do."""

    file: str
    line: int | None
    key: str
    problem: str
    advice: str = ""

    def text(self) -> str:
        """`FILE:LINE: KEY: what is wrong`, as errors say it."""
        place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        return place + (f"{self.key}: " if self.key else "") + self.problem


@dataclass
class ValidationReport:
    """What was found in one session file. `steps`: how many there are, if it can be read."""

    name: str
    file: str
    title: str = ""
    steps: int = 0
    problems: list[Problem] = field(default_factory=list)
    scripts: list[ForeignScript] = field(default_factory=list)


def validate(path: Path) -> list[ValidationReport]:
    """Look at every session of a directory, or at one: its folder, or its file. Raises UnknownName where there is none."""
    target = path.expanduser().absolute()
    if target.is_file() or (target.is_symlink() and target.name == FILE):
        files = [SessionFile(target.parent.name, target.parent.parent, True)]
        if target.name != FILE:
            raise UnknownName(f"{target} is no session's file", advice=f"a session is a folder with a {FILE}")
    elif (target / FILE).exists() or (target / FILE).is_symlink():
        files = [SessionFile(target.name, target.parent, True)]
    else:
        files = sessions_in(target, foreign=True)
    if not files:
        raise UnknownName(f"{target} holds no session", advice=f"a session is a folder with a {FILE}")
    return [_report(session) for session in files]


def _report(file: SessionFile) -> ValidationReport:
    report = ValidationReport(file.name, str(file.file))
    foreign = file.labs.resolve() != own_labs().resolve()
    try:
        SessionFile(file.name, file.labs, foreign).require_inside()
        # A session of the same name that a learner with this directory would meet, too.
        same = [other for other in all_sessions().get(file.name, []) if other.labs.resolve() != file.labs.resolve()]
        if foreign and (clash := clash_of([*same, file])):
            raise clash
        examined = Examined(file.file, foreign=foreign)
    except SessionInvalid as error:
        report.problems.append(_from_error(error, file.file))
        return report
    bad = list(examined.problems)
    bad += [YamlComplaint(("vars", name), "no step uses this variable", "remove it") for name in examined.unused]
    bad += _controls(examined)
    session = examined.session
    if session:
        report.title = session.title
        report.steps = len(examined.places)
        bad += _bad_steps(examined, session)
        report.scripts = scripts(session)
    path, line = str(file.file), examined.file.line
    report.problems = [Problem(path, line(it.place), ".".join(map(str, it.place)), it.problem, it.advice) for it in bad]
    report.problems.sort(key=lambda problem: problem.line or 0)
    return report


# --- what loads, but is bad ----------------------------------------------------------------------------------------


def _bad_steps(examined: Examined, session: Session) -> Iterator[YamlComplaint]:
    broken = {case.breaks for case in session.faults}
    known = _known_faults()
    for index, case in enumerate(session.faults):
        if case.breaks not in known:
            advice = closest_of(case.breaks, known, "what homes can break")
            yield YamlComplaint(("faults", index), f"no home knows a fault '{case.breaks}'", advice)
    for step in session.steps():
        where = examined.places[step.id]
        if len(step.hint) < SHORT or step.hint in (step.say, step.title):
            todo = "say what to look at, and what it has to show"
            yield YamlComplaint((*where, "hint"), "this hint helps nobody", todo)
        if step.kind.name == "repair" and getattr(step.params, "fault", None) not in broken:
            problem = "no fault of this session breaks what it repairs"
            yield YamlComplaint((*where, "with"), problem, "add one to faults:")
        if trouble := _untold(session, step):
            yield YamlComplaint(where, f"the step cannot be told: {trouble}", "look at its with:")
        source = getattr(step.params, "source", None)
        if isinstance(source, FileSource) and not Path(source.file).expanduser().is_file():
            advice = "name a file that learners have, or a url:"
            yield YamlComplaint((*where, "with", "source"), f"there is no file {source.file}", advice)


def _known_faults() -> list[str]:
    """What the course's own sessions break: between them they name all that homes can."""
    faults: set[str] = set()
    for name in session_names():
        with suppress(SessionInvalid):  # that one has a report of its own
            faults |= {case.breaks for case in load_session(name).faults}
    return sorted(faults)


def _untold(session: Session, step: Step) -> str:
    """Why the step cannot be narrated on paper; empty if it can."""
    paper = OfflineContext(session, step, PAPER, lambda name: "")
    try:
        narrate(None, paper, step)
        step.kind.show_command(paper, step.params).text()
        step.kind.expected(step.params)
    except LabError as error:
        return error.message
    except Exception as error:  # noqa: BLE001 -- whatever a kind trips over is told with the step that made it
        return f"{type(error).__name__}: {error}"
    return ""


def _controls(examined: Examined) -> Iterator[YamlComplaint]:
    """Texts with characters that a terminal would obey, or not show: whoever reads the session would not see what is there."""
    for where, value in _texts(examined.file.value, ()):
        if visible(value) != value:
            yield YamlComplaint(where, "holds control characters or invisible ones", "remove them")


def _texts(value: Any, where: Where) -> list[tuple[Where, str]]:
    if isinstance(value, str):
        return [(where, value)]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [text for key, item in items for text in _texts(item, (*where, key))]


def _from_error(error: LabError, path: Path) -> Problem:
    match = re.fullmatch(re.escape(str(path)) + r":(?:(\d+):)? (.*)", error.message, re.DOTALL)
    if not match:
        return Problem(str(path), None, "", error.message, error.advice)
    return Problem(str(path), int(match[1]) if match[1] else None, "", match[2], error.advice)
