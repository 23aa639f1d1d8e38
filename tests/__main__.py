"""All tests, in two lanes: a machine may have no more than two cores, and emulated guests leave little of one.

    python -m tests [OPTIONS OF PYTEST]

Each part is a pytest of its own. The first lane is seen as it runs, the parts of the other when they have ended. The last
lines are the summary of all, with every failure, for whoever keeps only the end. Exit 0 only if all are well.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from tests.summary import summary

HERE = Path(__file__).parent
LANES = (("embedded", "vm"), ("machine", "unit"))
DIRECTORIES = {"unit": ("unit", "prefetch")}
AFTER = {"vm": "machine"}
"""A VM boots beside light tests only: where it gets too little of a core, what it says comes too late."""


@dataclass
class Run:
    """One run of all parts; `options` are pytest's."""

    scratch: Path
    options: list[str]
    ended: dict[str, Event] = field(default_factory=lambda: {part: Event() for lane in LANES for part in lane})
    interrupted: bool = False

    def lane(self, parts: tuple[str, ...]) -> int:
        """The worst exit code of some parts, one after the other."""
        codes = [0]
        for part in parts:
            if part in AFTER:
                self.ended[AFTER[part]].wait()
            try:
                codes.append(130 if self.interrupted else self.part(part, seen=parts is LANES[0]))
            finally:
                self.ended[part].set()
        return max(codes, key=abs)

    def part(self, name: str, *, seen: bool) -> int:
        """The exit code of one part's pytest."""
        # pytest empties its directory when it begins, so two must not share one; short, for there are unix sockets in it.
        report, base = self.scratch / f"{name}.xml", self.scratch / name[0]
        paths = [str(HERE / directory) for directory in DIRECTORIES.get(name, (name,))]
        argv = [sys.executable, "-m", "pytest", *self.options, f"--junit-xml={report}", f"--basetemp={base}", *paths]
        print(f"• tests of {name}", flush=True)
        if seen:
            return subprocess.run(argv, check=False).returncode
        done = subprocess.run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        print(f"tests of {name}, beside the others:\n{done.stdout.decode(errors='replace')}", flush=True)
        return done.returncode


def main(options: list[str]) -> int:
    """The worst of the exit codes."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lab-") as scratch:
        run = Run(Path(scratch), options)
        with ThreadPoolExecutor(len(LANES)) as pool:
            lanes = [pool.submit(run.lane, parts) for parts in LANES]
            try:
                codes = [lane.result() for lane in lanes]
            except KeyboardInterrupt:  # it has reached the tests, too, which clean up after themselves
                run.interrupted = True
                raise
        print(summary(sorted(Path(scratch).glob("*.xml")), time.monotonic() - began), flush=True)
    return max(codes, key=abs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
