"""`make tempest`: OpenStack's own acceptance suite, on an embedded cloud made for it. Exit 0 only if nothing failed."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from types import FrameType

from stacklab.console import Console
from stacklab.durations import seconds
from stacklab.errors import LabError
from tests.tempest import configuration, environment, scratch, suite
from tests.tempest.exclusions import Exclusion, load_exclusions
from tests.tempest.prerequisites import prepare


def main() -> int:
    """The exit status."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _end)  # so that the cloud is taken down then, too
    console = Console()
    try:
        return _run(console, arguments)
    except LabError as error:
        console.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.tempest", description=__doc__)
    parser.add_argument("--regex", help="run the tests that match, instead of the smoke set")
    parser.add_argument("--keep", action="store_true", help="leave the cloud running; the next run uses it again")
    return parser.parse_args()


def _run(console: Console, arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    exclusions = load_exclusions()
    with console.working(f"Tempest {environment.version()}", 15) as progress:
        environment.install(progress)
    with scratch.house(console, keep=arguments.keep) as house:
        with console.working("what Tempest needs in the cloud", 5):
            facts = prepare(house)
        configuration.write(house, facts)
        outcome = suite.run(house.work, exclusions, arguments.regex, console)
        if outcome.failed:
            house.keep_evidence()
            console.print(f"Tempest's and the services' logs are in {house.evidence}")
    _summarise(console, outcome, exclusions, time.monotonic() - began)
    return 0 if outcome.good else 1


def _summarise(console: Console, outcome: suite.Outcome, exclusions: list[Exclusion], took: float) -> None:
    console.print()
    for name, why in outcome.skipped:
        console.print(f"{console.mark('skipped')} skipped by Tempest: {name}: {why}")
    for exclusion in exclusions:
        console.print(f"{console.mark('skipped')} excluded: {exclusion.regex}: {exclusion.why}")
    for name in outcome.failed:
        console.print(f"{console.mark('failed')} failed: {name}")
    if not outcome.good and not outcome.failed:
        console.print(f"{console.mark('failed')} Tempest ended with status {outcome.status}")
    console.heading(
        f"{console.mark('passed' if outcome.good else 'failed')} {len(outcome.passed) + len(outcome.failed)} executed:"
        f" {len(outcome.passed)} passed, {len(outcome.failed)} failed; {len(outcome.skipped)} skipped by Tempest,"
        f" {len(exclusions)} excluded; tests {seconds(outcome.seconds)}, everything {seconds(took)}"
    )


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
