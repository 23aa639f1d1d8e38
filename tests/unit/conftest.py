"""What only some machines can check: left out, and said so, where it was not asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from stacklab.course.load import read_session
from stacklab.course.search import VARIABLE
from tests.unit.sessions import written

DEVSTACK = "LAB_DEVSTACK_GIT"
NEEDS_DEVSTACK = "test_local_conf_devstack.py"


@pytest.fixture(autouse=True)
def no_other_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The directories of sessions of whoever runs the tests do not count, and what a test names goes with it."""
    monkeypatch.setenv(VARIABLE, "")


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a session file where it belongs and reads it."""

    def read(text: str, **variables: str) -> Any:
        return read_session(written(tmp_path, text), variables or None)

    return read


def pytest_report_header() -> str | None:
    """Say what is not checked, and what would check it."""
    if os.environ.get(DEVSTACK):
        return None
    return f"{NEEDS_DEVSTACK}: left out; {DEVSTACK}=PATH (a clone of openstack/devstack with its tags) checks it"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs DevStack's source, unless its place is given: it cannot be fetched everywhere, so it is no skip."""
    if os.environ.get(DEVSTACK):
        return
    out = [item for item in items if item.path.name == NEEDS_DEVSTACK]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item.path.name != NEEDS_DEVSTACK]
