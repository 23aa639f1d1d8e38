"""All tests, in two lanes: a machine may have no more than two cores, and emulated guests leave little of one.

    python -m tests [--tempest] [OPTIONS OF PYTEST]

`--tempest`: OpenStack's own suite, too. Each other part is a pytest of its own. The first lane is seen as it runs, the parts
of the other when they have ended. The last lines are the summary of all, with every failure, for whoever keeps only the end.
Exit 0 only if all are well.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.summary import summary

HERE = Path(__file__).parent
LANES = (("embedded", "tempest"), ("unit", "machine", "vm"))
"""Emulated guests take a core each: the VM comes last, beside what is lighter."""
DIRECTORIES = {"unit": ("unit", "prefetch")}
TEMPEST = "--tempest"


@dataclass
class Run:
    """One run of all parts; `options` are pytest's."""

    scratch: Path
    options: list[str]
    interrupted: bool = False

    def lane(self, parts: tuple[str, ...]) -> int:
        """The worst exit code of some parts, one after the other."""
        codes = [0]
        for part in parts:
            if part == "tempest" and TEMPEST not in self.options:
                continue
            codes.append(130 if self.interrupted else self.part(part, seen=parts is LANES[0]))
        return max(codes, key=abs)

    def part(self, name: str, *, seen: bool) -> int:
        """The exit code of one part."""
        # pytest empties its directory when it begins, so two must not share one; short, for there are unix sockets in it.
        report, base = self.scratch / f"{name}.xml", self.scratch / name[0]
        paths = [str(HERE / directory) for directory in DIRECTORIES.get(name, (name,))]
        options = [option for option in self.options if option != TEMPEST]
        argv = [sys.executable, "-m", "pytest", *options, f"--junit-xml={report}", f"--basetemp={base}", *paths]
        argv = [sys.executable, "-m", "tests.tempest"] if name == "tempest" else argv
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
