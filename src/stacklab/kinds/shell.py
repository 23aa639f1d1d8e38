"""Commands on the machine that the cloud runs on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from stacklab.errors import LabError, StepFailed, UndoIncomplete
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import Id, Name, Params
from stacklab.kinds.features import Feature, make_scratch, possible
from stacklab.kinds.kind import Difference, Kind, mentions
from stacklab.kinds.narration import END, Command, Script
from stacklab.machines import scratch
from stacklab.machines.base import Finished
from stacklab.machines.site import Site
from stacklab.plain import plain

Lines = Annotated[str, StringConstraints(min_length=1, max_length=10_000, pattern=r"^[^\x00]*$")]
PidFile = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*\.pid$", max_length=60)]

CANNOT_TELL = 75
"""With this status (EX_TEMPFAIL of sysexits.h) a check says that it cannot tell."""
_NO_PROGRAM = (126, 127)
SHOWN_LINES = 60
"""How many lines of what a step prints are shown; a learner who wants all of it runs it."""


class ShellParams(Params):
    """Scripts, all run with `sh -eu` and an empty standard input. Run twice, or where half of it is there, they do no harm.

    They have the names of `Site.names` as variables (`$APACHE`, `$DATABASE`, `$QUEUE`), `$LAB_SCRATCH`, `$LAB_NAME`, and what
    their features bring (`features.VARIABLES`). Without a directory they run in the home directory.
    """

    what: Name
    """What it is about, in a few words."""
    run: Lines
    """Lines of shell that do it."""
    check: Lines | None = None
    """Lines whose exit status tells whether it is so, whoever did it; without them `run` only looks."""
    shows: list[Annotated[str, Field(min_length=1)]] = []
    """What must be in the output of the check (of `run` where there is none)."""
    undo: Lines | None = None
    """Lines that take back what `run` leaves; without them nothing is left."""
    place: Id | None = Field(alias="in", default=None)
    """A directory below the lab's scratch directory, shared by the steps that name it."""
    processes: list[PidFile] = []
    """Pid files there, of what `run` leaves running."""
    root: bool | Literal["where-allowed"] = False
    """As root; "where-allowed": as root where the lab may be root."""
    features: list[Feature] = []
    """What the kernel must let us do."""
    on: list[Literal["devstack", "packstack", "lab"]] = Field(default=["devstack", "packstack", "lab"], min_length=1)
    """Who must have made the cloud for this to make sense."""
    why: Annotated[str, Field(min_length=1)] | None = None
    """Why it makes none elsewhere."""
    seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """How long each script may take."""

    @model_validator(mode="after")
    def _agrees(self) -> ShellParams:
        if any(END in (text or "").split("\n") for text in (self.run, self.check, self.undo)):
            raise ValueError(f"no line of a script may be just '{END}', which ends it where it is shown")
        if self.undo and not self.check:
            raise ValueError("'undo' without 'check': nobody could tell whether there is anything to take back")
        if self.processes and not (self.undo and self.place):
            raise ValueError("'processes' needs 'in', where their pid files are, and 'undo'")
        if (self.why is None) != ("on" not in self.model_fields_set):
            raise ValueError("'on' and 'why' belong together: a step that makes no sense somewhere says why")
        return self


@dataclass(frozen=True)
class _Place:
    """Where and how a step's scripts run: everything but the scripts. `directory`: below the scratch directory, if any."""

    site: Site
    user: str | None
    directory: str | None
    variables: dict[str, str]

    def script(self, lines: str, *, make: bool) -> str:
        """The whole text for `sh`. `make`: the directory is made; else it has to be there."""
        names = {name for name in self.variables if re.search(rf"\b{name}\b", lines)}
        if re.search(r"\blab\b", lines):  # whichever lab the step belongs to, not the one that lab takes by itself
            names.add("LAB_NAME")
        if self.directory:
            names.add("LAB_SCRATCH")
        values = " ".join(f"{name}={shlex.quote(self.variables[name])}" for name in self.variables if name in names)
        return "\n".join([*([f"export {values}"] if names else []), _in_directory(self.directory, lines, make)])

    def run(self, lines: str, seconds: float, *, make: bool) -> Finished:
        """Run it. Raises what the machine raises, but not for how the script ends."""
        if make and self.directory:
            make_scratch(self.site, self.directory)
        return self.site.machine.script(self.script(lines, make=make), user=self.user, seconds=seconds, check=False)


def _in_directory(directory: str | None, lines: str, make: bool) -> str:
    where = f'"$LAB_SCRATCH"/{directory}'
    entering = []
    if directory and make:  # on lines of their own: where the first fails, nothing may go on in another directory
        entering = [f"mkdir -p {where}", f"cd {where}"]
    elif directory:
        entering = [f'cd {where} 2> /dev/null || {{ echo "there is no directory {directory} yet"; exit 1; }}']
    return "\n".join([*entering, lines.rstrip("\n")])


class Shell(Kind[ShellParams]):
    """Commands on the machine that the cloud runs on, in a directory of the lab's own there."""

    name = "shell"
    params = ShellParams
    settle_seconds = 5
    repeatable = True
    words = "{what}"
    menus = "(not in Horizon: a shell on the machine that the cloud runs on)"

    def lasting(self, p: ShellParams) -> bool:
        return p.undo is not None

    def commands(self, context: Context, p: ShellParams) -> list[Command]:
        return [self._shown(context, p, p.run, make=self.lasting(p))]

    def show_command(self, context: Context, p: ShellParams) -> Command:
        return self._shown(context, p, p.check or p.run, make=False)

    def _shown(self, context: Context, p: ShellParams, lines: str, *, make: bool) -> Script:
        """As it is run; on paper, or while nobody can ask the machine, its variables stay variables."""
        try:
            place = self._place(context, p)
        except (Absent, LabError):
            text = _in_directory(_directory(context, p), lines, make)
            return Script((), program="sh", script=text, root=p.root is True)
        name, root = place.site.machine.name, place.user == "root"
        return Script((), program="sh", script=place.script(lines, make=make), machine=name, root=root)

    def _place(self, context: Context, p: ShellParams) -> _Place:
        site = context.site()
        variables = {"LAB_SCRATCH": site.scratch, "LAB_NAME": context.workspace.lab}
        variables |= {name.upper(): value for name, value in site.names.items()}
        variables |= possible(site, p.features, _user(site, p)).variables
        return _Place(site, _user(site, p), _directory(context, p), variables)

    def applicable(self, context: Context, p: ShellParams) -> str | None:
        site = context.site()
        if site.made_by not in p.on:
            return p.why
        if p.root is True and site.why_not_root:
            return f"it needs root: {site.why_not_root}"
        return next(iter(possible(site, p.features, _user(site, p)).missing.values()), None)

    # --- doing ---------------------------------------------------------------------------------------------------------

    def run(self, context: Context, p: ShellParams) -> None:
        place = self._place(context, p)
        if p.processes:  # done again, it would forget what it has left running before
            _end_processes(place.site, f"{place.directory}", p.processes, place.user)
        done = place.run(p.run, p.seconds, make=self.lasting(p))
        context.say(shown_part(done.out + done.err))
        if not done.ok:
            raise StepFailed(f"{p.what}: {_ended(done)}", advice="lab show prints the commands; run them one by one")

    def undo_data(self, context: Context, p: ShellParams, thing: Thing) -> Thing:
        place = self._place(context, p)
        return {
            "name": p.what,
            "undo": place.script(p.undo or ":", make=True),
            "directory": place.directory,
            "user": place.user,
            "processes": list(p.processes),
            "seconds": p.seconds,
        }

    def remove(self, context: Context, thing: Thing) -> bool:
        site, user, directory = context.site(), thing["user"], thing["directory"]
        if thing["processes"]:
            _end_processes(site, directory, thing["processes"], user)
        if directory:
            make_scratch(site, directory)
        done = site.machine.script(thing["undo"], user=user, seconds=thing["seconds"], check=False)
        if not done.ok:
            advice = f"look into {site.scratch}/{directory or ''}"
            raise UndoIncomplete(f"{thing['name']} cannot be taken back: {_ended(done)}", advice=advice)
        if directory:
            # What somebody else keeps there stays, and so does the directory then.
            tidy = 'cd "$1" && rmdir -p --ignore-fail-on-non-empty -- "$2"'
            site.machine.script(tidy, site.scratch, directory, user=user)
        return True

    # --- checking ------------------------------------------------------------------------------------------------------

    def find_all(self, context: Context, p: ShellParams) -> Iterable[Thing]:
        done = self._place(context, p).run(p.check or p.run, p.seconds, make=False)
        if done.status == CANNOT_TELL or done.status in _NO_PROGRAM:
            raise StepFailed(f"cannot tell: {_last_words(done) or f'status {done.status}'}")
        # A check says on its standard output what is wrong; of what only looks, a program's complaint is all there is.
        words = (_last_line(done.out) if p.check else "") or _last_words(done)
        return [{"name": p.what, "status": done.status, "words": words, "output": done.out + done.err}]

    def compare(self, context: Context, p: ShellParams, thing: Thing) -> list[Difference]:
        if thing["status"] != 0:
            words = thing["words"] or f"the check ended with status {thing['status']} and said nothing"
            return [Difference(p.what, "so", words)]
        lacking = [text for text in p.shows if not mentions(thing["output"], text)]
        return [Difference("output", f"contains {text!r}", thing["words"] or "nothing") for text in lacking]

    def shown(self, thing: Thing) -> str:
        return str(thing["words"]) or "it is so"

    def expected(self, p: ShellParams) -> str:
        shows = f", and it shows {', '.join(map(repr, p.shows))}" if p.shows else ""
        return f"{p.what}{shows}"

    def runs(self, p: ShellParams) -> str:
        parts = (("run", p.run), ("check", p.check), ("undo", p.undo))
        who = {True: "as root", False: "as you", "where-allowed": "as root where the lab may be root, else as you"}[
            p.root
        ]
        where = f"in {p.place}/ below the session's scratch directory" if p.place else "in the home directory"
        ends = [f"# before that, and to undo it, ends what {', '.join(p.processes)} there name"] if p.processes else []
        scripts = [
            f"# {name}, {where}, {who}, for {p.seconds} s at most:\n{text.rstrip()}" for name, text in parts if text
        ]
        return "\n".join([*scripts, *ends])


def _directory(context: Context, p: ShellParams) -> str | None:
    return f"{context.session_name}/{p.place}" if p.place else None


def _user(site: Site, p: ShellParams) -> str | None:
    return "root" if p.root is True or (p.root == "where-allowed" and not site.why_not_root) else None


def _end_processes(site: Site, directory: str, files: Iterable[str], user: str | None) -> None:
    """End what the pid files in a step's directory name."""
    scratch.end_processes(
        site.machine, site.scratch, [f"{site.scratch}/{directory}/{file}" for file in files], user=user
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in plain(text).splitlines()]
    return next((line[:200] for line in reversed(lines) if line), "")


def _last_words(done: Finished) -> str:
    """What it said last, on the stream that says why where it failed."""
    first, second = (done.out, done.err) if done.ok else (done.err, done.out)
    return _last_line(first) or _last_line(second)


def _ended(done: Finished) -> str:
    words = _last_words(done)
    return f"it ended with status {done.status}" + (f": {words}" if words else "")


def shown_part(text: str) -> str:
    """As much of a program's output as is worth showing."""
    lines = plain(text.replace("\r\n", "\n").expandtabs(4)).rstrip().splitlines()
    if len(lines) > SHOWN_LINES:
        half = SHOWN_LINES // 2
        lines = [*lines[:half], f"[… {len(lines) - SHOWN_LINES} lines left out …]", *lines[-half:]]
    return "\n".join(line[:400] for line in lines)


KINDS: list[Kind[Any]] = [Shell()]
