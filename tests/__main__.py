"""All tests: those with a cloud, and beside them those with machines and a VM, for much of each is waiting.

    python -m tests [OPTIONS OF PYTEST]

Each half is one pytest with its own summary; the machines' comes when it has ended. Exit 0 only if both are well.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
MACHINES = ("machine", "vm")


def main(options: list[str]) -> int:
    """The worse of the two exit codes."""
    halves = {
        "machines": [HERE / name for name in MACHINES],
        "clouds": [path for path in sorted(HERE.iterdir()) if (path / "__init__.py").exists() and holds_tests(path)],
    }
    # pytest empties its directory when it begins, so two must not share one; short, for there are unix sockets in it.
    with tempfile.TemporaryDirectory(prefix="lab-") as scratch, Path(scratch, "machines.log").open("w+") as log:
        command = [sys.executable, "-m", "pytest", *options]
        beside = subprocess.Popen(
            [*command, f"--basetemp={scratch}/p", *halves["machines"]], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            clouds = subprocess.run([*command, *halves["clouds"]], check=False).returncode
            print("\nwaiting for the tests with machines and a VM", flush=True)
            machines = beside.wait()
        except KeyboardInterrupt:
            beside.wait()  # it was interrupted, too, and cleans up
            raise
        finally:
            log.seek(0)
            print(log.read(), flush=True)
    return clouds or machines


def holds_tests(directory: Path) -> bool:
    """Whether this half of the tests has files there."""
    return directory.name not in MACHINES and any(directory.glob("test_*.py"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
