"""What a machine sees that has nothing but Python, git and make: tests that need more are skipped, and say what they need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

TESTS = Path(__file__).parents[1]
OPTIONAL = (
    *("vagrant", "libvirtd", "virsh", "virtlogd", "ssh", "sshd", "sudo", "rsync", "systemd-nspawn", "mmdebstrap"),
    *("chromium", "chromium-browser", "google-chrome", "chromedriver", "apache2", "httpd", "dpkg-scanpackages"),
)
MODULES = ("libvirt",)
"""Packages of Python's that `make test` does not install everywhere, or that need a program."""

WITHOUT = (
    f"import sys; sys.modules.update(dict.fromkeys({MODULES!r})); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
)


def bare_path(directory: Path) -> Path:
    """A directory for PATH that holds every program of this machine's but the optional ones."""
    for folder in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in sorted(Path(folder).glob("*")):
            if program.name not in OPTIONAL and not program.name.startswith("qemu-"):
                (directory / program.name).unlink(missing_ok=True)
                (directory / program.name).symlink_to(program)
    return directory


def run(tmp_path: Path, *arguments: str) -> tuple[int, str, ElementTree.Element]:
    """pytest's exit code, what it printed, and its report, on such a machine."""
    programs, report = tmp_path / "programs", tmp_path / "report.xml"
    programs.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("LAB_NO_SKIP", "PYTEST_ADDOPTS")}
    environment |= {"PATH": str(bare_path(programs))}
    said = tmp_path / "said"  # a file: whatever a test leaves running a moment longer would hold a pipe open
    with said.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT, "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/b",
             f"--junit-xml={report}", *arguments],
            env=environment, stdout=output, stderr=output, check=False, cwd=TESTS.parent,
        )  # fmt: skip
    tree = ElementTree.parse(report)  # noqa: S314 - our own pytest's
    return done.returncode, said.read_text(errors="replace")[-4000:], tree.getroot()


def test_all_tests_can_be_collected(tmp_path: Path) -> None:
    code, said, _ = run(tmp_path, "--collect-only", str(TESTS))
    assert code == 0, said


def test_what_needs_a_vm_or_a_machine_is_skipped_with_what_would_enable_it(tmp_path: Path) -> None:
    code, said, report = run(tmp_path, str(TESTS / "vm"), str(TESTS / "machine"))
    assert code == 0, said
    reasons = {skipped.get("message") or "" for skipped in report.iter("skipped")}
    assert reasons
    assert [reason for reason in reasons if "install" not in reason and "run " not in reason] == []
