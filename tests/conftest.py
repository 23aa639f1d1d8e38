"""Shared by all tests: never the learner's own directories, and no skipping where everything must be there."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.measure import numbers

# Other tests run beside these, so how long an example takes says nothing. CI judges a change, so it takes the same examples
# each time; everybody else's runs go on looking for new ones.
settings.register_profile("lab", deadline=None, derandomize=bool(os.environ.get("LAB_NO_SKIP")), print_blob=True)
settings.load_profile("lab")


def pytest_configure(config: pytest.Config) -> None:
    """A shell that starts a run in the background makes it ignore Ctrl-C, which is tested here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured on the way."""
    if numbers:
        terminalreporter.section("measured")
        for line in numbers:
            terminalreporter.line(line)


@pytest.fixture(autouse=True)
def no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output is compared as text."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.fixture
def own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """XDG directories of the test's own."""
    for kind in ("STATE", "DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind.lower()))
    return tmp_path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With LAB_NO_SKIP (CI, which installs everything) a skipped test is a failed one."""
    report = yield
    if report.skipped and os.environ.get("LAB_NO_SKIP") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
    return report
