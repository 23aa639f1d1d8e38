"""All tests: those with a cloud, and beside them those with machines and those with a VM, for much of each is waiting.

    python -m tests [OPTIONS OF PYTEST]

Each part is a pytest with a summary of its own: that of the first is seen as it runs, those of the others when it has ended.
The last lines are the summary of all, with every failure, for whoever keeps only the end. Exit 0 only if all are well.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.summary import summary

HERE = Path(__file__).parent
BESIDE = {"machine": "the tests with machines", "vm": "the tests with a VM"}


def main(options: list[str]) -> int:
    """The worst of the exit codes."""
    began = time.monotonic()
    first = [path for path in sorted(HERE.iterdir()) if (path / "__init__.py").exists() and holds_tests(path)]
    with ExitStack() as stack:
        # pytest empties its directory when it begins, so two must not share one; short, for there are unix sockets in it.
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lab-")))

        def command(name: str) -> list[str]:
            return [sys.executable, "-m", "pytest", *options, f"--junit-xml={scratch}/{name}.xml"]

        running: dict[str, subprocess.Popen[bytes]] = {}
        for name in BESIDE:
            argv = [*command(name), f"--basetemp={scratch}/{name[0]}", str(HERE / name)]
            with (scratch / f"{name}.log").open("wb") as log:
                running[name] = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
        codes = []
        try:
            codes.append(subprocess.run([*command("clouds"), *first], check=False).returncode)
        finally:  # where we are interrupted they are, too, and clean up
            for name, process in running.items():
                print(f"\nwaiting for {BESIDE[name]}", flush=True)
                codes.append(process.wait())
                print((scratch / f"{name}.log").read_text(encoding="utf-8", errors="replace"), flush=True)
        print(summary(sorted(scratch.glob("*.xml")), time.monotonic() - began), flush=True)
    return max(codes, key=abs)


def holds_tests(directory: Path) -> bool:
    """Whether this part of the tests has files there."""
    return directory.name not in BESIDE and any(directory.glob("test_*.py"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
