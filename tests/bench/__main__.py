"""`make bench`: what the README's table says, measured anew on this machine in one run.

Everything happens in directories of its own and is removed afterwards. --write puts the table into the README.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
LAB = str(Path(sys.executable).parent / "lab")


def timed(environment: dict[str, str], *words: str) -> tuple[float, str]:
    """Run lab; the wall seconds it took, and its output. Ends the benchmark if it fails."""
    began = time.monotonic()
    done = subprocess.run([LAB, *words], env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        sys.exit(f"lab {' '.join(words)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    print(f"  {seconds:7.1f} s  lab {' '.join(words)}", flush=True)
    return seconds, done.stdout


def cpu_of_help(environment: dict[str, str]) -> float:
    """CPU seconds of `lab --help`, the best of five."""
    found = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([LAB, "--help"], env=environment, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def replayed(environment: dict[str, str], via: str) -> tuple[float, float]:
    """Seconds of a whole replay, and of its steps without those that wait for the guest to boot."""
    timed(environment, "reset")
    whole, output = timed(environment, "replay", "session4", "--via", via, "--json")
    steps = json.loads(output)["steps"]
    booting = {"server", "console", "login", "attachment"}
    return whole, sum(step["seconds"] for step in steps if step["kind"] not in booting)


def measure(environment: dict[str, str]) -> list[tuple[str, str, str]]:
    """Rows of the table: what, measured, aim."""
    rows = []
    first, _ = timed(environment, "up", "session4")
    rows.append(("first `lab up`: install OpenStack, initialise, build an image, start", f"{first:.0f} s", ""))
    again, _ = timed(environment, "up", "session4")
    rows.append(("`lab up` on a running lab", f"{again:.1f} s", ""))
    cli, cli_steps = replayed(environment, "cli")
    rest, rest_steps = replayed(environment, "rest")
    rows.append(
        (
            "session 4 replayed by REST / by the `openstack` client",
            f"{rest:.0f} / {cli:.0f} s",
            "",
        )
    )
    rows.append(("…REST against client, the whole, boot of the guest included", f"{cli / rest:.1f}×", "≥ 10×"))
    rows.append(
        ("…REST against client, the steps that do not wait for the guest", f"{cli_steps / rest_steps:.1f}×", "")
    )
    checked, _ = timed(environment, "check", "session4")
    rows.append(("`lab check session4`", f"{checked:.1f} s", ""))
    _, status = timed(environment, "status", "--json")
    memory = sum(service["memory"] or 0 for service in json.loads(status)["services"])
    rows.append(
        (
            "memory of the whole cloud with Horizon and Swift (PSS, without guests)",
            f"{memory / 2**30:.2f} GiB",
            "≤ 2 GB",
        )
    )
    reset, _ = timed(environment, "reset")
    rows.append(("`lab reset` to usable, with an instance running", f"{reset:.1f} s", "≤ 3 s"))
    timed(environment, "down")
    warm, _ = timed(environment, "up", "session4")
    rows.append(("warm `lab up` after `lab down`", f"{warm:.0f} s", "≤ 25 s"))
    rows.append(("`lab --help`", f"{cpu_of_help(environment):.2f} CPU-s", "≤ 0.3 CPU-s"))
    return rows


def machine() -> str:
    """The machine in a few words."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next(
        (line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), platform.machine()
    )
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, load {load:.1f} at the end"


def main() -> None:
    """Measure, print, clean up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into the README")
    write = parser.parse_args().write
    scratch = Path(tempfile.mkdtemp(prefix="lab-bench-"))
    environment = os.environ | {f"XDG_{kind}_HOME": str(scratch / kind.lower()) for kind in ("STATE", "DATA", "CACHE")}
    try:
        rows = measure(environment)
    finally:
        subprocess.run([LAB, "destroy", "--yes"], env=environment, capture_output=True, check=False)
        shutil.rmtree(scratch)
    table = [
        "| what | measured | aim |",
        "|---|---|---|",
        *(f"| {what} | {value} | {aim} |" for what, value, aim in rows),
    ]
    text = "\n".join([*table, "", f"One run of `make bench`: {machine()}."])
    print(text)
    if write:
        head, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
        README.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
