"""A deployment that takes from this host's cache: DevStack's address leads nowhere, and the machine clones it all the same."""

# ruff: noqa: F811 - a fixture that is imported and then named as an argument

from __future__ import annotations

import subprocess
from pathlib import Path

from tests import standin
from tests.machine.learner import BESIDE, CONTAINER, Learner, connected, put_sleepers
from tests.machine.system_fixture import debian  # noqa: F401 - a fixture
from tests.systems import System

ELSEWHERE = "https://devstack.invalid/standin/devstack.git"
"""Names nothing: `.invalid` never resolves (RFC 2606)."""


def test_what_was_prefetched_is_cloned_without_the_internet_and_the_server_ends_with_the_run(
    debian: System, tmp_path: Path
) -> None:
    bare = tmp_path / "upstream" / "standin" / "devstack.git"
    bare.parent.mkdir(parents=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", standin.bundle(tmp_path), bare], check=True)
    devstack = {"repo": ELSEWHERE, "ref": standin.TAG}
    learner = Learner(tmp_path, debian, connected(debian), standin.profile_data(variants=CONTAINER, devstack=devstack))
    learner.configure(mirrors={"https://devstack.invalid/": f"{(tmp_path / 'upstream').as_uri()}/"})
    put_sleepers(learner.machine, *BESIDE)
    standin.behave(learner.machine, STANDIN_SECONDS="5")

    # DevStack itself comes; what else it clones is not known of a stand-in, and that is said.
    assert "without its stackrc" in learner.lab("prefetch", "standin", "--only", "git", expect=12)
    bare.rename(tmp_path / "gone")  # the internet is taken away
    told = learner.up("--on", "ssh:course", "--profile", "standin")
    assert "come from here, through the SSH connection" in told
    assert "session4 is ready" in told
    # The clone names the place that it would be fetched from, and git fetches from there again from now on.
    origin = debian.ssh("runuser -u stack -- git -C /opt/stack/devstack remote get-url origin", user="root").stdout
    assert origin.strip() == f"{(tmp_path / 'upstream').as_uri()}/standin/devstack.git"  # the user's mirror of it
    assert "the end of what was prefetched" in told
    assert debian.ssh("cat /etc/stacklab/git.conf", user="root", check=False).returncode != 0
    assert "127.0.0.1" not in debian.ssh("cat /etc/pip.conf", user="root", check=False).stdout
    state = tmp_path / ".local" / "state" / "stacklab" / "intro"
    assert subprocess.run(["pgrep", "-f", f"stacklab.prefetch.server {state}"], check=False).returncode == 1
    learner.lab("destroy", "--yes")
    learner.machine.close()
