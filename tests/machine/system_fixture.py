"""A real Debian 12 machine for tests: import the fixture that fits into the test module (or a conftest).

`debian` is one machine for all tests of a module that import it; `fresh_debian` is a new one for each test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systems import System, missing, system


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A machine that the tests of a module share."""
    yield from _machine(tmp_path_factory.mktemp("debian"))


@pytest.fixture
def fresh_debian(tmp_path: Path) -> Iterator[System]:
    """A machine that nobody has touched."""
    yield from _machine(tmp_path)


def _machine(scratch: Path) -> Iterator[System]:
    if why := missing():
        pytest.skip(why)
    with system(scratch) as machine:
        yield machine
