"""The package names inside the package and those of scripts/system-packages are the same: the script itself is run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stacklab.conditions.remedy import Remedy
from stacklab.doctor import packages

SCRIPT = Path(__file__).parents[2] / "scripts" / "system-packages"
MANAGERS = ("apt-get", "dnf", "zypper", "pacman")


def machine_with(directory: Path, manager: str, architecture: str) -> Path:
    """A PATH of a machine where everything is missing, and that has this package manager."""
    directory.mkdir()
    for name in ("id", "mktemp"):
        (directory / name).symlink_to(str(shutil.which(name)))
    for name, says in ((manager, "exit 1"), ("uname", f"echo {architecture}")):
        (directory / name).write_text(f"#!/bin/sh\n{says}\n")
        (directory / name).chmod(0o755)
    return directory


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
@pytest.mark.parametrize("group", ["python", "guests", "vm"])
@pytest.mark.parametrize("manager", MANAGERS)
def test_the_script_installs_the_same_packages(manager: str, group: str, architecture: str, tmp_path: Path) -> None:
    path = machine_with(tmp_path / "bin", manager, architecture)
    done = subprocess.run(
        ["/bin/sh", str(SCRIPT), group], env={"PATH": str(path), "NO_SYSTEM": "1"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    words = re.sub(r"^.*so this is not run: ", "", done.stdout).split()
    entry = packages.data()["managers"][manager]
    install = [word for word in entry["install"] if word != "env" and "=" not in word]
    assert words == [*install, *packages.names(group, manager, architecture)]


def test_managers_are_the_same_and_are_looked_for_in_the_same_order() -> None:
    assert tuple(packages.data()["managers"]) == MANAGERS
    found = re.search(r"for manager in (.*) none;", SCRIPT.read_text())
    assert found
    assert tuple(found[1].split()) == MANAGERS


def test_where_no_manager_is_known_the_names_are_told_and_nothing_can_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (line,) = packages.install("vm")
    assert not isinstance(line, Remedy)
    assert "vagrant-libvirt" in line
