"""The last lines of `make test`: every failure of every part, for whoever keeps only the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.summary import summary

GOOD = "def test_well():\n    pass\n"
BAD = """import pytest

@pytest.fixture
def broken():
    raise OSError("no room")

@pytest.fixture
def badly_ended():
    yield
    raise OSError("not put back")

def test_wrong():
    assert 1 == 2, "one is not two"

def test_never_begins(broken):
    pass

def test_ends_badly(badly_ended):
    pass

@pytest.mark.skip(reason="no such machine")
def test_left_out():
    pass
"""


def run(tmp_path: Path, name: str, text: str) -> Path:
    directory = tmp_path / "tests"
    directory.mkdir(exist_ok=True)
    (directory / f"test_{name}.py").write_text(text)
    argv = [sys.executable, "-m", "pytest", f"--junit-xml={name}.xml", "--rootdir=.", f"tests/test_{name}.py"]
    clean = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}  # its --basetemp is ours
    subprocess.run(argv, cwd=tmp_path, env=clean, check=False, capture_output=True)
    return tmp_path / f"{name}.xml"


def test_every_failure_of_every_run_is_in_the_last_lines(tmp_path: Path) -> None:
    lines = summary([run(tmp_path, "good", GOOD), run(tmp_path, "bad", BAD)], 61).splitlines()
    assert lines[-1].strip("= ") == "1 failed, 1 passed, 1 skipped, 2 errors in 61.00s (0:01:01)"
    assert {line.split(" - ")[0] for line in lines[-5:-1]} == {
        "FAILED tests/test_bad.py::test_wrong",
        "ERROR tests/test_bad.py::test_never_begins",
        "ERROR tests/test_bad.py::test_ends_badly",
        "SKIPPED tests/test_bad.py::test_left_out",
    }
    assert any("one is not two" in line for line in lines[:-6]), "the trace"


def test_where_all_is_well_there_is_one_line(tmp_path: Path) -> None:
    assert summary([run(tmp_path, "good", GOOD)], 2).strip("= ") == "1 passed in 2.00s (0:00:02)"
