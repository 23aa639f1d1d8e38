"""A wheel carries the course's data and works without the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as a release would be."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)], check=True, capture_output=True
    )
    return next(out.glob("*.whl"))


def test_a_wheel_holds_all_data_and_nothing_of_the_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "stacklab/data/labs/session4/session.yaml" in names
    assert "stacklab/data/Vagrantfile.j2" in names
    assert "stacklab/data/local.conf.d/secrets.j2" in names
    assert "stacklab/deploy/profile/data/centos7-pike.yaml" in names
    assert "stacklab/deploy/stack/start.sh" in names
    assert "stacklab/py.typed" in names
    assert not [name for name in names if name.startswith("tests/")]
    sources = {
        f"stacklab/{path.relative_to(ROOT / 'src/stacklab')}"
        for path in (ROOT / "src/stacklab").rglob("*")
        if path.is_file()
    }
    assert {name for name in sources if "__pycache__" not in name} <= names


def test_installed_into_an_empty_environment_it_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    install = [str(environment / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", str(wheel)]
    subprocess.run(install, check=True, cwd=tmp_path)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "NO_COLOR": "1"}
    lab = str(environment / "bin/lab")
    listed = subprocess.run([lab, "list"], check=True, capture_output=True, text=True, cwd=tmp_path, env=env).stdout
    assert "session4" in listed
    shown = subprocess.run(
        [lab, "show", "session4/network"], check=True, capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert "openstack --os-cloud lab-learner network create lab-net" in shown.stdout
    assert str(ROOT) not in shown.stdout
