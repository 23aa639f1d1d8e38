"""The recipe for the real DevStack, as far as it can be tried without one (it takes mirrors and an hour)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.acceptance.mirrors import REPOSITORIES, Mirrors, NoMirrors
from tests.acceptance.table import BEGIN, END, NoMarks, Part, table, written


@pytest.fixture
def mirrors(tmp_path: Path) -> Path:
    """What a mirror must be, and nothing more: an empty commit on the branch."""
    for path, branch in REPOSITORIES.items():
        git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(tmp_path / path))
        (tmp_path / path).mkdir(parents=True)
        subprocess.run([*git, "init", "--quiet", "--bare", "--initial-branch", branch or "main"], check=True)
        tree = subprocess.check_output([*git, "mktree"], input="", text=True).strip()
        commit = subprocess.check_output([*git, "commit-tree", "-m", "one", tree], text=True).strip()
        subprocess.run([*git, "update-ref", f"refs/heads/{branch or 'main'}", commit], check=True)
    return tmp_path


def test_mirrors_are_served_at_the_paths_of_their_public_addresses(mirrors: Path, tmp_path: Path) -> None:
    with Mirrors(mirrors).served("127.0.0.1", tmp_path / "log") as instead:
        address = f"{instead['https://opendev.org']}/openstack/nova.git"
        listed = subprocess.run(["git", "ls-remote", address], capture_output=True, text=True, check=True, timeout=30)
    commit = Mirrors(mirrors).commits()["nova"]
    assert listed.stdout.split() == [commit, "HEAD", commit, "refs/heads/stable/2026.1"]
    gone = subprocess.run(["git", "ls-remote", address], capture_output=True, text=True, check=False, timeout=30)
    assert gone.returncode != 0


def test_a_mirror_without_the_branch_is_named(mirrors: Path) -> None:
    subprocess.run(
        ["git", "-C", str(mirrors / "openstack/glance.git"), "update-ref", "-d", "refs/heads/stable/2026.1"], check=True
    )
    with pytest.raises(NoMirrors, match=r"openstack/glance\.git is no git repository with stable/2026\.1"):
        Mirrors(mirrors)


def test_the_table_says_what_failed_and_replaces_the_one_before() -> None:
    text = table([Part("one", 3.21, True, "well"), Part("two", 4000, False, "exit 1")], "a machine")
    assert text.splitlines() == [
        "| what | time | what it showed |",
        "|---|---|---|",
        "| one | 3.2 s | well |",
        "| two | 67 min | **failed:** exit 1 |",
        "",
        "One run of `python -m tests.acceptance`, 67 min in all: a machine.",
    ]
    readme = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert written(written(readme, "old"), text) == f"before\n{BEGIN}\n{text}\n{END}\nafter\n"
    with pytest.raises(NoMarks, match="acceptance"):
        written("no marks", text)
