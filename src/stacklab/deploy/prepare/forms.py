"""The two forms that most stages on a machine have: files that are to be there, and something that a command makes so."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stacklab.errors import CommandFailed
from stacklab.machines.base import FILE_SECONDS, Machine
from stacklab.stages import Progress, Stage

_LOOK = """
for path in "$@"; do
    if [ -f "$path" ]; then echo "$(sha256sum <"$path" | cut -d' ' -f1) $(stat -L -c '%a %U' -- "$path")"; else echo absent; fi
done
"""


@dataclass(frozen=True)
class MachineFile:
    """A file as it is to be on the machine; without `content` there is to be none. `why`: what is said when it is written."""

    path: str
    content: bytes | None
    mode: int = 0o644
    owner: str = "root"
    why: str = ""

    @property
    def state(self) -> str:
        """What the machine says of it when it is as it should be."""
        if self.content is None:
            return "absent"
        return f"{hashlib.sha256(self.content).hexdigest()} {self.mode:o} {self.owner}"


def differing(machine: Machine, files: Sequence[MachineFile]) -> list[MachineFile]:
    """Those that are not as they should be. They are compared on the machine: some are large."""
    paths = [file.path for file in files]
    states = machine.script(_LOOK, *paths, user="root", seconds=FILE_SECONDS).lines if paths else []
    return [file for file, state in zip(files, states, strict=True) if file.state != state]


def place(machine: Machine, file: MachineFile) -> None:
    """Make it so. Raises NotEnoughSpace, CommandFailed."""
    if file.content is None:
        machine.run("rm", "-f", "--", file.path, user="root")
    else:
        machine.put(file.path, file.content, mode=file.mode, owner=file.owner)


def file_stage(
    machine: Machine,
    name: str,
    title: str,
    files: Callable[[Progress], Sequence[MachineFile]],
    *,
    detail: str,
    then: Sequence[str] = (),
    usual: float = 1,
) -> Stage:
    """These files are there, and the command `then` has run since they came. `detail`: what the stage says of itself."""

    def complete(progress: Progress) -> list[MachineFile]:
        every = list(files(progress))
        if then:  # a note, written last: the command may have been cut off
            states = "\n".join(file.state for file in every)
            every.append(MachineFile(f"/etc/stacklab/{name}.done", f"{' '.join(then)}\n{states}\n".encode()))
        return every

    def already() -> str | None:
        return None if differing(machine, complete(lambda _: None)) else detail

    def run(progress: Progress) -> str:
        every = complete(progress)
        for file in differing(machine, every):
            if then and file is every[-1]:
                machine.run(*then, user="root")
            if file.why:
                progress(f"{file.path}: {file.why}")
            place(machine, file)
        return detail

    return Stage(name, title, already, run, usual)


def fact_stage(
    name: str,
    title: str,
    look: Callable[[], str | None],
    change: Callable[[Progress], object],
    *,
    problem: str,
    advice: str,
    usual: float = 2,
) -> Stage:
    """Something that is so, or is made so and looked at again. `look`: one line where it is so, else None.

    Its run raises CommandFailed with `problem` and `advice` where the change did not bring it about.
    """

    def run(progress: Progress) -> str:
        change(progress)
        seen = look()
        if seen is None:
            raise CommandFailed(problem, advice=advice)
        return seen

    return Stage(name, title, look, run, usual)
