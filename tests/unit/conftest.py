"""What only some machines can check: left out, and said so, where it was not asked for."""

from __future__ import annotations

import os

import pytest

DEVSTACK = "LAB_DEVSTACK_GIT"
NEEDS_DEVSTACK = "test_local_conf_devstack.py"


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
