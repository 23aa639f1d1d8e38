"""A real DevStack through `lab`, from a bare machine to every session, over a restart and two faults. Not part of `make test`.

    python -m tests.acceptance --mirrors DIR [--keep] [--write]

It makes a Debian 12 machine (a systemd container, see tests/systems.py), and on it, through the `lab` command and SSH only:
`lab up session4 --on ssh:…` with the profile debian12-2026.1 (DevStack's stack.sh, unmodified, to the end), the fixes,
session 4 replayed and checked, the machine restarted, `lab recover`, session 4 checked again; two faults broken on purpose,
graded, mended and graded; every other session replayed, checked and undone, and the lab reset. It prints what each took and
showed, as a table for the README; --write puts it there. --keep leaves the machine running, and says how to get in.

It needs root, what tests/systems.py needs, git, 10 GB of disk, 8 GB of memory, half an hour to an hour and a half, the package
registries that this machine is configured with, and **mirrors** of OpenStack's repositories: a directory (--mirrors or
LAB_ACCEPTANCE_MIRRORS) of bare git repositories at the paths of their public addresses: openstack/nova.git,
novnc/noVNC.git; `mirrors.REPOSITORIES` lists them. One branch's history is enough, but its tags must be in it: the version of
each service is computed from them. They are served to the machine by `git daemon` on its own network, and to nobody else.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.acceptance.mirrors import Mirrors, NoMirrors
from tests.acceptance.table import README, NoMarks, table, written
from tests.acceptance.trial import Trial, TrialFailed
from tests.systems import NoSystem, missing

PROFILE = "debian12-2026.1"


def main() -> int:
    """The exit status: 0 only if every part did what it should."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the machine is taken down then, too
    if why := missing():
        print(f"✗ {why}", file=sys.stderr)
        return 1
    try:
        if arguments.write:  # said now, not in an hour
            written(README.read_text(encoding="utf-8"), "")
        mirrors = Mirrors(arguments.mirrors)
        work = arguments.work or Path(tempfile.mkdtemp(prefix="lab-acceptance-", dir="/var/tmp"))
        work.mkdir(parents=True, exist_ok=True)
        trial = Trial(work, mirrors, arguments.profile, keep=arguments.keep)
        try:
            trial.run()
        finally:
            text = table(trial.parts, trial.machine_words())
            print(f"\n{text}\n\nlogs: {work}")
            if arguments.write:
                README.write_text(written(README.read_text(encoding="utf-8"), text), encoding="utf-8")
    except (NoMirrors, NoMarks, NoSystem, TrialFailed) as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0 if all(part.good for part in trial.parts) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.acceptance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = os.environ.get("LAB_ACCEPTANCE_MIRRORS")
    parser.add_argument("--mirrors", type=Path, default=given, help="the mirrors (or LAB_ACCEPTANCE_MIRRORS)")
    parser.add_argument("--keep", action="store_true", help="leave the machine running until Ctrl-C")
    parser.add_argument("--write", action="store_true", help="put the table into the README")
    parser.add_argument(
        "--work", type=Path, help="where machine, lab and logs go (default: a new directory in /var/tmp)"
    )
    parser.add_argument("--profile", default=PROFILE, help=f"default: {PROFILE}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
