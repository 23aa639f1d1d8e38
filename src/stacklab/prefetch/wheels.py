"""Python packages: what the mirrored projects need under the release's upper constraints, for the machine's Python.

uv says which versions of what are needed, and pip downloads the wheels of them that fit the machine. Neither may build: no
package's code runs here. uv knows no Python before 3.6; for such a one every version that the constraints name is fetched.
What has no wheel, and what this does not see (extras that DevStack adds while it runs, for instance), the machine's pip fetches
while stacking.

python/VERSION-GLIBC/NAME/FILE     a simple index (PEP 503) in plain directories
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, canonicalize_version, parse_wheel_filename

from stacklab import indexes
from stacklab.cache import cache_root
from stacklab.deploy.profile.settings import Settings
from stacklab.download import Unreachable, without_password
from stacklab.errors import DownloadFailed, LabError, NotEnoughSpace
from stacklab.prefetch import mirrors
from stacklab.prefetch.plan import FetchOutcome, PrefetchTarget, Repository, facts
from stacklab.stages import Progress

BATCH, AT_ONCE = 25, 3
"""Packages for one pip, and how many of it at a time: an index answers one question slowly and three as slowly."""
SECONDS = 1800

# uv's words for a package that stops it, at the beginning of its explanation
_NO_WHEEL = re.compile(r"Because (?:all versions of |only )?([A-Za-z0-9_.-]+)\S* ha(?:s|ve) no usable wheels")
NEWEST_OF_UV = 40
"""The latest glibc (2.x) that uv has a name for; wheels for a later one are there hardly ever."""
_NO_MATCH = re.compile(r"No matching distribution found for (\S+)")


def directory(target: PrefetchTarget) -> Path:
    """Where the packages for such a machine are."""
    return cache_root() / "python" / f"{target.python}-{target.glibc}"


def fetch(
    projects: list[Repository], constraints: str, target: PrefetchTarget, settings: Settings, progress: Progress
) -> Iterator[FetchOutcome]:
    """What came of each package, as it comes; failures are told, and the rest goes on.

    Raises DownloadFailed if it is not known which packages, NotEnoughSpace.
    """
    environment = indexes.for_both(os.environ, index=settings.pip_index, ca_file=settings.ca_file, at=settings.at)
    if settings.proxy:
        environment |= {"http_proxy": settings.proxy, "https_proxy": settings.proxy}
    newest = facts()["python"]["newest"]
    if _major(target) < 3:
        pinned = _named(constraints, target)
    else:
        progress("which Python packages are needed")
        pinned, missing = _resolved(_needed(projects, target), constraints, target, environment)
        newest, _ = _resolved(newest, "", target, environment)
        yield from missing
    have = _there(directory(target))
    yield from (have[_key(text)] for text in dict.fromkeys([*pinned, *newest]) if _key(text) in have)
    batches = [
        [text for text in texts[start : start + BATCH] if _key(text) not in have]
        for texts in (pinned, newest)  # never in one batch: a package may be in both, in two versions
        for start in range(0, len(texts), BATCH)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ended = 0
        for outcomes in pool.map(lambda batch: _downloaded(batch, target, environment), filter(None, batches)):
            ended += len(outcomes)
            progress(f"{ended} packages; {outcomes[-1].name}")
            yield from outcomes


# --- what is needed --------------------------------------------------------------------------------------------------


def _major(target: PrefetchTarget) -> int:
    return int(target.python.partition(".")[0])


def _needed(projects: list[Repository], target: PrefetchTarget) -> list[str]:
    """What the projects and DevStack itself ask for."""
    listed = facts()["python"]
    lines = [line for project in projects for line in (mirrors.show(project, "requirements.txt") or "").splitlines()]
    requirements = map(str, filter(None, map(_requirement, lines)))
    return [*listed["every"], *listed[str(_major(target))], *listed["newest"], *requirements]


def _requirement(line: str) -> Requirement | None:
    """A line of a requirements file; None for an option, an address, or a line older than the rules."""
    try:
        return Requirement(re.sub(r"(^|\s)#.*$", "", line).strip())
    except InvalidRequirement:
        return None


def _named(constraints: str, target: PrefetchTarget) -> list[str]:
    """Every version that upper-constraints.txt names for this Python, as NAME==VERSION."""
    there = {
        "python_version": target.python, "python_full_version": f"{target.python}.18", "sys_platform": "linux2",
        "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64",
    }  # fmt: skip
    pins = filter(None, map(_requirement, constraints.splitlines()))
    return [
        f"{pin.name}{pin.specifier}".replace("===", "==")
        for pin in pins
        if not pin.marker or pin.marker.evaluate(there)
    ]


def _resolved(
    needed: list[str], constraints: str, target: PrefetchTarget, environment: dict[str, str]
) -> tuple[list[str], list[FetchOutcome]]:
    """What is needed, as NAME==VERSION, and what came of that for which there is no wheel. Raises LabError."""
    import uv

    without: list[str] = []
    with tempfile.TemporaryDirectory(prefix="lab-wheels-") as scratch:
        files = {name: Path(scratch) / f"{name}.txt" for name in ("needed", "constraints", "excludes")}
        files["needed"].write_text("\n".join(needed))
        files["constraints"].write_text(constraints)
        command = [
            uv.find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-config", "--no-build",
            "--python-version", target.python, "--python-platform", f"x86_64-manylinux_2_{min(_minor(target), NEWEST_OF_UV)}",
            "--index-strategy", "unsafe-best-match",  # as pip has it: the best of all indexes
            "--constraints", str(files["constraints"]), "--excludes", str(files["excludes"]), str(files["needed"]),
        ]  # fmt: skip
        while True:
            files["excludes"].write_text("\n".join(without))
            done = _ran(command, environment)
            if done.returncode == 0:
                pins = filter(None, map(_requirement, done.stdout.splitlines()))
                return [f"{pin.name}{pin.specifier}" for pin in pins], [_only_source(name) for name in without]
            why = " ".join(done.stderr.split()).partition(", we can conclude")[0].rpartition("cause: ")[2]
            match = _NO_WHEEL.search(why)
            if match is None or match[1] in without:
                raise _failure("uv does not find out which Python packages are needed", done.stderr)
            without.append(match[1])


def _only_source(name: str) -> FetchOutcome:
    return FetchOutcome(
        "wheels", name, "skipped", 0, "has no wheel that fits: the machine fetches its source and builds it"
    )


# --- getting it ------------------------------------------------------------------------------------------------------


def _downloaded(pins: list[str], target: PrefetchTarget, environment: dict[str, str]) -> list[FetchOutcome]:
    """Download the wheels of one batch into their places."""
    outcomes = []
    directory(target).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=directory(target).parent) as scratch:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", scratch,
            "--no-input", "--disable-pip-version-check", "--progress-bar=off", *_fitting(target),
        ]  # fmt: skip
        while pins:
            done = _ran([*command, *pins], environment)
            if done.returncode == 0:
                break
            if match := _NO_MATCH.search(done.stderr):
                outcomes.append(_only_source(match[1]))
                left = [pin for pin in pins if _key(pin) != _key(match[1])]
            if not match or len(left) == len(pins):
                error = _failure(f"{len(pins)} packages could not be fetched", done.stderr)
                return [*outcomes, *(FetchOutcome("wheels", pin, "failed", 0, error.message, error) for pin in pins)]
            pins = left
        for path in sorted(Path(scratch).iterdir()):
            place = directory(target) / canonicalize_name(path.name.partition("-")[0]) / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
            outcomes.append(FetchOutcome("wheels", place.name, "fetched", place.stat().st_size))
    return outcomes


def _fitting(target: PrefetchTarget) -> list[str]:
    """Which wheels the machine's pip takes, in pip's options."""
    old_names = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  # https://peps.python.org/pep-0600/
    platforms = [f"manylinux_2_{minor}" for minor in range(_minor(target), 4, -1)]
    platforms += [name for minor, name in old_names.items() if minor <= _minor(target)]
    options = ["--implementation=cp", f"--python-version={target.python}"]
    options += [f"--platform={name}_x86_64" for name in [*platforms, "linux"]]
    return options + ([f"--abi={target.abi}"] if target.abi else [])


def _there(place: Path) -> dict[str, FetchOutcome]:
    """The wheels that are there, by name and version."""
    there = {}
    for path in sorted(place.glob("*/*.whl")):
        name, version, *_ = parse_wheel_filename(path.name)
        there[_key(f"{name}=={version}")] = FetchOutcome("wheels", path.name, "already", path.stat().st_size)
    return there


def _key(pin: str) -> str:
    """Name and version as they are compared: 2.0 is 2.0.0. A name alone stays one."""
    name, _, version = pin.partition("==")
    return f"{canonicalize_name(name)}=={canonicalize_version(version)}"


def _minor(target: PrefetchTarget) -> int:
    return int(target.glibc.partition(".")[2])


def _ran(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"{Path(command[0]).name} did not end within {SECONDS} s", advice=indexes.ADVICE) from error


def _failure(what: str, output: str) -> LabError:
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("WARNING")]
    why = without_password("; ".join(lines)[-400:])
    if "No space left on device" in output:
        raise NotEnoughSpace(f"no space left: {why}", advice="free some space and run the same command again")
    return DownloadFailed(f"{what}: {why}", advice=indexes.ADVICE)
