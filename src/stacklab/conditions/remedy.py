"""A command that repairs what was found, and that lab may run itself: it is safe, and needs no decision of anybody."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

SECONDS = 1800.0


@dataclass(frozen=True)
class Attempt:
    """A command and how it ended: `status` None if it was not run; `output`: why not, or its last words."""

    line: str
    status: int | None
    output: str = ""


@dataclass(frozen=True)
class Remedy:
    """`root`: as root, through sudo where we are not. `installs`: packages of the distribution, which NO_SYSTEM forbids.
    `optional`: what comes after it is tried even if it fails (one registry of many may be down).
    """

    argv: tuple[str, ...]
    root: bool = False
    installs: bool = False
    optional: bool = False

    def __str__(self) -> str:
        """As a person would type it."""
        line = shlex.join(self.argv)
        return f"sudo {line}" if self.root and os.geteuid() != 0 else line

    def run(self) -> Attempt:
        """Run it if it may be run here."""
        line, sudo = str(self), self.root and os.geteuid() != 0
        if self.installs and os.environ.get("NO_SYSTEM"):
            return Attempt(line, None, "NO_SYSTEM is set, so nothing is installed")
        if sudo and not _may_sudo():
            return Attempt(line, None, "it takes root, and sudo wants a password: run it yourself")
        # Into a file, not a pipe: a daemon that the command starts would hold a pipe open.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            try:
                status = subprocess.run(
                    [*(["sudo", "-n"] if sudo else []), *self.argv], stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, timeout=SECONDS, cwd="/", check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                return Attempt(line, None, f"it did not end within {SECONDS / 60:.0f} minutes and was ended")
            except OSError as error:
                return Attempt(line, None, f"it cannot be run: {error}")
            output.seek(0)
            last = [text.strip() for text in output.readlines() if text.strip()][-3:]
        return Attempt(line, status, " / ".join(last) if status else "")


def _may_sudo() -> bool:
    """Without a password: nobody may be there to type it."""
    if shutil.which("sudo") is None:
        return False
    done = subprocess.run(
        ["sudo", "-n", "true"], capture_output=True, stdin=subprocess.DEVNULL, timeout=20, check=False
    )
    return done.returncode == 0
