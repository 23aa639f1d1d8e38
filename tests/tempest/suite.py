"""Running Tempest, showing each test as it ends, and counting what came of them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stacklab.console import Console
from tests.tempest import configuration, environment
from tests.tempest.exclusions import Exclusion

CONCURRENCY = 2
# stestr's line for a test (or for a class that was skipped or failed as a whole)
ENDED = re.compile(
    r"^\{\d+\} (?P<name>.+?)(?: \[(?P<seconds>[\d.]+)s\])? \.\.\. (?P<result>ok|FAILED|SKIPPED)(?:: (?P<why>.*))?$"
)


@dataclass
class Outcome:
    """Names of tests by what came of them; `skipped` with Tempest's reason."""

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    status: int = 1
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether tests ran and none failed, by our count and by Tempest's."""
        return bool(self.passed) and not self.failed and self.status == 0


def run(work: Path, exclusions: list[Exclusion], regex: str | None, console: Console) -> Outcome:
    """Run the smoke set, or what matches `regex`, but for the exclusions; all that is said goes to output.log."""
    listed = work / "excluded.txt"
    listed.write_text("".join(f"{exclusion.regex}\n" for exclusion in exclusions), encoding="utf-8")
    command = [
        str(environment.python()),
        "-m",
        "tempest.cmd.main",
        "run",
        "--config-file",
        str(work / configuration.NAME),
    ]
    command += ["--concurrency", str(CONCURRENCY), "--exclude-list", str(listed)]
    command += ["--regex", regex] if regex else ["--smoke"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "TEMPEST", "PYTHONPATH"))}
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=work,
        env=clean,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        outcome = _follow(process.stdout, work / "output.log", console)
        outcome.status = process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # its workers too
        process.wait()
        raise
    outcome.seconds = time.monotonic() - began
    return outcome


def _follow(lines: Iterable[str], log: Path, console: Console) -> Outcome:
    outcome, quiet, over = Outcome(), False, False
    with log.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line)
            text = line.rstrip()
            ended = ENDED.match(text)
            over = over or text.startswith("=====")  # the failures again, and totals; ours follow
            if over:
                continue
            if ended:
                _count(outcome, ended, console)
                quiet = ended["result"] != "FAILED"
            elif text.startswith("Captured "):
                quiet = not text.startswith("Captured traceback")
            elif not quiet and text:
                console.print(f"    {text}")
    return outcome


def _count(outcome: Outcome, ended: re.Match[str], console: Console) -> None:
    name, took = ended["name"], f"  {ended['seconds']} s" if ended["seconds"] else ""
    if ended["result"] == "ok":
        outcome.passed.append(name)
        console.print(f"{console.mark('passed')} {name}{took}")
    elif ended["result"] == "FAILED":
        outcome.failed.append(name)
        console.print(f"{console.mark('failed')} {name}{took}")
    else:
        outcome.skipped.append((name, ended["why"] or ""))
        console.print(f"{console.mark('skipped')} {name}  {ended['why'] or ''}")
