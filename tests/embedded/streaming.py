"""One step of a session, done by a process of its own that then says what it took: memory, and bytes written to disks.

usage: python -m tests.embedded.streaming LAB LABS SESSION STEP VIA

Prints JSON: `own` and `children`: the largest resident set of this process, and of any that it started (the client, gunzip), in
bytes; `written`: bytes that this process and its children sent to a disk, `counted`: whether that can be seen here at all.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from pathlib import Path

from stacklab.course.load import read_session
from stacklab.lab import Lab
from stacklab.replay.apply import apply_step
from stacklab.replay.current import home_of, journal_of, workspace_at

CONTROL = 4 << 20


def written() -> int:
    """proc(5): write_bytes, which counts what children have written once they have been waited for."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


def control() -> bool:
    """Whether a file that is written in the directory for temporary files shows up in the count."""
    before = written()
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(CONTROL))
        file.flush()
        os.fsync(file.fileno())
    return written() - before >= CONTROL


def peak() -> int:
    """The most memory that this process had, in bytes. (Its ru_maxrss begins with what pytest had when it started us.)"""
    told = Path("/proc/self/status").read_text()
    return int(next(line for line in told.splitlines() if line.startswith("VmHWM:")).split()[1]) * 1024


def main() -> None:
    name, labs, session_name, step, via = sys.argv[1:]
    lab, session = Lab(name), read_session(Path(labs) / session_name / "session.yaml")
    desk = workspace_at(home_of(lab), lab, session, lambda text: None)
    counted = control()
    before = written()
    apply_step(desk, journal_of(lab), session.step(step), via)
    found = {
        "own": peak(),
        "children": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "written": written() - before,
        "counted": counted,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
