"""Where sessions are looked for: the course's own, and the directories that the user names (`--labs`, LAB_LABS).

A name means one session. The course's names are the course's: a session of the same name elsewhere is refused, so that no
file from outside can take the place of one; so is a name that two of the user's directories have.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stacklab import places
from stacklab.errors import SessionInvalid, UnknownName
from stacklab.suggest import closest

VARIABLE = "LAB_LABS"
FILE = "session.yaml"


@dataclass(frozen=True)
class SessionFile:
    """A session's file, and the directory of sessions that it is in. `foreign`: not the course's own."""

    name: str
    labs: Path
    foreign: bool

    @property
    def file(self) -> Path:
        """The file itself."""
        return self.labs / self.name / FILE

    def require_inside(self) -> None:
        """Raises SessionInvalid where links lead out of the directory: whoever made it does not choose what else is read."""
        if self.foreign and not self.file.resolve().is_relative_to(self.labs.resolve()):
            raise SessionInvalid(
                f"{self.file}: a link leads out of {self.labs}, to {self.file.resolve()}",
                advice="put the session itself there",
            )


def own_labs() -> Path:
    """The course's sessions."""
    return places.course_data() / "labs"


def search_path(also: Iterable[str] = ()) -> list[Path]:
    """The user's directories, in the order in which they were named; `also`: what a lab remembers."""
    named = [directory for directory in os.environ.get(VARIABLE, "").split(os.pathsep) if directory]
    own = own_labs().resolve()
    directories: dict[Path, Path] = {}
    for text in (*named, *also):
        path = Path(text).expanduser().absolute()
        if path.resolve() != own:
            directories.setdefault(path.resolve(), path)
    return list(directories.values())


def missing() -> str:
    """What to say of directories that LAB_LABS names and that are none; empty if all are there."""
    gone = [str(directory) for directory in search_path() if not directory.is_dir()]
    return f"{VARIABLE} names {', '.join(gone)}: there is no such directory" if gone else ""


def add_to_search_path(directories: Iterable[str]) -> None:
    """What `--labs` says comes first. It goes to the environment, where processes that we start find it, too.

    Raises UnknownName for what is no directory.
    """
    wanted = [Path(text).expanduser().absolute() for text in directories]
    for path in wanted:
        if not path.is_dir():
            raise UnknownName(f"--labs {path}: there is no such directory", advice="it holds a folder for each session")
        if os.pathsep in str(path):
            raise UnknownName(
                f"--labs {path}: a '{os.pathsep}' cannot be in its name", advice="rename it, or link to it"
            )
    if wanted:
        before = os.environ.get(VARIABLE, "")
        os.environ[VARIABLE] = os.pathsep.join([*map(str, wanted), *([before] if before else [])])


def sessions_in(labs: Path, *, foreign: bool) -> list[SessionFile]:
    """What is in one directory, whether it can be read or not."""
    try:
        folders = sorted(
            folder.name for folder in labs.iterdir() if (folder / FILE).exists() or (folder / FILE).is_symlink()
        )
    except OSError:  # gone, or not ours to read: then there is nothing to find in it
        return []
    return [SessionFile(name, labs, foreign) for name in folders]


def all_sessions(also: Iterable[str] = ()) -> dict[str, list[SessionFile]]:
    """Every session by name, in the course's order; more than one where a name is taken twice.

    First come the numbered sessions of the course, then its others, then those from elsewhere.
    """
    by_name: dict[str, list[SessionFile]] = {}
    for session in sessions_in(own_labs(), foreign=False):
        by_name.setdefault(session.name, []).append(session)
    named = search_path()
    for labs in search_path(also):
        for session in sessions_in(labs, foreign=True):
            # What is named now is meant, not what a lab remembers.
            if labs in named or all(not other.foreign for other in by_name.get(session.name, [])):
                by_name.setdefault(session.name, []).append(session)
    return dict(
        sorted(by_name.items(), key=lambda item: (item[1][0].foreign, not item[0].startswith("session"), item[0]))
    )


def find_session(name: str, also: Iterable[str] = ()) -> SessionFile:
    """The session of this name. Raises UnknownName, and SessionInvalid for a name that is taken twice."""
    known = all_sessions(also)
    if name not in known:
        raise UnknownName(
            f"there is no session '{name}'" + (f" ({gone})" if (gone := missing()) else ""),
            advice=closest(name, known, "lab list"),
        )
    if clash := clash_of(known[name]):
        raise clash
    chosen = known[name][0]
    chosen.require_inside()
    return chosen


def clash_of(same: list[SessionFile]) -> SessionInvalid | None:
    """The error for sessions of one name, unless there is only one."""
    if len(same) == 1:
        return None
    first, second = same[:2]
    whose = f"in {first.labs}, too" if first.foreign else "a session of the course"
    return SessionInvalid(
        f"{second.file}: '{second.name}' is {whose}",
        advice="rename the folder and its 'session:'" + (", or name one directory only" if first.foreign else ""),
    )
