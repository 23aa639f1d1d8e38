"""A wheel carries the course's data and works without the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
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


def test_installed_into_an_environment_of_its_own_it_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = str(environment / "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True, cwd=tmp_path)
    # What it depends on is here already; a path that is added so brings no checkout that is installed beside it.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "NO_COLOR": "1"}
    lab = str(environment / "bin/lab")
    listed = subprocess.run([lab, "list"], check=True, capture_output=True, text=True, cwd=tmp_path, env=env).stdout
    assert "session4" in listed
    shown = subprocess.run(
        [lab, "show", "session4/network"], check=True, capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert "openstack --os-cloud lab-learner network create lab-net" in shown.stdout
    assert str(ROOT) not in shown.stdout
